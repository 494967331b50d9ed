//! The demo's servers and their faults, the worker's environment, and the facts at the end.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::time::Duration;

use tonic::Code;

use super::balance::{Balance, Facts, balance};
use super::mail::Mail;
use super::options::Options;
use super::report::Progress;
use crate::process::Process;
use crate::script::{Faults, Scripted};
use crate::servers::{Ports, Servers, StartError};

/// The worker's `INVENTORY_TIMEOUT_MS` and `RESERVATION_TIMEOUT_MS`.
const TIMEOUT: Duration = Duration::from_millis(1000);
/// Duration of a call that exceeds the timeout. It still takes effect, late.
const TOO_SLOW: Duration = Duration::from_millis(1500);

/// The servers of the demo.
pub(super) struct World {
    pub(super) servers: Servers,
}

impl World {
    pub(super) async fn start() -> Result<Self, StartError> {
        let servers = Servers::start(Ports::default()).await?;
        Ok(Self { servers })
    }

    /// Sets a latency of some milliseconds and various faults for a few percent of the calls.
    pub(super) fn misbehave(&self, seed: u64) {
        let (latency, jitter) = (Duration::from_millis(2), Duration::from_millis(6));
        self.servers.api.set_faults(
            Faults::none()
                .seed(seed)
                .latency(latency, jitter)
                .with(0.02, Scripted::status(500))
                .with(0.02, Scripted::status(503).without_error_body())
                .with(0.005, Scripted::status(429).header("Retry-After", "1"))
                .with(0.01, Scripted::lost_reply())
                .with(0.005, Scripted::cut_short())
                .with(0.01, Scripted::normal().delayed(TOO_SLOW)),
        );
        self.servers.inventory.set_faults(
            Faults::none()
                .seed(seed.wrapping_add(1))
                .latency(latency, jitter)
                .with(0.02, Scripted::code(Code::Unavailable))
                .with(0.01, Scripted::code(Code::Internal))
                .with(0.01, Scripted::code(Code::Unavailable).applying())
                .with(
                    0.005,
                    Scripted::code_with_retry_info(Code::ResourceExhausted, Duration::from_secs(1)),
                )
                .with(0.01, Scripted::normal().delayed(TOO_SLOW)),
        );
    }

    /// Starts the worker; returns it and its admin port.
    pub(super) fn start_worker(&self, options: &Options, log: &Path) -> io::Result<(Process, u16)> {
        let port = free_port()?;
        let own = [
            ("INVENTORY_TIMEOUT_MS", TIMEOUT.as_millis().to_string()),
            ("RESERVATION_TIMEOUT_MS", TIMEOUT.as_millis().to_string()),
            ("SERVER_PORT", port.to_string()),
            ("LOG_FORMAT", "json".to_owned()),
            ("WORKER_CONCURRENCY", options.concurrency.to_string()),
            ("MAX_IN_FLIGHT", "1000".to_owned()),
            ("BACKOFF_BASE_MS", "100".to_owned()),
            ("BACKOFF_MAX_MS", "2000".to_owned()),
            // At shutdown the worker waits for its open long poll, which should not take 20 s.
            ("SQS_WAIT_TIME", "1".to_owned()),
        ];
        let variables = self.servers.variables().into_iter().chain(own);
        Ok((Process::start(&options.worker, variables, log)?, port))
    }

    pub(super) fn progress(&self, mail: &Mail<'_>) -> Progress {
        let totals = self.servers.ledger.totals();
        Progress {
            messages: mail.workload.messages(),
            settled: mail
                .sent
                .saturating_sub(self.servers.sqs.counts(&self.servers.queue_url).total()),
            calls: totals.calls,
            retried: totals.repeated_keys,
            dead_lettered: self.servers.sqs.counts(&self.servers.dlq_url).total(),
        }
    }

    pub(super) fn judge(&self, mail: &Mail<'_>) -> Balance {
        let events = &mail.workload.events;
        let ids: HashSet<&String> = events.iter().map(|event| &event.reservation_id).collect();
        let statuses: HashMap<_, _> = ids
            .iter()
            .filter_map(|id| Some(((*id).clone(), self.servers.api.status(id)?)))
            .collect();
        let holds: HashMap<_, _> = ids
            .iter()
            .filter_map(|id| Some(((*id).clone(), self.servers.inventory.hold(id)?)))
            .collect();
        let dead_letters: Vec<String> = self
            .servers
            .sqs
            .peek_all(&self.servers.dlq_url)
            .into_iter()
            .map(|message| message.body)
            .collect();
        balance(&Facts {
            events,
            sent_at: &mail.sent_at,
            calls: &self.servers.ledger.calls(),
            statuses: &statuses,
            holds: &holds,
            dead_letters: &dead_letters,
            queue_left: self.servers.sqs.counts(&self.servers.queue_url).total(),
        })
    }
}

/// Returns a port that was free at this moment.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}
