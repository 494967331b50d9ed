//! Tests of the configuration: table, defaults and numbers.
//!
//! The other tests, and the one of docs/configuration.md, are in files of their own.
#![allow(clippy::unwrap_used)]

mod addresses;
mod files;
mod misnamed;
mod otel;
mod page;
mod store;
mod subset;

use std::collections::BTreeMap;

use serde::de::{Deserialize, Deserializer, Visitor};

use super::*;

/// The required variables.
const REQUIRED: [(&str, &str); 3] = [
    ("SQS_QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/123456789012/reservation-events"),
    ("INVENTORY_GRPC_ADDR", "inventory:50051"),
    ("RESERVATION_API_BASE", "http://reservation-api:8080"),
];

fn with(vars: &[(&str, &str)]) -> Result<Config, ConfigErrors> {
    let all = REQUIRED.iter().chain(vars);
    Config::from_vars(all.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
}

/// Returns the error text for a value that must be refused.
fn refused(name: &str, value: &str) -> String {
    with(&[(name, value)]).map(|_| format!("{name} took {value:?}")).unwrap_err().to_string()
}

#[test]
fn unset_variables_have_the_specified_defaults() {
    let config = with(&[]).unwrap();
    assert_eq!(config.sqs.queue_url.name(), "reservation-events");
    assert_eq!(config.sqs.dlq_url, None);
    assert_eq!(config.sqs.wait_time, Duration::from_secs(20));
    assert_eq!(config.sqs.visibility_timeout, Duration::from_secs(30));
    assert_eq!(config.worker.concurrency.get(), 20);
    assert_eq!(config.worker.concurrency_min.get(), 2);
    assert_eq!(config.worker.max_in_flight.get(), 1000);
    assert_eq!(config.worker.max_in_flight_bytes, 64 * 1024 * 1024);
    assert_eq!(config.worker.threads, None);
    assert_eq!(config.retry.max_retries, 5);
    assert_eq!(config.retry.backoff_base, Duration::from_secs(1));
    assert_eq!(config.retry.backoff_max, Duration::from_secs(30));
    assert_eq!(config.inventory.url.as_str(), "http://inventory:50051/");
    assert_eq!(config.inventory.timeout, Duration::from_secs(2));
    assert_eq!(config.inventory.latency_target, None);
    assert_eq!(config.reservation.base.as_str(), "http://reservation-api:8080/");
    assert_eq!(config.reservation.timeout, Duration::from_secs(5));
    assert_eq!(config.reservation.latency_target, None);
    for credentials in [config.inventory.credentials, config.reservation.credentials] {
        let Credentials { roots, identity, token } = credentials;
        assert!(roots.is_none() && identity.is_none() && token.is_none());
    }
    assert_eq!(config.idempotency.store, IdempotencyStore::Memory);
    assert!(matches!(config.idempotency.auth, StoreAuth::Url));
    assert_eq!(config.idempotency.ttl, Duration::from_secs(86_400));
    assert_eq!(config.idempotency.capacity.get(), 100_000);
    assert_eq!(config.idempotency.key_prefix, "reservation-worker:");
    assert_eq!(config.log.level, LogLevel::Info);
    assert_eq!(config.log.format, None);
    assert!(!config.log.no_color);
    assert_eq!(config.server.port.get(), 8040);
    assert_eq!(config.shutdown_grace, Duration::from_secs(25));
    assert_eq!(config.warnings, Vec::<String>::new());
}

/// One allowed, non-default value per variable; those for files and AWS are in `files` and `store`.
const SAMPLES: &[(&str, &str)] = &[
    ("SQS_QUEUE_URL", "http://localhost:4566/000000000000/q.fifo"),
    ("INVENTORY_GRPC_ADDR", "https://inventory.example.com/"),
    ("RESERVATION_API_BASE", "https://api.example.com/v1/"),
    ("SQS_WAIT_TIME", "0"),
    ("SQS_VISIBILITY_TIMEOUT", "31"),
    ("SQS_DLQ_URL", "http://localhost:4566/000000000000/dlq"),
    ("WORKER_CONCURRENCY", "21"),
    ("CONCURRENCY_MIN", "3"),
    ("MAX_IN_FLIGHT", "1001"),
    ("MAX_IN_FLIGHT_MB", "65"),
    ("WORKER_THREADS", "4"),
    ("MAX_RETRIES", "0"),
    ("BACKOFF_BASE_MS", "10"),
    ("BACKOFF_MAX_MS", "40000"),
    ("INVENTORY_TIMEOUT_MS", "11"),
    ("RESERVATION_TIMEOUT_MS", "12"),
    ("INVENTORY_LATENCY_TARGET_MS", "10"),
    ("RESERVATION_LATENCY_TARGET_MS", "9"),
    ("IDEMPOTENCY_STORE", "redis://cache:6379/0"),
    ("IDEMPOTENCY_STORE_AUTH", "URL"),
    ("IDEMPOTENCY_TTL", "61"),
    ("IDEMPOTENCY_CAPACITY", "7"),
    ("IDEMPOTENCY_KEY_PREFIX", "x/"),
    ("SHARED_ORDER", "FALSE"),
    ("SHUTDOWN_GRACE", "26"),
    ("SERVER_PORT", "9000"),
    ("STATUS_PAGE", "Open"),
    ("LOG_LEVEL", "WARN"),
    ("LOG_FORMAT", "Pretty"),
    ("NO_COLOR", "1"),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4318"),
    ("OTEL_EXPORTER_OTLP_INSECURE", "false"),
    ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", "false"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
    ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "http/protobuf"),
    ("OTEL_EXPORTER_OTLP_HEADERS", "a=b"),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "a=b"),
    ("OTEL_EXPORTER_OTLP_TIMEOUT", "10001"),
    ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "10002"),
    ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
    ("OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "gzip"),
    ("OTEL_SDK_DISABLED", "TRUE"),
    ("OTEL_SERVICE_NAME", "seats"),
    ("OTEL_RESOURCE_ATTRIBUTES", "a=b"),
    ("OTEL_TRACES_SAMPLER", "traceidratio"),
    ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
    ("OTEL_TRACES_EXPORTER", "none"),
    ("OTEL_PROPAGATORS", "tracecontext"),
];

