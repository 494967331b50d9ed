//! The configuration of the worker, read once from the environment: a [`Config`], or all faults.
//!
//! Only the AWS SDK reads the environment too: it reads `AWS_*` by its own rules. Values of `AWS_*`
//! that would make the SDK panic or fail are found here (`aws`). Files that variables name are read
//! here; no network call is made. The app maps a setting to a store or a format.

mod address;
mod aws;
mod credentials;
mod error;
mod misnamed;
mod otel;
mod otlp;
mod parts;
mod raw;
mod read;
mod store;
mod store_url;
mod subset;
mod table;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

use url::Url;

pub use address::{QueueUrl, SecretUrl};
pub use aws::{AwsConfig, Proxies, RetryMode};
pub(crate) use aws::{is_endpoint, is_region, max_attempts, profile_fault, retry_mode};
pub use error::{ConfigError, ConfigErrors};
pub use otel::{Propagators, RootSampler, Sampler, TelemetryConfig};
pub use otlp::{OtlpConfig, OtlpProtocol, OtlpTransport};
use raw::Raw;
use read::Reader;
pub use store::{AwsCache, AwsCacheService, StoreAuth};
pub use subset::{QueuePart, ServerPart, StorePart};
pub use table::{Allowed, Fallback, VARIABLES, Variable};

use crate::credentials::{Credentials, StoreCertificates};

/// The complete configuration. `Debug` shows no passwords.
#[derive(Clone, Debug)]
pub struct Config {
    /// The queue.
    pub sqs: SqsConfig,
    /// The AWS SDK's own variables.
    pub aws: AwsConfig,
    /// Limits on concurrency and on events in flight.
    pub worker: WorkerConfig,
    /// Retries and backoff.
    pub retry: RetryConfig,
    /// The Inventory service.
    pub inventory: InventoryConfig,
    /// The Reservation API.
    pub reservation: ReservationConfig,
    /// The idempotency store.
    pub idempotency: IdempotencyConfig,
    /// Traces.
    pub telemetry: TelemetryConfig,
    /// Logs.
    pub log: LogConfig,
    /// The admin port.
    pub server: ServerConfig,
    /// `SHUTDOWN_GRACE`: the time limit for the whole shutdown.
    pub shutdown_grace: Duration,
    /// Warnings about ignored or replaced values, one line each, to be logged at startup.
    pub warnings: Vec<String>,
    effective: Vec<(&'static str, String)>,
}

/// The queue and its polling settings.
#[derive(Clone, Debug)]
pub struct SqsConfig {
    /// `SQS_QUEUE_URL`.
    pub queue_url: QueueUrl,
    /// `SQS_DLQ_URL`; if not set, the target of the queue's redrive policy is used.
    pub dlq_url: Option<QueueUrl>,
    /// `SQS_WAIT_TIME`, whole seconds.
    pub wait_time: Duration,
    /// `SQS_VISIBILITY_TIMEOUT`, whole seconds.
    pub visibility_timeout: Duration,
}

/// Limits on concurrency and on events in flight.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
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

/// Retries and backoff.
#[derive(Clone, Debug)]
pub struct RetryConfig {
    /// `MAX_RETRIES`: attempts after the first one.
    pub max_retries: u32,
    /// `BACKOFF_BASE_MS`.
    pub backoff_base: Duration,
    /// `BACKOFF_MAX_MS`; not below the base.
    pub backoff_max: Duration,
}

/// The Inventory service.
#[derive(Clone, Debug)]
pub struct InventoryConfig {
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
pub struct ReservationConfig {
    /// `RESERVATION_API_BASE`; its path may or may not end in a slash.
    pub base: Url,
    /// `RESERVATION_TIMEOUT_MS`, per attempt.
    pub timeout: Duration,
    /// `RESERVATION_LATENCY_TARGET_MS`, per attempt; below the timeout.
    pub latency_target: Option<Duration>,
    /// `RESERVATION_API_*_FILE`.
    pub credentials: Credentials,
}

/// Settings of the idempotency store.
#[derive(Clone, Debug)]
pub struct IdempotencyConfig {
    /// `IDEMPOTENCY_STORE`.
    pub store: IdempotencyStore,
    /// `IDEMPOTENCY_STORE_AUTH` and its variables, for the shared store.
    pub auth: StoreAuth,
    /// `IDEMPOTENCY_STORE_*_FILE` of TLS, for the shared store.
    pub certificates: StoreCertificates,
    /// `IDEMPOTENCY_TTL`.
    pub ttl: Duration,
    /// `IDEMPOTENCY_CAPACITY`, for the memory store.
    pub capacity: NonZeroUsize,
    /// `IDEMPOTENCY_KEY_PREFIX`, for the shared store.
    pub key_prefix: String,
    /// `SHARED_ORDER`, for the shared store; `None`: unless the queue is FIFO.
    pub shared_order: Option<bool>,
}

/// The kind of idempotency store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdempotencyStore {
    /// In the memory of the process.
    Memory,
    /// In a Redis that all pods share.
    Redis(SecretUrl),
}

/// Logs.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `LOG_LEVEL`.
    pub level: LogLevel,
    /// `LOG_FORMAT`; if not set, the format depends on whether standard output is a terminal.
    pub format: Option<LogFormat>,
    /// Whether `NO_COLOR` is set and not empty (no-color.org).
    pub no_color: bool,
}

