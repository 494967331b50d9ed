//! The command that runs the worker: builds the parts, serves the admin port, waits for a signal.

mod advice;
mod operators;
mod store;

use std::future::pending;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};
use url::Url;

use crate::admin::AdminServer;
use crate::app::{App, AppParts, AppSettings};
use crate::client::inventory::GrpcSettings;
use crate::client::reservation::HttpSettings;
use crate::client::{ClientError, GrpcInventory, HttpReservationApi};
use crate::config::{AwsConfig, Config, IdempotencyStore, LogLevel, RootSampler, SqsConfig};
use crate::controls::Controls;
use crate::handler::{ServiceEndpoints, Services};
use crate::health::Health;
use crate::idempotency::redis::BadUrl;
use crate::idempotency::{IdempotencyClient, ProcessId};
use crate::metrics::Metrics;
use crate::outage::{OutageSettings, Outages};
use crate::queue::sqs::{AwsError, SqsQueue, SqsSettings};
use crate::retry::Backoff;
use crate::settle::{DeadLetterReason, RetryPolicy};
use crate::signals::Signals;
use crate::telemetry::{Sampling, TraceError, TraceSettings, Tracing};

pub use self::advice::advice;
use self::advice::advise;
use self::operators::OperatorAccess;
pub(crate) use self::store::{SharedStore, shared_store};
use self::store::{store, store_name};

/// The exit code for unusable arguments, configuration or admin port.
pub const EXIT_USAGE: u8 = 2;

/// The longest time that a start waits for the levers that all processes share.
const FIRST_LOOK_MAX: Duration = Duration::from_secs(1);

/// The part of the shutdown time that is reserved for the admin port and the spans.
const SPANS_RESERVE: Duration = Duration::from_millis(750);

/// The reasons why the worker cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The admin port cannot be listened on.
    #[error(
        "SERVER_PORT: port {port} cannot be listened on: {why}; allowed: a port that is free, 1-65535"
    )]
    Port {
        /// The port.
        port: u16,
        /// The error of the operating system.
        why: io::Error,
    },
    /// A client could not be built.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Tracing could not be set up.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT: {0}")]
    Tracing(#[from] TraceError),
    /// The signal handlers could not be installed.
    #[error("signals cannot be listened to: {0}")]
    Signals(std::io::Error),
    /// SQS cannot be called from this environment.
    #[error("the configuration is wrong\n{0}")]
    Aws(#[from] AwsError),
    /// The URL of the shared store is not valid.
    #[error("IDEMPOTENCY_STORE: {0}")]
    SharedStore(#[from] BadUrl),
}

/// Creates all metrics of the process, at 0.
#[must_use]
pub fn metrics() -> Metrics {
    let reasons: Vec<_> = DeadLetterReason::all().map(DeadLetterReason::as_str).collect();
    Metrics::new(&reasons)
}

/// Runs until a signal arrives or a task fails; counts in `metrics`.
///
/// # Errors
/// Returns the reason if the worker cannot start; no message has been received then.
pub async fn run(config: &Config, metrics: Arc<Metrics>) -> Result<ExitCode, StartError> {
    let mut signals = Signals::listen().map_err(StartError::Signals)?;
    let port = config.server.port.get();
    let admin_port = AdminServer::bind(port).await.map_err(|why| StartError::Port { port, why })?;
    let tracing = Tracing::new(&trace_settings(config), Arc::clone(&metrics))?;
    metrics.limits(config.worker.concurrency.get(), config.worker.max_in_flight.get());
    let health = Arc::new(Health::new());
    // Without a region in the configuration, this asks the network and may wait for answers.
    let queue = tokio::select! {
        queue = sqs_queue(&config.sqs, &config.aws) => Arc::new(queue?),
        why = signals.first() => {
            info!(reason = why, "Leaving before the first receive");
            return Ok(ExitCode::SUCCESS);
        }
    };
    let services = services(config, &queue, Arc::clone(&metrics), Arc::clone(&health))?;

    let controls = Arc::new(Controls::new(Arc::clone(&metrics)));
    let stop_admin_port = CancellationToken::new();
    let (mut side, mut advice) = (JoinSet::new(), JoinSet::new());
    advice.spawn(advise(Arc::clone(&queue), config.sqs.dlq_url.is_some()));
    if matches!(config.idempotency.store, IdempotencyStore::Redis(_)) {
        // What all workers were told counts from the first receive on.
        let first_look = services.idempotency.look(|notice| controls.apply_notice(notice));
        let _ = timeout(FIRST_LOOK_MAX, first_look).await;
        let told = Arc::clone(&controls);
        let watch = services.idempotency.clone().watch(move |notice| told.apply_notice(notice));
        side.spawn(watch);
    }

    log_start(config, &queue);
    let parts =
        AppParts { queue, services, tracing: tracing.clone(), controls: Arc::clone(&controls) };
    let outages = Arc::clone(&parts.services.outages);
    let store = Arc::clone(&parts.services.idempotency.store);
    let mut app = App::start(parts, settings(config));
    let access =
        OperatorAccess { config, app: &app, health: &health, outages, metrics, controls, store };
    let mut admin = access.serve(&mut side, admin_port, stop_admin_port.clone());
    let (why, code) = tokio::select! {
        signal = signals.first() => (signal, ExitCode::SUCCESS),
        task = app.broken() => (task, ExitCode::FAILURE),
        task = panicked(&mut side) => (task, ExitCode::FAILURE),
    };
    let deadline = Instant::now() + config.shutdown_grace;
    info!(reason = why, grace_s = config.shutdown_grace.as_secs(), "Leaving");
    if why == "SIGINT" {
        tell_of_second_ctrl_c(config.log.level);
    }
    health.stopping();
    side.spawn(async { signals.exit_on_second().await });
    app.drain(deadline.checked_sub(SPANS_RESERVE).unwrap_or(deadline)).await;
    tracing.shutdown(deadline.saturating_duration_since(Instant::now())).await;
    stop_admin_port.cancel();
    // A response in progress ends within a second; a failed task was logged.
    let _ = timeout_at(deadline, admin.join_next()).await;
    Ok(code)
}

/// Waits until one of the tasks panics, and returns what they are. Cancel-safe.
async fn panicked(tasks: &mut JoinSet<()>) -> &'static str {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            error!(error = %error, "A task for operators ended that never should: leaving");
            return "a task for operators";
        }
    }
    pending().await
}

