//! A listener on 127.0.0.1 that can go down and come back on the same port: what the stand-ins sit on.
//! What is spoken on a connection is left to them.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Connections that wait to be accepted.
const BACKLOG: u32 = 1024;

/// The running listener; it ends, with its connections, when the last clone is dropped.
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

/// Whether the port answers. While it does not, the socket stays bound, so that no one else takes the port.
enum Door {
    Open(TcpListener),
    Shut(TcpSocket),
}

impl Server {
    /// Listens on `addr` (port 0: any free one) and runs `serve` for each connection. The token it is given
    /// closes the connection at once when cancelled.
    ///
    /// # Errors
    ///
    /// Where the address cannot be listened on.
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

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes the port and cuts every connection; new ones are refused until [`Server::up`].
    ///
    /// # Errors
    ///
    /// Where the port could not be kept.
    pub async fn down(&self) -> io::Result<()> {
        self.switch(Position::Down).await
    }

    /// Listens again on the same port.
    ///
    /// # Errors
    ///
    /// Where the port cannot be listened on any more.
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
    // Without it the port could not be bound again while old connections linger in TIME_WAIT.
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
            // A connection that broke before it was accepted is the caller's to notice.
            accepted = accept => if let Ok((stream, _)) = accepted {
                // Small answers must not wait for each other (Nagle); a socket that is already dead may refuse it.
                let _ = stream.set_nodelay(true);
                let hang_up = CancellationToken::new();
                let served = serve(stream, hang_up.clone());
                connections.spawn(async move {
                    let mut served = pin!(served);
                    // Biased: once hung up, not one more byte is written.
                    tokio::select! { biased; () = hang_up.cancelled() => {}, () = &mut served => {} }
                });
            }
        }
    }
}

/// Somebody's outgoing connection may have the port for a moment.
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

/// Opens or shuts the door. On an error there is no door any more.
async fn turn(door: Door, position: Position, addr: SocketAddr) -> io::Result<Door> {
    match (position, door) {
        (Position::Up, Door::Shut(socket)) => Ok(Door::Open(socket.listen(BACKLOG)?)),
        (Position::Down, Door::Open(listener)) => {
            // A port that listens cannot be bound a second time.
            drop(listener);
            Ok(Door::Shut(bind_again(addr).await?))
        }
        (Position::Up, open @ Door::Open(_)) => Ok(open),
        (Position::Down, shut @ Door::Shut(_)) => Ok(shut),
    }
}