#[test]
fn every_variable_of_the_table_is_read_and_shown() {
    let samples: BTreeMap<&str, &str> = SAMPLES.iter().copied().collect();
    let names: Vec<&str> = VARIABLES.iter().map(|variable| variable.name).collect();
    let is_here = |name: &&str| !name.ends_with("_FILE") && *name != "IDEMPOTENCY_STORE_AWS_CACHE";
    let names: Vec<&str> = names.into_iter().filter(is_here).collect();
    assert_eq!(samples.len(), names.len());
    let defaults: BTreeMap<_, _> = with(&[]).unwrap().effective().collect();
    for name in names {
        let config = with(&[(name, samples[name])]).unwrap();
        let effective: Vec<_> = config.effective().collect();
        let order = effective.iter().map(|(name, _)| *name);
        assert!(order.eq(VARIABLES.iter().map(|variable| variable.name)));
        for (shown, value) in effective {
            // Each protocol has its own default port.
            if name.ends_with("_PROTOCOL") && shown == "OTEL_EXPORTER_OTLP_ENDPOINT" {
                continue;
            }
            let sample = if name.ends_with("_HEADERS") { "***" } else { samples[name] };
            let expected = if shown == name { sample } else { &defaults[shown] };
            assert_eq!(value, expected, "{shown} with {name} set");
        }
    }
}

