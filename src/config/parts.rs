//! Reads each part of the configuration, and checks the rules between variables.

use std::num::{NonZeroU16, NonZeroUsize};
use std::time::Duration;

use super::address;
use super::credentials;
use super::raw::Raw;
use super::read::Reader;
use super::table::{self, Variable};
use super::{
    InventoryConfig, LogConfig, LogFormat, LogLevel, ReservationConfig, RetryConfig, ServerConfig,
    SqsConfig, StatusPage, WorkerConfig,
};

const BYTES_PER_MIB: u64 = 1024 * 1024;

/// The minimum shutdown time after the longest poll has returned.
const GRACE_AFTER_POLL: Duration = Duration::from_secs(3);

/// Records that `variable` is below the minimum that another variable sets.
fn below(reader: &mut Reader, variable: &Variable, value: impl ToString, least: &str) {
    let allowed = format!("{}: at least {least}", variable.allowed);
    reader.wrong(variable, &value.to_string(), allowed);
}

/// Records that `variable` is above the maximum that another variable sets.
fn above(reader: &mut Reader, variable: &Variable, value: impl ToString, most: impl ToString) {
    let allowed = format!("{}: at most {}", variable.allowed, most.to_string());
    reader.wrong(variable, &value.to_string(), allowed);
}

/// Reads the optional latency target of an attempt; it must be below the attempt's timeout.
fn latency_target(
    reader: &mut Reader,
    variable: &Variable,
    given: &Option<String>,
    timeout: Option<Duration>,
) -> Option<Duration> {
    let target = reader.millis(variable, given)?;
    if let Some(timeout) = timeout
        && target >= timeout
    {
        above(reader, variable, target.as_millis(), timeout.as_millis() - 1);
    }
    Some(target)
}

impl SqsConfig {
    pub(super) fn read(
        reader: &mut Reader,
        raw: &Raw,
        wait_time: Option<Duration>,
    ) -> Option<Self> {
        let queue_url = reader.parsed(&table::SQS_QUEUE_URL, &raw.sqs_queue_url, address::queue);
        let dlq_url = reader.parsed(&table::SQS_DLQ_URL, &raw.sqs_dlq_url, address::queue);
        if let (Some(queue), Some(dlq)) = (&queue_url, &dlq_url)
            && queue.is_same_queue(dlq)
        {
            let allowed = table::SQS_DLQ_URL.allowed.to_string();
            reader.wrong(&table::SQS_DLQ_URL, dlq.as_str(), allowed);
        }
        let visibility_timeout =
            reader.seconds(&table::SQS_VISIBILITY_TIMEOUT, &raw.sqs_visibility_timeout);
        Some(Self {
            queue_url: queue_url?,
            dlq_url,
            wait_time: wait_time?,
            visibility_timeout: visibility_timeout?,
        })
    }
}

impl WorkerConfig {
    pub(super) fn read(reader: &mut Reader, raw: &Raw) -> Option<Self> {
        let concurrency = reader.count(&table::WORKER_CONCURRENCY, &raw.worker_concurrency);
        let max_in_flight = reader.count(&table::MAX_IN_FLIGHT, &raw.max_in_flight);
        if let (Some(concurrency), Some(max_in_flight)) = (concurrency, max_in_flight)
            && max_in_flight < concurrency
        {
            let least = concurrency.to_string();
            below(reader, &table::MAX_IN_FLIGHT, max_in_flight, &least);
        }
        let concurrency_min = Self::concurrency_min(reader, raw, concurrency);
        let mib = reader.whole(&table::MAX_IN_FLIGHT_MB, &raw.max_in_flight_mb);
        let threads = reader.count(&table::WORKER_THREADS, &raw.worker_threads);
        Some(Self {
            concurrency: concurrency?,
            concurrency_min: concurrency_min?,
            max_in_flight: max_in_flight?,
            max_in_flight_bytes: mib? * BYTES_PER_MIB,
            threads,
        })
    }

    /// Reads the minimum concurrency.
    ///
    /// With a concurrency of 1, the table's default would be above the concurrency.
    fn concurrency_min(
        reader: &mut Reader,
        raw: &Raw,
        concurrency: Option<NonZeroUsize>,
    ) -> Option<NonZeroUsize> {
        let is_single = concurrency == Some(NonZeroUsize::MIN);
        let given = raw.concurrency_min.clone().or_else(|| is_single.then(|| "1".to_owned()));
        let least = reader.count(&table::CONCURRENCY_MIN, &given)?;
        if let Some(concurrency) = concurrency
            && least > concurrency
        {
            above(reader, &table::CONCURRENCY_MIN, least, concurrency);
        }
        Some(least)
    }
}

