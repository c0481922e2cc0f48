//! Being told to end.

use std::future::Future;

use domicile::{Code, Error, Result};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// Ready when this process is told to end; told once more, it ends at once.
pub(crate) fn told_to_end() -> Result<impl Future<Output = ()>> {
    let signals = Signals::new([SIGTERM, SIGINT]);
    let mut signals = signals
        .map_err(|source| Error::new(Code::InputFailed, "signals cannot be listened to").because(source))?;
    let (sender, told) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let mut signals = signals.forever();
        if signals.next().is_some() {
            // Nobody waits for it any more, if this fails.
            let _ = sender.send(());
        }
        for signal in signals {
            // Where this fails, the process ends as it was going to.
            let _ = emulate_default_handler(signal);
        }
    });
    Ok(async {
        // The sender is dropped when nothing comes any more: that is no word to end.
        if told.await.is_err() {
            std::future::pending::<()>().await;
        }
    })
}
