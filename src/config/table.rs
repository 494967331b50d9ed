//! The table of all variables: meaning, allowed values and default of each.
//!
//! `help variables`, docs/configuration.md, the checks and the errors all use this table, so that
//! they cannot differ. `read` checks the values.

use std::fmt;

/// One environment variable.
#[derive(Clone, Copy, Debug)]
pub struct Variable {
    /// The name.
    pub name: &'static str,
    /// The default if the variable is not set or is empty.
    pub fallback: Fallback,
    /// The purpose, with its unit.
    pub meaning: &'static str,
    /// The allowed values.
    pub allowed: Allowed,
    /// The part of the value that is masked when shown.
    pub secret: Secret,
}

/// The secret part of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secret {
    /// No part.
    None,
    /// User, password and query of a URL.
    Login,
    /// The whole value, unless it is the path of a file: a secret may stand in its place.
    UnlessPath,
    /// The whole value.
    Whole,
}

/// The default of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// No default: the variable must be set.
    Required,
    /// This value, used as if it had been given.
    Value(&'static str),
    /// A default that is not a value of the variable; this text describes it.
    Told(&'static str),
}

/// The allowed values of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Whole decimal numbers, both ends included.
    Whole {
        /// The minimum.
        min: u64,
        /// The maximum.
        max: u64,
        /// An additional rule that refers to other variables, or an empty text.
        also: &'static str,
    },
    /// One of these words, case-insensitive.
    OneOf(&'static [&'static str]),
    /// Values that this text describes.
    Told(&'static str),
}

impl fmt::Display for Allowed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { min, max, also: "" } => write!(f, "a whole number from {min} to {max}"),
            Self::Whole { min, max, also } => {
                write!(f, "a whole number from {min} to {max}, {also}")
            }
            Self::OneOf(words) => write!(f, "one of {}", words.join(", ")),
            Self::Told(text) => f.write_str(text),
        }
    }
}

impl Allowed {
    /// Returns the text for `help variables` and the documentation; a range is `min-max`.
    #[must_use]
    pub fn brief(&self) -> String {
        match self {
            Self::Whole { min, max, also: "" } => format!("{min}-{max}"),
            Self::Whole { min, max, also } => format!("{min}-{max}, {also}"),
            Self::OneOf(words) => words.join(", "),
            Self::Told(told) => (*told).to_owned(),
        }
    }
}

const fn whole(min: u64, max: u64) -> Allowed {
    let also = "";
    Allowed::Whole { min, max, also }
}

pub(super) const fn variable(
    name: &'static str,
    fallback: Fallback,
    meaning: &'static str,
    allowed: Allowed,
) -> Variable {
    Variable { name, fallback, meaning, allowed, secret: Secret::None }
}

/// Marks the whole value as secret.
const fn hidden(variable: Variable) -> Variable {
    Variable { secret: Secret::Whole, ..variable }
}

/// Marks a URL that may have a login.
pub(super) const fn with_login(variable: Variable) -> Variable {
    Variable { secret: Secret::Login, ..variable }
}

/// Marks the path of a file that may hold a secret.
const fn path(variable: Variable) -> Variable {
    Variable { secret: Secret::UnlessPath, ..variable }
}

macro_rules! variables {
    ($($name:ident: $fallback:expr, $meaning:literal, $allowed:expr $(, $wrap:ident)?;)*) => {
        $(
            pub(super) const $name: Variable =
                $($wrap)?(variable(stringify!($name), $fallback, $meaning, $allowed));
        )*

        /// Every variable, in the order of `help variables`.
        pub const VARIABLES: &[Variable] = &[$($name),*];
    };
}

use Allowed::{OneOf, Told};
use Fallback::{Required, Value};

const QUEUE: Allowed = Told(
    "an http or https URL that ends in the queue's name (1 to 80 letters, digits, `-`, `_`, and maybe `.fifo`)",
);

const ENDPOINT: Allowed = Told("`host:port`, or an http or https URL");