#[test]
fn every_sample_reaches_its_field() {
    let config = with(SAMPLES).unwrap();
    assert_eq!(config.sqs.queue_url.to_string(), SAMPLES[0].1);
    assert_eq!(config.sqs.dlq_url.unwrap().name(), "dlq");
    assert_eq!(config.sqs.wait_time, Duration::ZERO);
    assert_eq!(config.sqs.visibility_timeout, Duration::from_secs(31));
    assert_eq!(config.inventory.url.as_str(), "https://inventory.example.com/");
    assert_eq!(config.reservation.base.as_str(), "https://api.example.com/v1/");
    assert_eq!(config.worker.concurrency.get(), 21);
    assert_eq!(config.worker.concurrency_min.get(), 3);
    assert_eq!(config.worker.max_in_flight.get(), 1001);
    assert_eq!(config.worker.max_in_flight_bytes, 65 << 20);
    assert_eq!(config.worker.threads.unwrap().get(), 4);
    assert_eq!(config.retry.max_retries, 0);
    assert_eq!(config.retry.backoff_base, Duration::from_millis(10));
    assert_eq!(config.retry.backoff_max, Duration::from_secs(40));
    assert_eq!(config.inventory.timeout, Duration::from_millis(11));
    assert_eq!(config.reservation.timeout, Duration::from_millis(12));
    assert_eq!(config.inventory.latency_target, Some(Duration::from_millis(10)));
    assert_eq!(config.reservation.latency_target, Some(Duration::from_millis(9)));
    assert!(matches!(config.idempotency.store, IdempotencyStore::Redis(_)));
    assert_eq!(config.idempotency.ttl, Duration::from_secs(61));
    assert_eq!(config.idempotency.capacity.get(), 7);
    assert_eq!(config.idempotency.key_prefix, "x/");
    assert_eq!(config.shutdown_grace, Duration::from_secs(26));
    assert_eq!(config.server.port.get(), 9000);
    assert_eq!(config.log.level, LogLevel::Warn);
    assert_eq!(config.log.format, Some(LogFormat::Pretty));
    assert!(config.log.no_color);
    assert!(config.telemetry.otlp.is_none());
    assert_eq!(config.telemetry.service_name, "seats");
    assert_eq!(config.warnings, Vec::<String>::new());
}

/// Collects the field names of a struct, as serde sees them.
struct FieldNames<'a>(&'a mut Vec<&'static str>);

