//! `reservation-worker check`: shows the effective configuration and tries every dependency.
//!
//! Each fault is reported with its remedy. The command changes nothing.

mod permissions;

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use self::permissions::permissions;
use crate::config::{Config, IdempotencyStore};
use crate::queue::sqs::{Called, QueueAttributes, SqsQueue};
use crate::queue::{QueueError, QueueErrorKind};
use crate::run::{
    EXIT_USAGE, advice, inventory, reservation_api, shared_store, sqs_queue, trace_settings,
};
use crate::telemetry::Tracing;

/// The timeout for the collector's answer.
const COLLECTOR_TIMEOUT: Duration = Duration::from_secs(3);

/// The result of one check.
enum Finding {
    /// It works; the text describes what was seen.
    Ok(String),
    /// It cannot be checked without a change.
    Unknown(String),
    /// It works, but is unwise.
    Warning(String),
    /// It does not work; the text has the fault and the remedy.
    Wrong(String),
}

/// Writes the report to `out` and returns the exit code.
///
/// The code is 0 if nothing is wrong, 2 if SQS cannot be called from this environment, else 1.
pub async fn check(config: &Config, out: &mut impl Write) -> ExitCode {
    let queue = match sqs_queue(&config.sqs, &config.aws).await {
        Ok(queue) => queue,
        Err(why) => {
            // A closed pipe is not a failure.
            let _ = writeln!(io::stderr(), "reservation-worker: the configuration is wrong\n{why}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match report(config, &queue, out).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) | Err(_) => ExitCode::FAILURE,
    }
}

async fn report(config: &Config, queue: &SqsQueue, out: &mut impl Write) -> io::Result<bool> {
    writeln!(out, "Configuration")?;
    for (name, value) in config.effective() {
        writeln!(out, "  {name}={value}")?;
    }
    for warning in config.warnings.iter().chain(&queue.called().warnings) {
        writeln!(out, "  warning: {warning}")?;
    }
    writeln!(out, "\nChecks")?;
    let mut all_well = true;
    for (name, finding) in findings(config, queue).await {
        let (word, text) = match &finding {
            Finding::Ok(text) => ("ok", text),
            Finding::Unknown(text) => ("?", text),
            Finding::Warning(text) => ("warn", text),
            Finding::Wrong(text) => ("FAIL", text),
        };
        all_well &= !matches!(finding, Finding::Wrong(_));
        writeln!(out, "  {word:<5} {name:<22} {text}")?;
    }
    writeln!(
        out,
        "\n{}",
        if all_well { "All that is needed works." } else { "Not all that is needed works." }
    )?;
    Ok(all_well)
}

async fn findings(config: &Config, queue: &SqsQueue) -> Vec<(&'static str, Finding)> {
    let mut findings = Vec::new();
    findings.push(("endpoint", Finding::Ok(about_endpoint(queue.called()))));
    let attributes = queue.attributes().await;
    match &attributes {
        Ok(attributes) => {
            findings.push(("queue", Finding::Ok(about_queue(attributes))));
            findings.push(("visibility timeout", about_visibility(attributes, config)));
            findings.push(about_dead_letters(queue, config).await);
            let has_dlq_url = config.sqs.dlq_url.is_some();
            let dlq_retention = queue.dead_letter_retention().await;
            findings.extend(about_length(attributes, queue.dead_letter_bytes_max().await));
            for line in advice(attributes, has_dlq_url, dlq_retention) {
                findings.push(("redrive policy", Finding::Warning(line)));
            }
        }
        Err(error) => findings.push(("queue", Finding::Wrong(queue_trouble(error)))),
    }
    for finding in permissions(queue, attributes.as_ref().map(|_| ())).await {
        findings.push(("permission", finding));
    }
    findings.push((
        "Reservation API",
        match reservation_api(config) {
            Ok(api) => finding(api.probe().await),
            Err(why) => Finding::Wrong(why.to_string()),
        },
    ));
    findings.push((
        "Inventory service",
        match inventory(config) {
            Ok(inventory) => finding(inventory.probe().await),
            Err(why) => Finding::Wrong(why.to_string()),
        },
    ));
    findings.push(("idempotency store", about_store(config, queue).await));
    findings.push(("collector", about_collector(config).await));
    findings
}

fn finding(probe: Result<String, String>) -> Finding {
    match probe {
        Ok(text) => Finding::Ok(text),
        Err(text) => Finding::Wrong(text),
    }
}

fn about_endpoint(called: &Called) -> String {
    let proxy =
        called.proxy.as_ref().map_or_else(String::new, |proxy| format!(", through {proxy}"));
    format!("SQS is called at {}, for the region {}{proxy}", called.endpoint, called.region)
}

fn about_queue(attributes: &QueueAttributes) -> String {
    format!("{} messages visible, {} in flight", attributes.visible, attributes.in_flight)
}

fn about_visibility(attributes: &QueueAttributes, config: &Config) -> Finding {
    Finding::Ok(format!(
        "the worker asks for {} s at each receive (the queue's own is {} s) and extends it while it holds a message",
        config.sqs.visibility_timeout.as_secs(),
        attributes.visibility.as_secs()
    ))
}

async fn about_dead_letters(queue: &SqsQueue, config: &Config) -> (&'static str, Finding) {
    let finding = match queue.dead_letter_url().await {
        Ok(Some(url)) => Finding::Ok(format!("poison goes to {url}")),
        Ok(None) if config.sqs.dlq_url.is_some() => Finding::Wrong(
            "SQS_DLQ_URL is the queue itself, by its ARN: a copy would come back without end; it must be another queue".to_owned(),
        ),
        Ok(None) => Finding::Warning(
            "none is known: poison is left to the queue's redrive policy; set SQS_DLQ_URL, or allow sqs:GetQueueAttributes on the queue and sqs:GetQueueUrl on its dead-letter queue".to_owned(),
        ),
        Err(error) => Finding::Warning(format!(
            "it cannot be found ({error}): poison is left to the queue's redrive policy until it is; set SQS_DLQ_URL, or allow sqs:GetQueueUrl on it"
        )),
    };
    ("dead-letter queue", finding)
}

/// Warns if the size limit of the dead-letter queue is below that of the queue.
///
/// Longer messages could not be copied there.
fn about_length(
    attributes: &QueueAttributes,
    dead_letter_max: Option<u64>,
) -> Option<(&'static str, Finding)> {
    let (queue_max, dead_letter_max) = (attributes.message_bytes_max, dead_letter_max?);
    (dead_letter_max < queue_max).then(|| {
        let warning = format!(
            "it takes messages of at most {dead_letter_max} bytes, the queue {queue_max}: a longer one cannot be copied there, and is left to the queue's redrive policy; set its MaximumMessageSize to the queue's"
        );
        ("dead-letter queue", Finding::Warning(warning))
    })
}

fn queue_trouble(error: &QueueError) -> String {
    let what_to_do = match error.kind {
        QueueErrorKind::Denied => {
            "check the credentials; where SQS names a permission, allow it: deploy/iam/policy.json has them all"
        }
        QueueErrorKind::NoSuchQueue => "check SQS_QUEUE_URL and AWS_REGION",
        QueueErrorKind::Timeout | QueueErrorKind::Network => {
            "check the way to SQS: DNS, firewalls, AWS_ENDPOINT_URL, AWS_REGION"
        }
        QueueErrorKind::Throttled => "try again in a while",
        QueueErrorKind::Refused | QueueErrorKind::NoDeadLetterQueue | QueueErrorKind::Other => {
            "SQS's own words say what is wrong"
        }
    };
    format!("{error}; {what_to_do}")
}

async fn about_store(config: &Config, queue: &SqsQueue) -> Finding {
    let url = match &config.idempotency.store {
        IdempotencyStore::Memory => {
            return Finding::Ok(
                "in memory: no other pod shares it, and a restart forgets it".to_owned(),
            );
        }
        IdempotencyStore::Redis(url) => url,
    };
    let shared = match shared_store(&config.idempotency, url, Some(queue)) {
        Ok(shared) => shared,
        Err(why) => return Finding::Wrong(format!("IDEMPOTENCY_STORE: {why}")),
    };
    if let Some(tokens) = &shared.tokens {
        // A first lookup of credentials may take longer than the store's own timeout.
        tokens.prepare().await;
    }
    let (at, login) = (url.without_user(), &shared.login);
    let mut probed = shared.store.probe().await;
    if config.is_ordered()
        && let Err(why) = shared.store.probe_order().await
    {
        probed = probed.and(Err(why));
    }
    match probed {
        Ok(info) => match info.advice() {
            None => Finding::Ok(format!("{at} takes records: {info}; {login}")),
            Some(advice) => Finding::Warning(format!("{at}: {info}; {login}; {advice}")),
        },
        Err(why) => Finding::Wrong(format!(
            "{why}; check IDEMPOTENCY_STORE and the way there: events wait until it answers ({login})"
        )),
    }
}

async fn about_collector(config: &Config) -> Finding {
    let telemetry = &config.telemetry;
    let Some(otlp) = &telemetry.otlp else {
        return Finding::Ok("traces are switched off".to_owned());
    };
    let url = &otlp.endpoint;
    let why = match Tracing::probe(&trace_settings(config), COLLECTOR_TIMEOUT).await {
        Ok(()) => return Finding::Ok(format!("{url} takes spans")),
        Err(why) => why,
    };
    // Only a warning: without a collector, the worker still handles every event.
    Finding::Warning(format!(
        "{url}: {why}; spans are dropped until it is there; check OTEL_EXPORTER_OTLP_ENDPOINT, or set OTEL_SDK_DISABLED=true"
    ))
}
