//! Everything that can be set, read once from the environment and checked whole: a [`Config`], or every fault at once. Nothing else reads
//! the environment, but for the AWS SDK, whose own rules hold for `AWS_*`: what of those it would not survive is found here (`aws`). Reads the files that variables name; touches no network. Which store or format stands behind
//! a setting is left to the app.

mod address;
mod aws;
mod credentials;
mod error;
mod near;
mod otel;
mod otlp;
mod parts;
mod raw;
mod read;
mod table;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

use url::Url;

pub use address::{QueueUrl, SecretUrl};
pub use aws::{Aws, Proxies, RetryMode};
pub(crate) use aws::{is_endpoint, is_region, max_attempts, profile_fault, retry_mode};
pub use error::{ConfigError, ConfigErrors};
pub use otel::{Propagators, RootSampler, Sampler, Telemetry};
pub use otlp::{Otlp, OtlpProtocol, OtlpTransport};
use raw::Raw;
use read::Reader;
pub use table::{Allowed, Fallback, VARIABLES, Variable};

use crate::credentials::Credentials;

/// The whole configuration. `Debug` shows no passwords.
#[derive(Clone, Debug)]
pub struct Config {
    /// The queue.
    pub sqs: Sqs,
    /// The AWS SDK's own variables.
    pub aws: Aws,
    /// How much is done and held at once.
    pub worker: Worker,
    /// When an event is tried again.
    pub retry: Retry,
    /// The Inventory service.
    pub inventory: Inventory,
    /// The Reservation API.
    pub reservation: Reservation,
    /// What is remembered of handled events.
    pub idempotency: Idempotency,
    /// Traces.
    pub telemetry: Telemetry,
    /// Logs.
    pub log: Log,
    /// The side port.
    pub server: Server,
    /// `SHUTDOWN_GRACE`: for the whole exit.
    pub shutdown_grace: Duration,
    /// What was passed over, one line each, to be logged at the start.
    pub warnings: Vec<String>,
    effective: Vec<(&'static str, String)>,
}

/// The queue, and how it is polled.
#[derive(Clone, Debug)]
pub struct Sqs {
    /// `SQS_QUEUE_URL`.
    pub queue_url: QueueUrl,
    /// `SQS_DLQ_URL`; where it is not set, the queue's own redrive target counts.
    pub dlq_url: Option<QueueUrl>,
    /// `SQS_WAIT_TIME`, whole seconds.
    pub wait_time: Duration,
    /// `SQS_VISIBILITY_TIMEOUT`, whole seconds.
    pub visibility_timeout: Duration,
}

/// How much is done and held at once.
#[derive(Clone, Debug)]
pub struct Worker {
    /// `WORKER_CONCURRENCY`.
    pub concurrency: NonZeroUsize,
    /// `CONCURRENCY_MIN`; not above the concurrency.
    pub concurrency_min: NonZeroUsize,
    /// `MAX_IN_FLIGHT`; not below the concurrency.
    pub max_in_flight: NonZeroUsize,
    /// `MAX_IN_FLIGHT_MB`, in bytes.
    pub max_in_flight_bytes: u64,
    /// `WORKER_THREADS`.
    pub threads: Option<NonZeroUsize>,
}

/// When an event is tried again.
#[derive(Clone, Debug)]
pub struct Retry {
    /// `MAX_RETRIES`, after the first attempt.
    pub max_retries: u32,
    /// `BACKOFF_BASE_MS`.
    pub backoff_base: Duration,
    /// `BACKOFF_MAX_MS`; not below the base.
    pub backoff_max: Duration,
}

/// The Inventory service.
#[derive(Clone, Debug)]
pub struct Inventory {
    /// `INVENTORY_GRPC_ADDR`, as a URL without a path; https means TLS.
    pub url: Url,
    /// `INVENTORY_TIMEOUT_MS`, per attempt.
    pub timeout: Duration,
    /// `INVENTORY_LATENCY_TARGET_MS`, per attempt; below the timeout.
    pub latency_target: Option<Duration>,
    /// `INVENTORY_*_FILE`.
    pub credentials: Credentials,
}

/// The Reservation API.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// `RESERVATION_API_BASE`; its path may or may not end in a slash.
    pub base: Url,
    /// `RESERVATION_TIMEOUT_MS`, per attempt.
    pub timeout: Duration,
    /// `RESERVATION_LATENCY_TARGET_MS`, per attempt; below the timeout.
    pub latency_target: Option<Duration>,
    /// `RESERVATION_API_*_FILE`.
    pub credentials: Credentials,
}

