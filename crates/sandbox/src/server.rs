//! The listener of the stand-ins on 127.0.0.1, which can go down and come back on the same port.
//! The stand-ins handle the connections.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Maximum number of connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// The running listener; it stops with its connections when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Server {
    addr: SocketAddr,
    switch: mpsc::Sender<(Position, oneshot::Sender<io::Result<()>>)>,
    _stop: Arc<DropGuard>,
}

#[derive(Clone, Copy, Debug)]
enum Position {
    Up,
    Down,
}

/// Whether the port accepts. Otherwise the socket stays bound, so that no other program takes the
/// port.
enum Door {
    Open(TcpListener),
    Shut(TcpSocket),
}

impl Server {
    /// Listens on `addr` (port 0: any free port) and runs `serve` for each connection. Cancelling
    /// its token closes the connection at once.
    ///
    /// # Errors
    ///
    /// If it cannot listen on the address.
    pub async fn start<S, F>(addr: SocketAddr, serve: S) -> io::Result<Self>
    where
        S: Fn(TcpStream, CancellationToken) -> F + Send + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = bind(addr)?.listen(BACKLOG)?;
        let addr = listener.local_addr()?;
        let stop = CancellationToken::new();
        let (switch, switched) = mpsc::channel(1);
        let accept = accept_all(Door::Open(listener), addr, switched, serve);
        let stopped = stop.clone();
        tokio::spawn(async move {
            let _ = stopped.run_until_cancelled(accept).await;
        });
        Ok(Self { addr, switch, _stop: Arc::new(stop.drop_guard()) })
    }

    /// Returns the address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes the port and every connection; new ones are refused until [`Server::up`].
    ///
    /// # Errors
    ///
    /// If the port cannot be kept.
    pub async fn down(&self) -> io::Result<()> {
        self.switch(Position::Down).await
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    ///
    /// If it cannot listen on the port.
    pub async fn up(&self) -> io::Result<()> {
        self.switch(Position::Up).await
    }

    async fn switch(&self, position: Position) -> io::Result<()> {
        let (done, is_done) = oneshot::channel();
        let gone = || io::Error::other("the stand-in's listener has ended");
        self.switch.send((position, done)).await.map_err(|_| gone())?;
        is_done.await.map_err(|_| gone())?
    }
}

fn bind(addr: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Without it the port cannot be bound again while old connections are in TIME_WAIT.
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    Ok(socket)
}

async fn accept_all<S, F>(
    mut door: Door,
    addr: SocketAddr,
    mut switched: mpsc::Receiver<(Position, oneshot::Sender<io::Result<()>>)>,
    serve: S,
) where
    S: Fn(TcpStream, CancellationToken) -> F,
    F: Future<Output = ()> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let accept = async {
            match &door {
                Door::Open(listener) => listener.accept().await,
                Door::Shut(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            Some((position, done)) = switched.recv() => {
                if matches!(position, Position::Down) {
                    connections.shutdown().await;
                }
                match turn(door, position, addr).await {
                    Ok(turned) => {
                        door = turned;
                        let _ = done.send(Ok(()));
                    }
                    Err(error) => {
                        let _ = done.send(Err(error));
                        return;
                    }
                }
            }
            Some(_) = connections.join_next() => {}
            // A connection that broke before the accept concerns only its client.
            accepted = accept => if let Ok((stream, _)) = accepted {
                // Small responses must not wait for Nagle's algorithm; a dead socket may refuse the
                // option.
                let _ = stream.set_nodelay(true);
                let hang_up = CancellationToken::new();
                let served = serve(stream, hang_up.clone());
                connections.spawn(async move {
                    let mut served = pin!(served);
                    // Biased: after the cancellation no further byte is written.
                    tokio::select! { biased; () = hang_up.cancelled() => {}, () = &mut served => {} }
                });
            }
        }
    }
}

/// Binds with retries: an outgoing connection may use the port briefly.
async fn bind_again(addr: SocketAddr) -> io::Result<TcpSocket> {
    for _ in 0..100 {
        match bind(addr) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            bound => return bound,
        }
    }
    bind(addr)
}

/// Opens or closes the port. After an error the port is lost.
async fn turn(door: Door, position: Position, addr: SocketAddr) -> io::Result<Door> {
    match (position, door) {
        (Position::Up, Door::Shut(socket)) => Ok(Door::Open(socket.listen(BACKLOG)?)),
        (Position::Down, Door::Open(listener)) => {
            // A listening port cannot be bound a second time.
            drop(listener);
            Ok(Door::Shut(bind_again(addr).await?))
        }
        (Position::Up, open @ Door::Open(_)) => Ok(open),
        (Position::Down, shut @ Door::Shut(_)) => Ok(shut),
    }
}
