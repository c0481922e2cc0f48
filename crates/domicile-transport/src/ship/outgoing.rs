//! Octets on their way out, made elsewhere as fast as they are taken.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;

/// So many pieces wait at most.
const WAITING_MAX: usize = 2;

/// The body of a message, of a length that is known before.
#[derive(Debug)]
pub(super) struct Outgoing {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    left: u64,
}

impl Outgoing {
    /// A body of so many octets, and where they are to be put.
    pub(super) fn new(length: u64) -> (mpsc::Sender<io::Result<Bytes>>, Self) {
        let (sender, pieces) = mpsc::channel(WAITING_MAX);
        (sender, Self { pieces, left: length })
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
