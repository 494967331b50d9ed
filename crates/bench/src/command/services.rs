//! `services SERVICE_US (refilled VISIBLE | rate PER_S | burst MESSAGES | idle)`: runs the servers
//! as a process of their own.
//!
//! The first line of output has their ports. Each input line is a command, `mark` or `figures`, and
//! gets one line of JSON as response. The process ends when its input ends.

use std::io::{BufRead, Write};
use std::time::Duration;

use tokio::sync::mpsc;

use super::Failure;
use crate::services::{Services, Settings, Source};

pub(super) async fn run(words: &[&str]) -> Result<(), Failure> {
    let mut services = Services::start(settings(words)?).await?;
    say(&serde_json::to_string(&services.ports)?)?;
    let (sender, mut commands) = mpsc::unbounded_channel();
    // Input is read on a thread of its own, which ends with the process.
    std::thread::spawn(move || {
        let lines = std::io::stdin().lock().lines().map_while(Result::ok);
        lines.map(|line| sender.send(line)).find(Result::is_err)
    });
    loop {
        let command = tokio::select! {
            command = commands.recv() => command,
            () = services.broken() => return Err("a server broke".into()),
        };
        match command.as_deref() {
            Some("mark") => {
                services.mark();
                say("{}")?;
            }
            Some("figures") => say(&serde_json::to_string(&services.figures())?)?,
            Some(other) => return Err(format!("unknown command: {other}").into()),
            None => return Ok(()),
        }
    }
}

fn settings(words: &[&str]) -> Result<Settings, Failure> {
    let (service_us, source) = match words {
        [service, "refilled", visible] => (service, Source::Refilled { visible: visible.parse()? }),
        [service, "rate", per_s] => (service, Source::Rate { per_s: per_s.parse()? }),
        [service, "burst", messages] => (service, Source::Burst { messages: messages.parse()? }),
        [service, "idle"] => (service, Source::Idle),
        _ => {
            return Err(
                "services SERVICE_US (refilled VISIBLE | rate PER_S | burst MESSAGES | idle)"
                    .into(),
            );
        }
    };
    Ok(Settings { service: Duration::from_micros(service_us.parse()?), source })
}

fn say(line: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
