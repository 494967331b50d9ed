//! The control socket: how `reservation-worker ctl` reaches the worker.
//!
//! A Unix socket that no browser and no other machine can reach. The kernel says who is at the
//! other end: only the same user and root are served. On Linux it is an abstract one, which needs
//! no file, so that it works on a read-only root; elsewhere a file in `/tmp`. The admin port's
//! number is part of its name: two workers on one machine have different ones.
//!
//! One line of JSON each way, both bounded; then the worker closes the connection.

mod client;
mod protocol;
mod requests;
#[cfg(test)]
mod tests;

use std::io;
use std::os::unix::net::UnixListener as StdListener;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::warn;

pub use self::client::{ControlError, ask};
pub use self::protocol::{ControlRequest, ControlResponse};
pub use self::requests::ControlParts;
use crate::retry::Backoff;
use crate::telemetry::LogLimiter;

/// Connections served at once; further ones wait in the kernel.
const CONNECTIONS_MAX: usize = 16;

/// The maximum length of a request: a reason, and a few names.
const REQUEST_BYTES_MAX: u64 = 4 * 1024;

/// Time for a request to arrive, and for its answer to leave: slow clients cannot keep others out
/// for longer. What is asked for is not cut off: a change is made whole or not at all.
const TRANSFER_TIME_MAX: Duration = Duration::from_secs(1);

/// Pauses between attempts to bind the socket.
const BIND_PAUSE: Backoff =
    Backoff { base: Duration::from_millis(500), cap: Duration::from_secs(30) };

/// Pause between accepts while the process has no free file descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The address of the control socket of the worker with this admin port.
#[cfg(target_os = "linux")]
pub(crate) fn address(port: u16) -> io::Result<std::os::unix::net::SocketAddr> {
    use std::os::linux::net::SocketAddrExt;
    std::os::unix::net::SocketAddr::from_abstract_name(format!("reservation-worker/{port}"))
}

/// The address of the control socket of the worker with this admin port.
#[cfg(not(target_os = "linux"))]
pub(crate) fn address(port: u16) -> io::Result<std::os::unix::net::SocketAddr> {
    std::os::unix::net::SocketAddr::from_pathname(format!("/tmp/reservation-worker-{port}.sock"))
}

/// Serves the control socket of the worker with this admin port. Never returns.
///
/// Binds it again and again until that works: a worker that leaves may still have it. The status
/// says whether it is bound.
pub async fn serve(port: u16, parts: Arc<ControlParts>) {
    let mut failures = 0_u32;
    let server = loop {
        match ControlServer::bind(port) {
            Ok(server) => break server,
            Err(error) => {
                if failures == 0 {
                    warn!(
                        error = %error,
                        "The control socket cannot be used: `reservation-worker ctl` does not work until it can"
                    );
                }
                sleep(BIND_PAUSE.bound(failures)).await;
                failures = failures.saturating_add(1);
            }
        }
    };
    if failures > 0 {
        warn!(failures, "The control socket can be used: `reservation-worker ctl` works");
    }
    parts.status.control_socket_is_bound();
    server.serve(parts).await;
}

/// The control socket, bound but not yet served.
#[derive(Debug)]
struct ControlServer {
    listener: UnixListener,
}

impl ControlServer {
    /// Binds the socket of the worker with this admin port.
    ///
    /// # Errors
    /// If another process has it, or sockets are not permitted.
    fn bind(port: u16) -> io::Result<Self> {
        let address = address(port)?;
        if let Some(file) = address.as_pathname() {
            // The admin port is ours already: a file of that name was left by a worker that died.
            let _ = std::fs::remove_file(file);
        }
        let listener = StdListener::bind_addr(&address)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener: UnixListener::from_std(listener)? })
    }

    /// Answers requests. Never returns; dropping the future closes all connections.
    async fn serve(self, parts: Arc<ControlParts>) {
        let mut connections = JoinSet::new();
        let refusals = Arc::new(LogLimiter::default());
        loop {
            let has_room = connections.len() < CONNECTIONS_MAX;
            tokio::select! {
                biased;
                Some(ended) = connections.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(error = %error, "A control connection ended badly");
                    }
                }
                accepted = self.listener.accept(), if has_room => match accepted {
                    Ok((stream, _)) => {
                        let (parts, refusals) = (Arc::clone(&parts), Arc::clone(&refusals));
                        connections.spawn(connection(stream, parts, refusals));
                    }
                    Err(_) => sleep(ACCEPT_PAUSE).await,
                },
            }
        }
    }
}

async fn connection(stream: UnixStream, parts: Arc<ControlParts>, refusals: Arc<LogLimiter>) {
    // An error means that the client left or was too slow, which it sees itself.
    let _ = answer(stream, &parts, &refusals).await;
}

async fn answer(
    mut stream: UnixStream,
    parts: &ControlParts,
    refusals: &LogLimiter,
) -> io::Result<()> {
    let user = stream.peer_cred()?.uid();
    let response = if user == rustix::process::geteuid().as_raw() || user == 0 {
        let (reader, _) = stream.split();
        let mut line = Vec::new();
        let mut reader = BufReader::new(reader.take(REQUEST_BYTES_MAX));
        timeout(TRANSFER_TIME_MAX, reader.read_until(b'\n', &mut line)).await??;
        match ControlRequest::read(&line) {
            Ok(request) => parts.carry_out(request).await,
            Err(why) => ControlResponse::refused(why),
        }
    } else {
        if let Some(attempts) = refusals.note() {
            warn!(user, attempts, "Another user tried the control socket: refused");
        }
        ControlResponse::refused("only the worker's own user and root may use the control socket")
    };
    let mut text = serde_json::to_vec(&response).map_err(io::Error::other)?;
    text.push(b'\n');
    timeout(TRANSFER_TIME_MAX, stream.write_all(&text)).await??;
    stream.shutdown().await
}