/// Logs the hint on a terminal; writes it to standard error if the log level hides it.
fn tell_of_second_ctrl_c(level: LogLevel) {
    const HINT: &str =
        "Press Ctrl-C again to exit at once: what is in hand is then tried again later";
    if !io::stdout().is_terminal() {
        return;
    }
    match level {
        LogLevel::Debug | LogLevel::Info => info!("{HINT}"),
        LogLevel::Warn | LogLevel::Error if io::stderr().is_terminal() => {
            // A write error on a closed terminal is ignored.
            let _ = writeln!(io::stderr(), "{HINT}");
        }
        LogLevel::Warn | LogLevel::Error => {}
    }
}

fn log_start(config: &Config, queue: &SqsQueue) {
    let called = queue.called();
    for warning in config.warnings.iter().chain(&called.warnings) {
        match config.log.level {
            LogLevel::Debug | LogLevel::Info | LogLevel::Warn => warn!("{warning}"),
            // Otherwise a variable without effect would not be reported at this level.
            LogLevel::Error => error!("{warning}"),
        }
    }
    info!(
        version = env!("CARGO_PKG_VERSION"),
        queue = config.sqs.queue_url.as_str(),
        endpoint = called.endpoint,
        region = called.region,
        concurrency = config.worker.concurrency.get(),
        port = config.server.port.get(),
        store = store_name(config),
        process = %ProcessId::own(),
        "Worker started"
    );
}

/// Builds the clients, the store and their metrics.
///
/// # Errors
/// Fails if one of them cannot be built from this configuration.
fn services(
    config: &Config,
    queue: &SqsQueue,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
) -> Result<Services, StartError> {
    let settings = OutageSettings {
        calls_max: config.worker.concurrency.get(),
        calls_min: config.worker.concurrency_min.get(),
        reservation_target: config.reservation.latency_target,
        inventory_target: config.inventory.latency_target,
    };
    let outages = Arc::new(Outages::new(settings, Arc::clone(&metrics)));
    let idempotency = IdempotencyClient {
        store: store(config, queue)?,
        is_ordered: config.is_ordered(),
        outages: Arc::clone(&outages),
        metrics: Arc::clone(&metrics),
        health,
    };
    Ok(Services {
        reservations: Arc::new(reservation_api(config)?),
        inventory: Arc::new(inventory(config)?),
        idempotency,
        outages,
        metrics,
        endpoints: Arc::new(endpoints(config)),
    })
}

