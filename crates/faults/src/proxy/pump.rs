//! One connection through the proxy: two ways, each with a reader, a writer and a bounded channel
//! between them.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Course, HELD_SHOWN_MAX, Orders, Shared, Way};

/// Maximum size of a piece.
const PIECE_BYTES: usize = 16 * 1024;

/// Pieces between reader and writer: above 1 MiB the sender gets backpressure.
const PIECES_MAX: usize = 64;

/// Interval of writes on a throttled way.
const THROTTLE_TICK: Duration = Duration::from_millis(50);
const THROTTLE_TICKS_A_SECOND: u32 = 20;

struct Piece {
    bytes: Bytes,
    taken_at: Instant,
}

/// Carries a connection to its end.
pub(super) async fn carry(mut client: TcpStream, shared: Arc<Shared>) {
    let mut orders = shared.orders.subscribe();
    let resets = orders.borrow_and_update().resets;
    shared.traffic.send_modify(|traffic| {
        traffic.opened += 1;
        traffic.open += 1;
    });
    let _open = Open(&shared);
    let Ok(mut server) = TcpStream::connect(shared.target()).await else {
        // Like a refusal by the target, but a moment later.
        let _ = client.set_zero_linger();
        return;
    };
    // Small pieces must not wait for Nagle's algorithm; a dead socket may refuse the option.
    let _ = server.set_nodelay(true);
    let is_whole = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                pump(from_client, to_server, Way::ToServer, &shared),
                pump(from_server, to_client, Way::ToClient, &shared),
            )
        };
        let reset = orders.wait_for(|orders| orders.resets != resets);
        tokio::select! { biased; _ = reset => false, ended = both => ended.is_ok() }
    };
    if !is_whole {
        // With zero linger, the following close sends RST.
        let _ = (client.set_zero_linger(), server.set_zero_linger());
    }
}

struct Open<'a>(&'a Shared);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.traffic.send_modify(|traffic| traffic.open -= 1);
    }
}

async fn pump(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    way: Way,
    shared: &Shared,
) -> io::Result<()> {
    let (pieces, line) = mpsc::channel(PIECES_MAX);
    let writer = Writer { to, way, shared, orders: shared.orders.subscribe(), has_lost: false };
    tokio::try_join!(read(from, pieces, way, shared), writer.run(line))?;
    Ok(())
}

async fn read(
    mut from: impl AsyncRead + Unpin,
    pieces: mpsc::Sender<Piece>,
    way: Way,
    shared: &Shared,
) -> io::Result<()> {
    let mut buffer = vec![0; PIECE_BYTES];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return Ok(());
        }
        let bytes = Bytes::copy_from_slice(&buffer[..count]);
        if shared.orders.borrow().courses[way.index()] == Course::Hold {
            let held = &mut shared.held()[way.index()];
            let room = HELD_SHOWN_MAX.saturating_sub(held.len()).min(count);
            held.extend_from_slice(&bytes[..room]);
        }
        let count = u64::try_from(count).expect("a piece is small");
        shared.traffic.send_modify(|traffic| traffic.taken[way.index()] += count);
        if pieces.send(Piece { bytes, taken_at: Instant::now() }).await.is_err() {
            // The writer has ended, which ends this way.
            return Ok(());
        }
    }
}

struct Writer<'a, W> {
    to: W,
    way: Way,
    shared: &'a Shared,
    orders: watch::Receiver<Orders>,
    has_lost: bool,
}

impl<W: AsyncWrite + Unpin> Writer<'_, W> {
    async fn run(mut self, mut line: mpsc::Receiver<Piece>) -> io::Result<()> {
        let way = self.way.index();
        let ends = self.orders.borrow().ends[way];
        let mut ordered_end = self.shared.orders.subscribe();
        let carried = async {
            while let Some(piece) = line.recv().await {
                self.write(&piece).await?;
            }
            // A black hole also drops the end of a connection.
            while self.has_lost || self.course().await == Course::Drop {
                std::future::pending::<()>().await;
            }
            Ok::<_, io::Error>(())
        };
        let ordered = ordered_end.wait_for(|orders| orders.ends[way] != ends);
        let is_ordered = tokio::select! {
            biased;
            _ = ordered => true,
            done = carried => { done?; false }
        };
        self.to.shutdown().await?;
        if is_ordered {
            // Later bytes are lost; the connection stays open for the other way.
            while line.recv().await.is_some() {}
        }
        Ok(())
    }

    /// Returns the course when it is not `Hold`.
    async fn course(&mut self) -> Course {
        let way = self.way.index();
        let orders = self.orders.wait_for(|orders| orders.courses[way] != Course::Hold).await;
        orders.expect("the proxy keeps the sender").courses[way]
    }

    async fn write(&mut self, piece: &Piece) -> io::Result<()> {
        let course = self.course().await;
        self.has_lost |= course == Course::Drop;
        if self.has_lost {
            return Ok(());
        }
        match course {
            Course::Throttle(rate) => {
                let slice = usize::try_from((rate / THROTTLE_TICKS_A_SECOND).max(1));
                for part in piece.bytes.chunks(slice.unwrap_or(PIECE_BYTES)) {
                    self.send(part).await?;
                    sleep(THROTTLE_TICK).await;
                }
                Ok(())
            }
            Course::Delay(delay) => {
                sleep_until(piece.taken_at + delay).await;
                self.send(&piece.bytes).await
            }
            Course::Pass | Course::Hold | Course::Drop => self.send(&piece.bytes).await,
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes).await?;
        let count = u64::try_from(bytes.len()).expect("a piece is small");
        let way = self.way.index();
        self.shared.traffic.send_modify(|traffic| traffic.passed[way] += count);
        Ok(())
    }
}
