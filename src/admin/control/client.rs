//! Asks the worker of this machine, or of this container.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{ControlRequest, ControlResponse, address};

/// Time for the answer. The worker gives a connection one second, and others may be before it.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// The maximum length of an answer: a status has 20 events and 50 failures.
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

/// Why the worker could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no such worker here.
    #[error(
        "no worker with SERVER_PORT={port} runs here: run this command in its container, as the same user or root, with the same SERVER_PORT ({source})"
    )]
    NoWorker {
        /// The admin port whose worker was asked.
        port: u16,
        /// What the system said.
        source: io::Error,
    },
    /// Another user answers in its place.
    #[error(
        "user {user} answers at the control socket of SERVER_PORT={port}, and not the worker: it is not believed"
    )]
    Impostor {
        /// The admin port whose worker was asked.
        port: u16,
        /// The user that has bound the socket.
        user: u32,
    },
    /// The connection broke.
    #[error("the worker did not answer: {0}")]
    NoAnswer(#[from] io::Error),
    /// The answer is not a worker's, or is cut off.
    #[error("the answer cannot be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// Sends a request to the worker with this admin port, and returns its answer. Blocks, for a few
/// seconds at most.
///
/// # Errors
/// If there is no such worker, or it does not answer.
pub fn ask(port: u16, request: &ControlRequest) -> Result<ControlResponse, ControlError> {
    let address = address(port)?;
    let mut stream = UnixStream::connect_addr(&address)
        .map_err(|source| ControlError::NoWorker { port, source })?;
    check_server(&stream, port)?;
    stream.set_read_timeout(Some(ANSWER_TIME_MAX))?;
    stream.set_write_timeout(Some(ANSWER_TIME_MAX))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    // A worker that refuses this user answers without reading: its answer says more than the error.
    let written = stream.write_all(&line);
    let mut answer = Vec::new();
    BufReader::new(stream.take(ANSWER_BYTES_MAX)).read_until(b'\n', &mut answer)?;
    if answer.is_empty() {
        written?;
    }
    Ok(serde_json::from_slice(&answer)?)
}

/// Checks that the socket belongs to this user or to root. For root it may belong to any user: the
/// worker runs as one of its own.
#[cfg(target_os = "linux")]
fn check_server(stream: &UnixStream, port: u16) -> Result<(), ControlError> {
    let server = rustix::net::sockopt::socket_peercred(stream).map_err(io::Error::from)?.uid;
    let own = rustix::process::geteuid();
    if server == own || server.is_root() || own.is_root() {
        return Ok(());
    }
    Err(ControlError::Impostor { port, user: server.as_raw() })
}

/// Elsewhere the socket is a file, whose owner the file system protects.
#[cfg(not(target_os = "linux"))]
#[allow(clippy::unnecessary_wraps, reason = "as on Linux")]
fn check_server(_: &UnixStream, _: u16) -> Result<(), ControlError> {
    Ok(())
}