/// Builds the client of the Reservation API.
///
/// # Errors
/// Fails if the client cannot be built.
pub fn reservation_api(config: &Config) -> Result<HttpReservationApi, ClientError> {
    HttpReservationApi::new(HttpSettings {
        base: config.reservation.base.clone(),
        credentials: config.reservation.credentials.clone(),
        timeout: config.reservation.timeout,
        idle_connections_max: config.worker.concurrency.get(),
    })
}

/// Builds the client of the Inventory service.
///
/// # Errors
/// Fails if the client cannot be built.
pub fn inventory(config: &Config) -> Result<GrpcInventory, ClientError> {
    GrpcInventory::new(GrpcSettings {
        uri: config.inventory.url.to_string(),
        credentials: config.inventory.credentials.clone(),
        timeout: config.inventory.timeout,
    })
}

fn endpoints(config: &Config) -> ServiceEndpoints {
    ServiceEndpoints {
        reservation_base: config.reservation.base.as_str().trim_end_matches('/').to_owned(),
        reservation: host_and_port(&config.reservation.base),
        inventory: host_and_port(&config.inventory.url),
        propagators: config.telemetry.propagators,
    }
}

fn host_and_port(url: &Url) -> (String, u16) {
    (url.host_str().unwrap_or_default().to_owned(), url.port_or_known_default().unwrap_or_default())
}

/// Builds the client of the queue; sends no request to it yet.
///
/// # Errors
/// Fails if SQS cannot be called from this environment.
pub async fn sqs_queue(sqs: &SqsConfig, aws: &AwsConfig) -> Result<SqsQueue, AwsError> {
    let settings = SqsSettings {
        queue_url: sqs.queue_url.as_str().to_owned(),
        dlq_url: sqs.dlq_url.as_ref().map(|url| url.as_str().to_owned()),
        wait: sqs.wait_time,
    };
    SqsQueue::new(settings, aws, &sqs.queue_url).await
}

fn settings(config: &Config) -> AppSettings {
    AppSettings {
        queue_name: config.sqs.queue_url.name().to_owned(),
        wait: config.sqs.wait_time,
        visibility: config.sqs.visibility_timeout,
        concurrency: config.worker.concurrency.get(),
        in_flight_max: config.worker.max_in_flight.get(),
        in_flight_bytes_max: config.worker.max_in_flight_bytes,
        policy: RetryPolicy {
            retries_max: config.retry.max_retries,
            backoff: Backoff { base: config.retry.backoff_base, cap: config.retry.backoff_max },
        },
        call_timeout_max: config.reservation.timeout.max(config.inventory.timeout),
    }
}

/// Returns the settings of trace export and sampling.
#[must_use]
pub fn trace_settings(config: &Config) -> TraceSettings {
    let telemetry = &config.telemetry;
    let otlp = telemetry.otlp.as_ref();
    TraceSettings {
        enabled: telemetry.otlp.is_some(),
        endpoint: otlp.map(|otlp| otlp.endpoint.to_string()).unwrap_or_default(),
        transport: otlp.map(|otlp| otlp.transport.clone()).unwrap_or_default(),
        service_name: telemetry.service_name.clone(),
        resource_attributes: telemetry.resource_attributes.clone(),
        sampling: Sampling {
            ratio: match telemetry.sampler.root {
                RootSampler::AlwaysOn => 1.0,
                RootSampler::AlwaysOff => 0.0,
                RootSampler::TraceIdRatio(ratio) => ratio,
            },
            parent_based: telemetry.sampler.is_parent_based,
        },
        propagators: telemetry.propagators,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_task_that_panics_is_noticed_and_one_that_ends_is_not() {
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        let none = timeout(Duration::from_millis(20), panicked(&mut tasks)).await;
        assert!(none.is_err(), "a task that ended is no failure");
        tasks.spawn(async { panic!("on purpose") });
        assert_eq!(panicked(&mut tasks).await, "a task for operators");
    }
}
