//! A connection to the Inventory service, as bytes: what is read of it at once, and whether anything is.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::client::addresses::Place;

/// How much is read before all tasks that were woken have their turn: a few answers. In a rush twenty come at once: what the first of
/// them lets go on would wait until the last is read.
const TURN_BYTES: usize = 256;

/// What bytes go over.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that counts among those of its address until it is dropped.
pub(super) struct Connection {
    io: Box<dyn Stream>,
    was_heard: Arc<AtomicBool>,
    /// What may still be read in this turn.
    turn_left_bytes: usize,
    _place: Place,
}

impl Connection {
    pub(super) fn new(io: Box<dyn Stream>, place: Place) -> Self {
        Self { io, was_heard: Arc::default(), turn_left_bytes: TURN_BYTES, _place: place }
    }

    /// Becomes true whenever the other end says something.
    pub(super) fn was_heard(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.was_heard)
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.turn_left_bytes == 0 {
            self.turn_left_bytes = TURN_BYTES;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let length = buf.remaining().min(self.turn_left_bytes);
        let mut part = ReadBuf::new(buf.initialize_unfilled_to(length));
        let Poll::Ready(result) = Pin::new(&mut self.io).poll_read(cx, &mut part) else {
            self.turn_left_bytes = TURN_BYTES;
            return Poll::Pending;
        };
        let read = part.filled().len();
        buf.advance(read);
        self.turn_left_bytes -= read;
        if read > 0 {
            self.was_heard.store(true, Ordering::Relaxed);
        }
        Poll::Ready(result)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::SocketAddr;
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;
    use crate::client::addresses::Addresses;

    const ANSWERS: [u8; 2 * TURN_BYTES + 1] = [7; 2 * TURN_BYTES + 1];

    /// A connection on which answers wait, and its other end.
    async fn connection() -> (Connection, DuplexStream) {
        let (mut service, io) = duplex(ANSWERS.len());
        service.write_all(&ANSWERS).await.expect("there is room");
        let place = Arc::new(Addresses::default()).take(SocketAddr::from(([127, 0, 0, 1], 1)));
        (Connection::new(Box::new(io), place), service)
    }

    #[tokio::test]
    async fn after_a_few_answers_all_else_that_is_ready_has_its_turn() {
        let (mut connection, _service) = connection().await;
        let was_heard = connection.was_heard();
        assert!(!was_heard.load(Ordering::Relaxed));
        let read = Cell::new(0);
        let reader = async {
            let mut buf = [0; ANSWERS.len()];
            while read.get() < ANSWERS.len() {
                read.set(read.get() + connection.read(&mut buf).await.expect("it is open"));
            }
        };
        let all_else = async {
            let mut at_each_turn = Vec::new();
            while read.get() < ANSWERS.len() {
                at_each_turn.push(read.get());
                yield_now().await;
            }
            at_each_turn
        };
        let ((), at_each_turn) = tokio::join!(biased; reader, all_else);
        assert_eq!(at_each_turn, [TURN_BYTES, 2 * TURN_BYTES]);
        assert!(was_heard.load(Ordering::Relaxed));
    }

    #[tokio::test]
    async fn what_waits_for_the_next_turn_is_read_though_nothing_more_arrives() {
        let (mut connection, _service) = connection().await;
        let mut answers = [0; ANSWERS.len()];
        let read = timeout(Duration::from_secs(10), connection.read_exact(&mut answers));
        assert_eq!(read.await.expect("it goes on by itself").expect("it is open"), ANSWERS.len());
        assert_eq!(answers, ANSWERS);
    }
}
