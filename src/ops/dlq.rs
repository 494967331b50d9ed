//! `reservation-worker dlq`: looks at the dead-letter queue, and sends its messages back, saves or
//! discards them.
//!
//! The queue is the only state: a command that was interrupted is run again and goes on. Nothing is
//! deleted before SQS has acknowledged a copy, or before a copy is on the disk.

mod console;
mod delete;
mod filter;
mod leases;
mod letter;
mod output;
mod redrive;
mod repeat;
mod scan;
mod session;
mod tally;
mod text;

use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use self::console::Console;
use self::session::Session;
use crate::cli::{Copies, DlqArgs, DlqCommand, DlqRequest, Selection};
use crate::config::{QueuePart, SqsConfig};
use crate::run::sqs_queue;
use crate::signals::Signals;

/// The exit codes.
const SUCCESS: u8 = 0;
const FAILED: u8 = 1;
const USAGE: u8 = 2;
const HUNG_UP: u8 = 129;
const INTERRUPTED: u8 = 130;
const TERMINATED: u8 = 143;

/// The error if no dead-letter queue is known.
const NO_DLQ: &str = "no dead-letter queue is known: set SQS_DLQ_URL, or a redrive policy on the queue; it must be another queue";

/// Runs `dlq` until it is done or a signal ends it, and returns the exit code.
///
/// The first signal finishes what is in flight, and shows the rest again; the second one ends the
/// process at once.
pub async fn dlq(arguments: &DlqArgs, config: &QueuePart) -> ExitCode {
    let request = arguments.request();
    let stop = CancellationToken::new();
    let console = Console::of_process(request.is_json, stop.clone());
    ExitCode::from(until_signal(&request, config, &console, &stop).await)
}

async fn until_signal(
    request: &DlqRequest,
    config: &QueuePart,
    console: &Console,
    stop: &CancellationToken,
) -> u8 {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(why) => {
            console
                .tell(&format!("reservation-worker: signals cannot be listened to: {why}"))
                .await;
            return FAILED;
        }
    };
    let mut running = std::pin::pin!(run(request, config, console, stop));
    let signal = tokio::select! {
        code = &mut running => return code,
        signal = signals.first() => signal,
    };
    stop.cancel();
    console.tell("Ending: what is in flight is finished, the rest is shown again (Ctrl-C again exits at once)").await;
    let code = tokio::select! {
        code = running => code,
        never = signals.exit_on_second() => never,
    };
    match (code, signal) {
        (INTERRUPTED, "SIGTERM") => TERMINATED,
        (INTERRUPTED, "SIGHUP") => HUNG_UP,
        (code, _) => code,
    }
}

/// Runs a command until it is done or `stop` is cancelled, and returns the exit code.
async fn run(
    request: &DlqRequest,
    config: &QueuePart,
    console: &Console,
    stop: &CancellationToken,
) -> u8 {
    let DlqRequest { command, selection, is_json: _ } = request;
    if let Some(fault) = usage_fault(command, selection, console) {
        console.tell(&format!("reservation-worker: {fault}")).await;
        return USAGE;
    }
    // Ten messages of 1 MiB take a while on a slow line: an answer has the time of a long poll.
    let sqs = SqsConfig { wait_time: Duration::from_secs(20), ..config.sqs.clone() };
    let source = match sqs_queue(&sqs, &config.aws).await {
        Ok(source) => source,
        Err(why) => {
            console.tell(&format!("reservation-worker: the configuration is wrong\n{why}")).await;
            return USAGE;
        }
    };
    for warning in config.warnings.iter().chain(&source.called().warnings) {
        console.tell(&format!("warning: {warning}")).await;
    }
    let dlq = match source.dead_letters().await {
        Ok(Some(dlq)) => dlq,
        Ok(None) => {
            console.tell(&format!("reservation-worker: {NO_DLQ}")).await;
            return USAGE;
        }
        Err(why) => {
            console.tell(&format!(
                "reservation-worker: the dead-letter queue cannot be found: {why}; SQS_DLQ_URL may name it"
            )).await;
            return FAILED;
        }
    };
    if command.consent().is_some() {
        console.tell(&format!("dead-letter queue {}, queue {}", dlq.url(), source.url())).await;
    }
    let queue_name = config.sqs.queue_url.name();
    let (source, dlq) = (&source, &dlq);
    let is_denial_told = AtomicBool::new(false);
    let session =
        Session { command, selection, console, source, queue_name, dlq, stop, is_denial_told };
    session.run().await
}

/// Returns what is wrong with the arguments together.
fn usage_fault(command: &DlqCommand, selection: &Selection, console: &Console) -> Option<String> {
    let consent = command.consent()?;
    let name = command.name();
    if selection.filter.is_empty() && !selection.all {
        return Some(format!(
            "{name} needs a condition, such as --reason or --message-id, or --all"
        ));
    }
    if !selection.filter.is_empty() && selection.all {
        return Some("--all cannot be given with a condition: it means every message".to_owned());
    }
    let is_unsaid = matches!(command, DlqCommand::Discard { copies: Copies::Unsaid, .. });
    if is_unsaid && !consent.dry_run {
        return Some(
            "discard needs --export FILE, where each message is saved before it is deleted, or --without-copy".to_owned(),
        );
    }
    if let DlqCommand::Discard { copies: Copies::File(path), .. } = command
        && path.as_os_str() == "-"
    {
        return Some(
            "--export is \"-\": must be a file, which is synced before a message is deleted; `export -` writes to standard output and deletes nothing".to_owned(),
        );
    }
    if !consent.yes && !consent.dry_run && !console.can_ask() {
        return Some(format!(
            "{name} asks before it changes anything, and there is no terminal: give --yes, or --dry-run"
        ));
    }
    None
}

#[cfg(test)]
mod tests;