const OTLP_PROTOCOLS: Allowed = OneOf(&["grpc", "http/protobuf"]);

const HEADERS: Allowed = Told("name=value pairs, comma-separated, percent-encoded");

const ALL_SIGNALS: Fallback = Fallback::Told("as the variable without TRACES");

const NO_TARGET: Fallback =
    Fallback::Told("WORKER_CONCURRENCY calls at once, fewer after timeouts and pacing");

variables! {
    SQS_QUEUE_URL: Required, "the queue that events come from", QUEUE, with_login;
    INVENTORY_GRPC_ADDR: Required, "the Inventory service (gRPC); https means TLS",
        Told("`host:port`, or an http or https URL without a path"), with_login;
    RESERVATION_API_BASE: Required, "the Reservation API's base URL",
        Told("an http or https URL without user, query or fragment"), with_login;
    SQS_WAIT_TIME: Value("20"), "long-poll wait, seconds; empty receives that come back at once are 0.1 to 1 s apart", whole(0, 20);
    SQS_VISIBILITY_TIMEOUT: Value("30"), "seconds that a received message stays invisible; extended while held", whole(5, 3600);
    SQS_DLQ_URL: Fallback::Told("the queue's own redrive target, if it can be read"), "where messages go that can never be handled",
        Told("as SQS_QUEUE_URL, and another queue"), with_login;
    WORKER_CONCURRENCY: Value("20"), "events handled at once", whole(1, 1000);
    CONCURRENCY_MIN: Value("2"), "calls at once that a service is never given fewer of; 1 where WORKER_CONCURRENCY is 1",
        Allowed::Whole { min: 1, max: 1000, also: "not above WORKER_CONCURRENCY" };
    MAX_IN_FLIGHT: Value("1000"), "messages held at most, counting those that wait; times pods, keep it under SQS's 120,000",
        Allowed::Whole { min: 1, max: 20_000, also: "not below WORKER_CONCURRENCY" };
    MAX_IN_FLIGHT_MB: Value("64"), "MiB of memory that held messages take at most: bodies, attributes, what was read out of them, and 2 KiB for each", whole(2, 4096);
    WORKER_THREADS: Fallback::Told("1"), "threads of the runtime", whole(1, 64);
    MAX_RETRIES: Value("5"), "retries of an event after its first attempt", whole(0, 10);
    BACKOFF_BASE_MS: Value("1000"), "first backoff, ms; doubles each time, full jitter", whole(1, 30_000);
    BACKOFF_MAX_MS: Value("30000"), "the backoff's cap, ms",
        Allowed::Whole { min: 1, max: 900_000, also: "not below BACKOFF_BASE_MS" };
    INVENTORY_TIMEOUT_MS: Value("2000"), "per attempt at the Inventory service, ms", whole(10, 60_000);
    RESERVATION_TIMEOUT_MS: Value("5000"), "per attempt at the Reservation API, ms", whole(10, 60_000);
    INVENTORY_LATENCY_TARGET_MS: NO_TARGET, "what an attempt at the Inventory service should take, ms; calls at once follow it",
        Allowed::Whole { min: 1, max: 59_999, also: "below INVENTORY_TIMEOUT_MS" };
    RESERVATION_LATENCY_TARGET_MS: NO_TARGET, "what an attempt at the Reservation API should take, ms; calls at once follow it",
        Allowed::Whole { min: 1, max: 59_999, also: "below RESERVATION_TIMEOUT_MS" };
    INVENTORY_CA_FILE: Fallback::Told("the machine's roots, or SSL_CERT_FILE"), "roots that the Inventory service's certificate must come from, and no others",
        Told("a file of PEM certificates, where INVENTORY_GRPC_ADDR is https"), path;
    INVENTORY_CLIENT_CERT_FILE: Fallback::Told("none"), "the worker's own certificate for the Inventory service (mTLS)",
        Told("a file of PEM certificates, the worker's own first, where INVENTORY_GRPC_ADDR is https"), path;
    INVENTORY_KEY_FILE: Fallback::Told("none"), "the private key of INVENTORY_CLIENT_CERT_FILE",
        Told("a file with a PEM private key, unencrypted, together with INVENTORY_CLIENT_CERT_FILE"), path;
    INVENTORY_TOKEN_FILE: Fallback::Told("none"), "the bearer token for the Inventory service",
        Told("a file that holds one token"), path;
    RESERVATION_API_CA_FILE: Fallback::Told("the machine's roots, or SSL_CERT_FILE"), "roots that the Reservation API's certificate must come from, and no others",
        Told("a file of PEM certificates, where RESERVATION_API_BASE is https"), path;
    RESERVATION_API_CLIENT_CERT_FILE: Fallback::Told("none"), "the worker's own certificate for the Reservation API (mTLS)",
        Told("a file of PEM certificates, the worker's own first, where RESERVATION_API_BASE is https"), path;
    RESERVATION_API_KEY_FILE: Fallback::Told("none"), "the private key of RESERVATION_API_CLIENT_CERT_FILE",
        Told("a file with a PEM private key, unencrypted, together with RESERVATION_API_CLIENT_CERT_FILE"), path;
    RESERVATION_API_TOKEN_FILE: Fallback::Told("none"), "the bearer token for the Reservation API",
        Told("a file that holds one token"), path;
    IDEMPOTENCY_STORE: Value("memory"), "where handled events are remembered: in memory, or shared by all pods",
        Told("`memory`, or a URL of Redis or Valkey (redis://, valkey://; with TLS rediss://, valkeys://)"), with_login;
    IDEMPOTENCY_STORE_AUTH: Value("url"), "how the worker logs in to the shared store: user and password in the URL, the password in a file, or tokens of AWS IAM",
        OneOf(&["url", "file", "aws-iam"]);
    IDEMPOTENCY_STORE_PASSWORD_FILE: Fallback::Told("none"), "the password for the shared store, read again for each connection; the user stays in the URL",
        Told("a file that holds one password, where IDEMPOTENCY_STORE_AUTH is file"), path;
    IDEMPOTENCY_STORE_AWS_CACHE: Fallback::Told("none"), "the cache of AWS that tokens of AWS IAM are made for",
        Told("NAME or serverless/NAME (ElastiCache), or memorydb/NAME, in lower case, where IDEMPOTENCY_STORE_AUTH is aws-iam");
    IDEMPOTENCY_STORE_CA_FILE: Fallback::Told("the machine's roots, or SSL_CERT_FILE"), "roots that the shared store's certificate must come from, and no others",
        Told("a file of PEM certificates, where IDEMPOTENCY_STORE is a rediss:// URL"), path;
    IDEMPOTENCY_STORE_CLIENT_CERT_FILE: Fallback::Told("none"), "the worker's own certificate for the shared store (mTLS)",
        Told("a file of PEM certificates, the worker's own first, where IDEMPOTENCY_STORE is a rediss:// URL"), path;
    IDEMPOTENCY_STORE_KEY_FILE: Fallback::Told("none"), "the private key of IDEMPOTENCY_STORE_CLIENT_CERT_FILE",
        Told("a file with a PEM private key, unencrypted, together with IDEMPOTENCY_STORE_CLIENT_CERT_FILE"), path;
    IDEMPOTENCY_TTL: Value("86400"), "seconds that a handled event is remembered", whole(60, 2_592_000);
    IDEMPOTENCY_CAPACITY: Value("100000"), "handled events that the memory store remembers", whole(1, 100_000_000);
    IDEMPOTENCY_KEY_PREFIX: Value("reservation-worker:"), "begins each key in the shared store",
        Told("1 to 64 printable ASCII characters without spaces");
    SHARED_ORDER: Fallback::Told("true where the store is shared and the queue is not FIFO"), "whether the pods that share a store work on one event of a reservation at a time, the one sent first next", OneOf(&["true", "false"]);
    SHUTDOWN_GRACE: Value("25"), "seconds for the whole exit",
        Allowed::Whole { min: 3, max: 900, also: "at least SQS_WAIT_TIME + 3" };
    SERVER_PORT: Value("8040"), "admin port: metrics, health and the status page", whole(1, 65_535);
    STATUS_PAGE: Value("local"), "who may see /status: this machine, whoever calls the port by an IP address, or nobody", OneOf(&["local", "open", "off"]);
    LOG_LEVEL: Value("info"), "the least severe log lines that are written", OneOf(&["debug", "info", "warn", "error"]);
    LOG_FORMAT: Fallback::Told("json, or pretty on a terminal"), "how log lines look", OneOf(&["json", "pretty"]);
    NO_COLOR: Fallback::Told("colours on a terminal"), "switches colours off in pretty logs", Told("any text");
    OTEL_EXPORTER_OTLP_ENDPOINT: Value("http://otel-collector:4317"), "the collector; over HTTP, port 4318 by default, and /v1/traces is added to the path",
        ENDPOINT, with_login;
    OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: ALL_SIGNALS, "the collector of traces; over HTTP, used as it is", ENDPOINT, with_login;
    OTEL_EXPORTER_OTLP_INSECURE: Value("true"), "whether an endpoint without a scheme is http (true) or https (false)", OneOf(&["true", "false"]);
    OTEL_EXPORTER_OTLP_TRACES_INSECURE: ALL_SIGNALS, "the same of the endpoint that traces use", OneOf(&["true", "false"]);
    OTEL_EXPORTER_OTLP_PROTOCOL: Value("grpc"), "how the collector is spoken to", OTLP_PROTOCOLS;
    OTEL_EXPORTER_OTLP_TRACES_PROTOCOL: ALL_SIGNALS, "how the collector of traces is spoken to", OTLP_PROTOCOLS;
    OTEL_EXPORTER_OTLP_HEADERS: Fallback::Told("none"), "headers for the collector; never shown", HEADERS, hidden;
    OTEL_EXPORTER_OTLP_TRACES_HEADERS: ALL_SIGNALS, "headers for the collector of traces; never shown", HEADERS, hidden;
    OTEL_EXPORTER_OTLP_TIMEOUT: Value("10000"), "what sending a batch may take, ms", whole(1, 600_000);
    OTEL_EXPORTER_OTLP_TRACES_TIMEOUT: ALL_SIGNALS, "what sending a batch of spans may take, ms", whole(1, 600_000);
    OTEL_EXPORTER_OTLP_COMPRESSION: Value("none"), "how batches are compressed", OneOf(&["none", "gzip"]);
    OTEL_EXPORTER_OTLP_TRACES_COMPRESSION: ALL_SIGNALS, "how batches of spans are compressed", OneOf(&["none", "gzip"]);
    OTEL_SDK_DISABLED: Value("false"), "switches the export of traces off", Told("true or false");
    OTEL_SERVICE_NAME: Fallback::Told("service.name of OTEL_RESOURCE_ATTRIBUTES, else reservation-worker"),
        "the service's name in traces", Told("any text");
    OTEL_RESOURCE_ATTRIBUTES: Fallback::Told("none"), "attributes of the service in traces",
        Told("key=value pairs, comma-separated, percent-encoded");
    OTEL_TRACES_SAMPLER: Value("parentbased_always_on"), "which traces are exported",
        OneOf(&["always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off", "parentbased_traceidratio"]);
    OTEL_TRACES_SAMPLER_ARG: Value("1.0"), "the share of traces, for the traceidratio samplers", Told("a number from 0 to 1");
    OTEL_TRACES_EXPORTER: Value("otlp"), "how traces are exported", OneOf(&["otlp", "none"]);
    OTEL_PROPAGATORS: Value("tracecontext,baggage"), "which trace headers are read and passed on",
        Told("none, or any of tracecontext, baggage, xray, comma-separated");
}
