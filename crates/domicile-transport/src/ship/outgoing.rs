//! Octets of files on their way out.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

use super::digest::Digest;
use super::landing::blocking;
use super::{REPR_DIGEST, digest};

/// What is read of a file at once.
const READ_BYTES: u64 = 256 << 10;

/// So many pieces wait at most.
const WAITING_MAX: usize = 2;

/// The body of a message.
#[derive(Debug)]
pub(super) struct Outgoing {
    pieces: mpsc::Receiver<io::Result<Frame<Bytes>>>,
    /// So many octets come yet.
    left: u64,
    /// Behind them comes their digest, as a trailer: then the message is chunked, and otherwise it says its length.
    digest_follows: bool,
}

impl Outgoing {
    /// A body without octets.
    pub(super) fn empty() -> Self {
        Self { pieces: mpsc::channel(1).1, left: 0, digest_follows: false }
    }

    /// A part of a file, which is read as fast as somebody takes it. `sent` is told of each piece that was taken.
    pub(super) fn of(file: Arc<File>, part: Range<u64>, sent: impl Fn(Range<u64>) + Send + 'static) -> Self {
        Self::begin(file, part, None, sent)
    }

    /// A whole file, and behind it the digest of what was sent, which is told here too.
    pub(super) fn with_digest(
        file: Arc<File>,
        length: u64,
        digest: Arc<OnceLock<Digest>>,
        sent: impl Fn(Range<u64>) + Send + 'static,
    ) -> Self {
        Self::begin(file, 0..length, Some(digest), sent)
    }

    fn begin(
        file: Arc<File>,
        part: Range<u64>,
        digest: Option<Arc<OnceLock<Digest>>>,
        sent: impl Fn(Range<u64>) + Send + 'static,
    ) -> Self {
        let (sender, pieces) = mpsc::channel(WAITING_MAX);
        let Range { start, end } = part;
        let digest_follows = digest.is_some();
        tokio::spawn(async move {
            let mut at = start;
            let mut running = digest.is_some().then(digest::Running::default);
            while at < end {
                let file = Arc::clone(&file);
                let read = blocking(move || {
                    let length = usize::try_from((end - at).min(READ_BYTES)).unwrap_or_default();
                    let mut bytes = vec![0; length];
                    let read = file.read_exact_at(&mut bytes, at);
                    if let Some(running) = &mut running {
                        running.update(&bytes);
                    }
                    (read.map(|()| Bytes::from(bytes)), running)
                });
                let Ok((read, after)) = read.await else { return };
                running = after;
                let length = read.as_ref().map_or(0, |bytes| bytes.len() as u64);
                // What could not be read has been told then.
                if sender.send(read.map(Frame::data)).await.is_err() || length == 0 {
                    return;
                }
                sent(at..at + length);
                at += length;
            }
            if let Some((digest, running)) = digest.zip(running) {
                let whole = *digest.get_or_init(|| running.finish());
                // Nobody waits for it where the connection is gone.
                let _ = sender.send(trailer(whole).map(Frame::trailers)).await;
            }
        });
        Self { pieces, left: end - start, digest_follows }
    }
}

fn trailer(digest: Digest) -> io::Result<HeaderMap> {
    let value = HeaderValue::try_from(digest.repr()).map_err(io::Error::other)?;
    Ok(HeaderMap::from_iter([(REPR_DIGEST, value)]))
}

impl Body for Outgoing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        self.pieces.poll_recv(context).map(|piece| match piece {
            Some(Ok(frame)) => {
                match frame.data_ref() {
                    Some(bytes) => {
                        let Some(left) = self.left.checked_sub(bytes.len() as u64) else {
                            return Some(Err(io::ErrorKind::InvalidData.into()));
                        };
                        self.left = left;
                    }
                    None => self.digest_follows = false,
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(error)),
            // Whoever made them ended before the last: that is no end.
            None => Some(Err(io::ErrorKind::UnexpectedEof.into())),
        })
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0 && !self.digest_follows
    }

    fn size_hint(&self) -> SizeHint {
        if self.digest_follows { SizeHint::new() } else { SizeHint::with_exact(self.left) }
    }
}