/// The lowest severity of log lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// All lines.
    Debug,
    /// Normal operation, and all that is more severe.
    Info,
    /// Unusual conditions and errors.
    Warn,
    /// Errors only.
    Error,
}

impl LogLevel {
    /// Returns the value of `LOG_LEVEL`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Debug => "debug",
            Self::Info => "info",
            Self::Warn => "warn",
            Self::Error => "error",
        }
    }

    /// Parses a level, in any case; `None` if it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let all = [Self::Debug, Self::Info, Self::Warn, Self::Error];
        all.into_iter().find(|level| text.eq_ignore_ascii_case(level.as_str()))
    }
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Readable text for a terminal.
    Pretty,
}

/// The admin port.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// `SERVER_PORT`.
    pub port: NonZeroU16,
    /// `STATUS_PAGE`.
    pub status_page: StatusPage,
}

/// Who may see `/status` and `/status.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusPage {
    /// This machine, by a name of loopback.
    Local,
    /// Any peer whose request names an IP address, `localhost` or a name that ends in `.local`.
    Open,
    /// Nobody.
    Off,
}

impl Config {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// Lists every variable that is missing or wrong.
    pub fn from_env() -> Result<Self, ConfigErrors> {
        Self::from_vars(environment())
    }

    /// Reads `vars` as if they were the environment.
    ///
    /// # Errors
    /// Lists every variable that is missing or wrong.
    pub fn from_vars(
        vars: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigErrors> {
        let vars: BTreeMap<String, String> = vars.into_iter().collect();
        let mut reader = reader(&vars);
        let aws = AwsConfig::read(&mut reader, &vars);
        let config = Self::read(&mut reader, &Raw::from_vars(vars), aws);
        reader.finish()?;
        let config = config.expect("a part is missing only where an error was noted");
        Ok(Self { warnings: reader.warnings, effective: reader.effective, ..config })
    }

    /// Returns the effective value of each variable, in the table's order, without passwords.
    pub fn effective(&self) -> impl Iterator<Item = (&'static str, String)> {
        self.effective.iter().cloned()
    }

    /// Returns whether processes order the events of a reservation among themselves.
    #[must_use]
    pub fn is_ordered(&self) -> bool {
        let is_shared = self.idempotency.store != IdempotencyStore::Memory;
        is_shared && self.idempotency.shared_order.unwrap_or(!self.sqs.queue_url.is_fifo())
    }

    /// Reads every part before it returns `None` for a missing one, so that all faults are noted.
    fn read(reader: &mut Reader, raw: &Raw, aws: AwsConfig) -> Option<Self> {
        let wait_time = reader.seconds(&table::SQS_WAIT_TIME, &raw.sqs_wait_time);
        let sqs = SqsConfig::read(reader, raw, wait_time);
        let worker = WorkerConfig::read(reader, raw);
        let retry = RetryConfig::read(reader, raw);
        let inventory = InventoryConfig::read(reader, raw);
        let reservation = ReservationConfig::read(reader, raw);
        let idempotency = IdempotencyConfig::read(reader, raw);
        let telemetry = otel::read(reader, raw);
        let log = LogConfig::read(reader, raw);
        let server = ServerConfig::read(reader, raw);
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

/// Returns the environment of this process.
fn environment() -> impl Iterator<Item = (String, String)> {
    // Not `vars()`, and not `envy::from_env`, which calls it: both panic on any name or value that
    // is not UTF-8, even if it belongs to another program.
    os_vars(std::env::vars_os())
}

/// Converts the environment to UTF-8.
///
/// A value that is not UTF-8 is refused later. A name that is not UTF-8 is not a variable of the
/// worker and is dropped.
fn os_vars(
    vars: impl IntoIterator<Item = (OsString, OsString)>,
) -> impl Iterator<Item = (String, String)> {
    vars.into_iter().filter_map(|(name, value)| {
        let name = name.into_string().ok()?;
        Some((name, value.to_string_lossy().into_owned()))
    })
}

/// Creates the reader of these variables.
fn reader(vars: &BTreeMap<String, String>) -> Reader {
    let set = vars.iter().filter(|(_, value)| !value.is_empty());
    let names = set.map(|(name, _)| name.as_str());
    Reader::new(misnamed::near_names(names.clone()), misnamed::replaced(names))
}

#[cfg(test)]
mod tests;
