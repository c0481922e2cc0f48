//! Octets of files on their way out.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::landing::blocking;

/// What is read of a file at once.
const READ_BYTES: u64 = 256 << 10;

/// So many pieces wait at most.
const WAITING_MAX: usize = 2;

/// The body of a message, of a length that is known before.
#[derive(Debug)]
pub(super) struct Outgoing {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl Outgoing {
    /// A body without octets.
    pub(super) fn empty() -> Self {
        Self { pieces: mpsc::channel(1).1, left: 0 }
    }

    /// A part of a file, which is read as fast as somebody takes it. `sent` is told of each piece that was taken.
    pub(super) fn of(file: Arc<File>, part: Range<u64>, sent: impl Fn(Range<u64>) + Send + 'static) -> Self {
        let (sender, pieces) = mpsc::channel(WAITING_MAX);
        let Range { start, end } = part;
        tokio::spawn(async move {
            let mut at = start;
            while at < end {
                let file = Arc::clone(&file);
                let read = blocking(move || {
                    let length = usize::try_from((end - at).min(READ_BYTES)).unwrap_or_default();
                    let mut bytes = vec![0; length];
                    file.read_exact_at(&mut bytes, at).map(|()| Bytes::from(bytes))
                });
                let Ok(read) = read.await else { return };
                let length = read.as_ref().map_or(0, |bytes| bytes.len() as u64);
                // What could not be read has been told then.
                if sender.send(read).await.is_err() || length == 0 {
                    return;
                }
                sent(at..at + length);
                at += length;
            }
        });
        Self { pieces, left: end - start }
    }
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(Ok(bytes)) => {
                let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
                    return Some(Err(io::ErrorKind::InvalidData.into()));
                };
                self.left = left;
                Some(Ok(Frame::data(bytes)))
            }
            Some(Err(error)) => Some(Err(error)),
            // Whoever made them ended before the last: that is no end.
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