impl RetryConfig {
    pub(super) fn read(reader: &mut Reader, raw: &Raw) -> Option<Self> {
        let max_retries = reader.whole(&table::MAX_RETRIES, &raw.max_retries);
        let backoff_base = reader.millis(&table::BACKOFF_BASE_MS, &raw.backoff_base_ms);
        let backoff_max = reader.millis(&table::BACKOFF_MAX_MS, &raw.backoff_max_ms);
        if let (Some(base), Some(max)) = (backoff_base, backoff_max)
            && max < base
        {
            let least = base.as_millis().to_string();
            below(reader, &table::BACKOFF_MAX_MS, max.as_millis(), &least);
        }
        Some(Self {
            max_retries: u32::try_from(max_retries?).expect("the table's retries fit 32 bits"),
            backoff_base: backoff_base?,
            backoff_max: backoff_max?,
        })
    }
}

impl InventoryConfig {
    pub(super) fn read(reader: &mut Reader, raw: &Raw) -> Option<Self> {
        let url = reader.parsed(
            &table::INVENTORY_GRPC_ADDR,
            &raw.inventory_grpc_addr,
            address::grpc_service,
        );
        let timeout = reader.millis(&table::INVENTORY_TIMEOUT_MS, &raw.inventory_timeout_ms);
        let latency_target = latency_target(
            reader,
            &table::INVENTORY_LATENCY_TARGET_MS,
            &raw.inventory_latency_target_ms,
            timeout,
        );
        let credentials = credentials::inventory(reader, raw, url.as_ref());
        Some(Self { url: url?, timeout: timeout?, latency_target, credentials })
    }
}

impl ReservationConfig {
    pub(super) fn read(reader: &mut Reader, raw: &Raw) -> Option<Self> {
        let base =
            reader.parsed(&table::RESERVATION_API_BASE, &raw.reservation_api_base, address::base);
        let timeout = reader.millis(&table::RESERVATION_TIMEOUT_MS, &raw.reservation_timeout_ms);
        let latency_target = latency_target(
            reader,
            &table::RESERVATION_LATENCY_TARGET_MS,
            &raw.reservation_latency_target_ms,
            timeout,
        );
        let credentials = credentials::reservation_api(reader, raw, base.as_ref());
        Some(Self { base: base?, timeout: timeout?, latency_target, credentials })
    }
}

impl LogConfig {
    pub(super) fn read(reader: &mut Reader, raw: &Raw) -> Option<Self> {
        let mut nearest = None;
        let level = |value: &str| match value.to_ascii_lowercase().as_str() {
            // Other programs accept this level.
            "trace" => {
                nearest = Some("debug");
                Some(LogLevel::Debug)
            }
            "warning" => {
                nearest = Some("warn");
                Some(LogLevel::Warn)
            }
            "off" => {
                nearest = Some("error");
                Some(LogLevel::Error)
            }
            level => LogLevel::parse(level),
        };
        let format = |value: &str| match value.to_ascii_lowercase().as_str() {
            "json" => Some(LogFormat::Json),
            "pretty" => Some(LogFormat::Pretty),
            _ => None,
        };
        let level = reader.parsed(&table::LOG_LEVEL, &raw.log_level, level);
        if let (Some(nearest), Some(given)) = (nearest, &raw.log_level) {
            reader.taken_as(&table::LOG_LEVEL, given, nearest);
        }
        let format = reader.parsed(&table::LOG_FORMAT, &raw.log_format, format);
        let no_color = reader.text(&table::NO_COLOR, &raw.no_color).is_some();
        Some(Self { level: level?, format, no_color })
    }
}

impl ServerConfig {
    pub(super) fn read(reader: &mut Reader, raw: &Raw) -> Option<Self> {
        let port = reader.whole(&table::SERVER_PORT, &raw.server_port)?;
        let port = u16::try_from(port).expect("the table's ports fit 16 bits");
        let port = NonZeroU16::new(port).expect("the table's ports begin at 1");
        let status_page = |value: &str| match value.to_ascii_lowercase().as_str() {
            "local" => Some(StatusPage::Local),
            "open" => Some(StatusPage::Open),
            "off" => Some(StatusPage::Off),
            _ => None,
        };
        let status_page = reader.parsed(&table::STATUS_PAGE, &raw.status_page, status_page)?;
        Some(Self { port, status_page })
    }
}

/// Reads the time limit for the whole shutdown, which includes the end of the longest poll.
pub(super) fn shutdown_grace(
    reader: &mut Reader,
    raw: &Raw,
    wait_time: Option<Duration>,
) -> Option<Duration> {
    let grace = reader.seconds(&table::SHUTDOWN_GRACE, &raw.shutdown_grace)?;
    let least = wait_time.unwrap_or_default() + GRACE_AFTER_POLL;
    if grace < least {
        let least = least.as_secs().to_string();
        below(reader, &table::SHUTDOWN_GRACE, grace.as_secs(), &least);
    }
    Some(grace)
}