/// What is remembered of handled events.
#[derive(Clone, Debug)]
pub struct Idempotency {
    /// `IDEMPOTENCY_STORE`.
    pub store: IdempotencyStore,
    /// `IDEMPOTENCY_TTL`.
    pub ttl: Duration,
    /// `IDEMPOTENCY_CAPACITY`, of the memory store.
    pub capacity: NonZeroUsize,
    /// `IDEMPOTENCY_KEY_PREFIX`, of the shared store.
    pub key_prefix: String,
}

/// Where handled events are remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdempotencyStore {
    /// In the process.
    Memory,
    /// In a Redis that all pods share.
    Redis(SecretUrl),
}

/// Logs.
#[derive(Clone, Debug)]
pub struct Log {
    /// `LOG_LEVEL`.
    pub level: LogLevel,
    /// `LOG_FORMAT`; where it is not set, standard output decides: a terminal or not.
    pub format: Option<LogFormat>,
    /// Whether `NO_COLOR` is set and not empty (no-color.org).
    pub no_color: bool,
}

/// The least severe log lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Everything.
    Debug,
    /// What happens.
    Info,
    /// What is odd.
    Warn,
    /// What went wrong.
    Error,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Pretty,
}

/// The side port.
#[derive(Clone, Debug)]
pub struct Server {
    /// `SERVER_PORT`.
    pub port: NonZeroU16,
}

impl Config {
    /// Reads this process's environment.
    ///
    /// # Errors
    /// Every variable that is missing or wrong.
    pub fn from_env() -> Result<Self, ConfigErrors> {
        // Not `vars()`, nor `envy::from_env`, which calls it: one name or value that is not UTF-8, whoever's it is, makes it panic.
        Self::from_os_vars(std::env::vars_os())
    }

    /// As [`Config::from_vars`]; what is not UTF-8 among the values is refused further on, and among the names, is not ours.
    fn from_os_vars(
        vars: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigErrors> {
        Self::from_vars(vars.into_iter().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            Some((name, value.to_string_lossy().into_owned()))
        }))
    }

    /// Reads `vars` as if they were the environment.
    ///
    /// # Errors
    /// Every variable that is missing or wrong.
    pub fn from_vars(
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let vars: BTreeMap<String, String> = vars.into_iter().collect();
        let set = vars.iter().filter(|(_, value)| !value.is_empty());
        let names = set.map(|(name, _)| name.as_str());
        let mut reader = Reader::new(near::near_names(names.clone()), near::replaced(names));
        let aws = Aws::read(&mut reader, &vars);
        let config = Self::read(&mut reader, &Raw::from_vars(vars), aws);
        reader.finish()?;
        let config = config.expect("a part is missing only where an error was noted");
        Ok(Self { warnings: reader.warnings, effective: reader.effective, ..config })
    }

    /// What holds for each variable, in the table's order, without passwords.
    pub fn effective(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.effective.iter().cloned()
    }

    /// Every part is read before the first that is missing counts.
    fn read(reader: &mut Reader, raw: &Raw, aws: Aws) -> Option<Self> {
        let wait_time = reader.seconds(&table::SQS_WAIT_TIME, &raw.sqs_wait_time);
        let sqs = Sqs::read(reader, raw, wait_time);
        let worker = Worker::read(reader, raw);
        let retry = Retry::read(reader, raw);
        let inventory = Inventory::read(reader, raw);
        let reservation = Reservation::read(reader, raw);
        let idempotency = Idempotency::read(reader, raw);
        let telemetry = otel::read(reader, raw);
        let log = Log::read(reader, raw);
        let server = Server::read(reader, raw);
        let shutdown_grace = parts::shutdown_grace(reader, raw, wait_time);
        Some(Self {
            sqs: sqs?,
            aws,
            worker: worker?,
            retry: retry?,
            inventory: inventory?,
            reservation: reservation?,
            idempotency: idempotency?,
            telemetry: telemetry?,
            log: log?,
            server: server?,
            shutdown_grace: shutdown_grace?,
            warnings: Vec::new(),
            effective: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests;
