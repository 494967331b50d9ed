//! `make sandbox`: the servers on fixed ports, the variables for a worker, and a log of calls.

mod control;
pub mod options;
pub mod text;

use std::io::{self, Write};
use std::net::SocketAddr;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::ledger::{Answer, Ledger};
use crate::servers::Servers;
use options::Options;

/// Starts the servers, prints how to use them, and logs calls until Ctrl-C or SIGTERM.
///
/// # Errors
///
/// A sentence with cause and remedy if a server cannot be started, or that stdout failed.
pub async fn run(options: &Options) -> Result<(), String> {
    let servers = Servers::start_on(options.listen, options.ports)
        .await
        .map_err(|error| format!("{error}; end it, or choose other ports (see --help)"))?;
    let control = control(options, &servers).await?;
    let stdout = |error: io::Error| format!("stdout: {error}");
    write!(io::stdout(), "{}", text::welcome(&servers)).map_err(stdout)?;
    let mut terminated =
        signal(SignalKind::terminate()).map_err(|error| format!("SIGTERM: {error}"))?;
    let pressed = tokio::select! {
        logged = log(&servers.ledger) => return logged.map_err(stdout),
        ended = control => return ended.map_err(|error| format!("the control port: {error}")),
        _ = terminated.recv() => Ok(()),
        pressed = tokio::signal::ctrl_c() => pressed,
    };
    pressed.map_err(|error| format!("Ctrl-C: {error}"))?;
    write!(io::stdout(), "\n{}", text::summary(&servers)).map_err(stdout)
}

/// Serves the control port, if there is one; ends only if that fails.
async fn control(
    options: &Options,
    servers: &Servers,
) -> Result<impl Future<Output = io::Result<()>>, String> {
    let serving = match options.control_port {
        Some(port) => {
            let address = SocketAddr::from((options.listen, port));
            let started = control::start(address, servers.clone()).await;
            let (_, serving) =
                started.map_err(|error| format!("port {port} for control: {error}"))?;
            Some(serving)
        }
        None => None,
    };
    Ok(async {
        match serving {
            Some(serving) => serving.await,
            None => std::future::pending().await,
        }
    })
}

/// Prints each answered call; returns only if stdout fails.
async fn log(ledger: &Ledger) -> io::Result<()> {
    let start = Instant::now();
    let mut changes = ledger.changes();
    let mut next = 0;
    let mut open: Vec<u64> = Vec::new();
    loop {
        let calls = ledger.totals().calls;
        open.extend(next..calls);
        next = calls;
        let mut still_open = Vec::new();
        for sequence in open {
            match ledger.call(sequence) {
                Some(call) if call.answer == Answer::Pending => still_open.push(sequence),
                Some(call) => writeln!(io::stdout(), "{}", text::line(&call, start))?,
                None => {}
            }
        }
        open = still_open;
        changes.changed().await.expect("the ledger keeps the sender");
    }
}