impl<'de> Deserializer<'de> for FieldNames<'_> {
    type Error = serde::de::value::Error;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Self::Error> {
        Err(serde::de::Error::custom("only structs are supported"))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.extend_from_slice(fields);
        visitor
            .visit_map(serde::de::value::MapDeserializer::new(std::iter::empty::<(&str, &str)>()))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 u8 u16 u32 u64 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

#[test]
fn the_table_and_the_struct_have_the_same_variables() {
    let mut fields = Vec::new();
    Raw::deserialize(FieldNames(&mut fields)).unwrap();
    let table = VARIABLES.iter().map(|variable| variable.name);
    assert!(table.eq(fields.iter().map(|field| field.to_uppercase())));
}

#[test]
fn each_number_has_its_range() {
    for variable in VARIABLES {
        let Allowed::Whole { min, max, .. } = variable.allowed else {
            continue;
        };
        let ends = |value: u64| {
            // Other variables are set so that only the range of this one matters.
            let workers = if variable.name == "CONCURRENCY_MIN" { "1000" } else { "1" };
            let set = [
                ("SQS_WAIT_TIME", "0"),
                ("WORKER_CONCURRENCY", workers),
                ("BACKOFF_BASE_MS", "1"),
                ("MAX_IN_FLIGHT", "20000"),
                ("BACKOFF_MAX_MS", "900000"),
                ("SHUTDOWN_GRACE", "900"),
                ("INVENTORY_TIMEOUT_MS", "60000"),
                ("RESERVATION_TIMEOUT_MS", "60000"),
                (variable.name, &value.to_string()),
            ];
            with(&set).map_err(|errors| errors.to_string())
        };
        assert!(ends(min).is_ok(), "{} {:?}", variable.name, ends(min));
        assert!(ends(max).is_ok(), "{} {:?}", variable.name, ends(max));
        assert!(ends(max + 1).is_err(), "{}", variable.name);
        if let Some(below) = min.checked_sub(1) {
            let said = ends(below).unwrap_err();
            let start = format!(
                "{} is \"{below}\": must be a whole number from {min} to {max}",
                variable.name
            );
            assert!(said.starts_with(&start), "{said}");
        }
        for bad in [
            "x",
            "-1",
            "+20",
            "20.0",
            "2e1",
            " 20",
            "20\n",
            "0x14",
            "２０",
            "99999999999999999999999",
            "\u{fffd}",
        ] {
            let said = refused(variable.name, bad);
            assert!(said.starts_with(&format!("{} is ", variable.name)), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

#[test]
fn words_are_accepted_in_any_case_and_other_words_are_rejected() {
    for (name, word) in [("LOG_LEVEL", "loud"), ("LOG_LEVEL", "info "), ("LOG_FORMAT", "text")] {
        assert!(refused(name, word).contains("must be one of "));
    }
    for (word, level) in
        [("Debug", LogLevel::Debug), ("info", LogLevel::Info), ("eRRor", LogLevel::Error)]
    {
        assert_eq!(with(&[("LOG_LEVEL", word)]).unwrap().log.level, level);
    }
    let config = with(&[("LOG_FORMAT", "JSON")]).unwrap();
    assert_eq!(config.log.format, Some(LogFormat::Json));
}

#[test]
fn a_key_prefix_is_at_most_64_printable_ascii_characters() {
    for bad in ["a b", "a\n", "é", &"x".repeat(65)] {
        assert!(refused("IDEMPOTENCY_KEY_PREFIX", bad).contains("printable ASCII"));
    }
    with(&[("IDEMPOTENCY_KEY_PREFIX", &"x".repeat(64))]).unwrap();
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let empty: Vec<_> = VARIABLES.iter().map(|variable| (variable.name, "")).collect();
    let errors = with(&empty).unwrap_err();
    let names: Vec<_> = errors.as_slice().iter().map(|error| error.name).collect();
    assert_eq!(names, REQUIRED.map(|(name, _)| name));
    let optional: Vec<_> = empty.into_iter().filter(|(name, _)| !names.contains(name)).collect();
    let (with_empty, without): (Vec<_>, Vec<_>) =
        (with(&optional).unwrap().effective().collect(), with(&[]).unwrap().effective().collect());
    assert_eq!(with_empty, without);
}

#[test]
fn all_faults_are_reported_in_the_order_of_the_table() {
    let vars = [
        ("SERVER_PORT", "http"),
        ("SQS_WAIT_TIME", "21"),
        ("SQS_QUEUE_URL", "my-queue"),
        ("LOG_LEVEL", "loud"),
        ("MAX_IN_FLIGHT", "5"),
        ("sqs_wait_time", "not ours"),
        ("PATH", "not ours"),
    ];
    let vars = vars.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let said = Config::from_vars(vars).unwrap_err().to_string();
    let expected = "\
SQS_QUEUE_URL is \"my-queue\": must be an http or https URL that ends in the queue's name (1 to 80 letters, digits, `-`, `_`, and maybe `.fifo`)
INVENTORY_GRPC_ADDR is not set: must be `host:port`, or an http or https URL without a path
RESERVATION_API_BASE is not set: must be an http or https URL without user, query or fragment
SQS_WAIT_TIME is \"21\": must be a whole number from 0 to 20
MAX_IN_FLIGHT is \"5\": must be a whole number from 1 to 20000, not below WORKER_CONCURRENCY: at least 20
SERVER_PORT is \"http\": must be a whole number from 1 to 65535
LOG_LEVEL is \"loud\": must be one of debug, info, warn, error";
    assert_eq!(said, expected);
}

#[test]
fn limits_between_variables_are_checked() {
    assert!(refused("BACKOFF_MAX_MS", "999").ends_with("not below BACKOFF_BASE_MS: at least 1000"));
    assert!(refused("SHUTDOWN_GRACE", "22").ends_with("at least SQS_WAIT_TIME + 3: at least 23"));
    assert!(refused("MAX_IN_FLIGHT", "19").ends_with("not below WORKER_CONCURRENCY: at least 20"));
    assert!(refused("SQS_DLQ_URL", REQUIRED[0].1).contains("another queue"));
    with(&[("BACKOFF_MAX_MS", "1000")]).unwrap();
    with(&[("SHUTDOWN_GRACE", "23")]).unwrap();
    with(&[("SHUTDOWN_GRACE", "3"), ("SQS_WAIT_TIME", "0")]).unwrap();
    with(&[("MAX_IN_FLIGHT", "20")]).unwrap();
    // The error of the queue URL does not hide that the grace is too short.
    let said = with(&[("SQS_QUEUE_URL", "x"), ("SHUTDOWN_GRACE", "4")]).unwrap_err();
    assert_eq!(said.as_slice().len(), 2);
}

#[test]
fn a_latency_target_is_below_the_timeout_of_its_service() {
    for (target, timeout, most) in [
        ("INVENTORY_LATENCY_TARGET_MS", "INVENTORY_TIMEOUT_MS", "1999"),
        ("RESERVATION_LATENCY_TARGET_MS", "RESERVATION_TIMEOUT_MS", "4999"),
    ] {
        let range = "must be a whole number from 1 to 59999";
        let at = with(&[(timeout, "300"), (target, "300")]).unwrap_err().to_string();
        assert_eq!(at, format!("{target} is \"300\": {range}, below {timeout}: at most 299"));
        with(&[(timeout, "300"), (target, "299")]).unwrap();
        with(&[(target, most)]).unwrap();
        // The limit is the given timeout, not the default one.
        with(&[(timeout, "60000"), (target, "59999")]).unwrap();
        assert!(refused(target, "59999").ends_with(&format!("below {timeout}: at most {most}")));
        // A wrong timeout causes no second error about the target.
        let said = with(&[(timeout, "9"), (target, "9")]).unwrap_err();
        assert_eq!(said.as_slice().len(), 1);
    }
}

#[test]
fn the_minimum_concurrency_is_not_above_the_worker_concurrency() {
    let least = |vars: &[(&str, &str)]| with(vars).unwrap().worker.concurrency_min.get();
    let one = ("WORKER_CONCURRENCY", "1");
    assert_eq!(least(&[one]), 1);
    assert_eq!(least(&[one, ("CONCURRENCY_MIN", "")]), 1);
    assert_eq!(least(&[one, ("CONCURRENCY_MIN", "1")]), 1);
    assert_eq!(least(&[("CONCURRENCY_MIN", "20")]), 20);
    let shown: BTreeMap<_, _> = with(&[one]).unwrap().effective().collect();
    assert_eq!(shown["CONCURRENCY_MIN"], "1");
    let said = with(&[one, ("CONCURRENCY_MIN", "2")]).unwrap_err().to_string();
    assert_eq!(
        said,
        "CONCURRENCY_MIN is \"2\": must be a whole number from 1 to 1000, not above WORKER_CONCURRENCY: at most 1"
    );
    assert!(refused("CONCURRENCY_MIN", "21").ends_with("WORKER_CONCURRENCY: at most 20"));
}

#[cfg(unix)]
#[test]
fn only_known_variables_must_be_utf_8() {
    use std::os::unix::ffi::OsStringExt as _;
    let bad = || OsString::from_vec(vec![b'a', 0xff]);
    let vars = |extra: Vec<(OsString, OsString)>| {
        let required = REQUIRED.map(|(name, value)| (name.into(), value.into()));
        Config::from_vars(os_vars(required.into_iter().chain(extra)))
    };
    vars(vec![("PATH".into(), bad()), (bad(), bad())]).unwrap();
    let said = vars(vec![("OTEL_SERVICE_NAME".into(), bad())]).unwrap_err().to_string();
    assert_eq!(said, "OTEL_SERVICE_NAME is \"a\u{fffd}\": must be UTF-8 text");
}
