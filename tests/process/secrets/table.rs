//! Which variables may hold a secret, and which free texts may not.

use reservation_worker::config::{Allowed, VARIABLES};

/// What a variable holds.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Held {
    /// A URL that may have user and password.
    Url,
    /// A URL, of which a right value has neither user nor password.
    PlainUrl,
    /// The path of a file with a secret, or with what is nobody else's business.
    File,
    /// Headers, which may be a login.
    Headers,
}

/// The variables of the table that may hold a secret.
pub(super) const SECRETS: &[(&str, Held)] = &[
    ("SQS_QUEUE_URL", Held::PlainUrl),
    ("INVENTORY_GRPC_ADDR", Held::PlainUrl),
    ("RESERVATION_API_BASE", Held::PlainUrl),
    ("SQS_DLQ_URL", Held::PlainUrl),
    ("INVENTORY_CA_FILE", Held::File),
    ("INVENTORY_CLIENT_CERT_FILE", Held::File),
    ("INVENTORY_KEY_FILE", Held::File),
    ("INVENTORY_TOKEN_FILE", Held::File),
    ("RESERVATION_API_CA_FILE", Held::File),
    ("RESERVATION_API_CLIENT_CERT_FILE", Held::File),
    ("RESERVATION_API_KEY_FILE", Held::File),
    ("RESERVATION_API_TOKEN_FILE", Held::File),
    ("IDEMPOTENCY_STORE", Held::Url),
    ("IDEMPOTENCY_STORE_PASSWORD_FILE", Held::File),
    ("IDEMPOTENCY_STORE_CA_FILE", Held::File),
    ("IDEMPOTENCY_STORE_CLIENT_CERT_FILE", Held::File),
    ("IDEMPOTENCY_STORE_KEY_FILE", Held::File),
    ("OTEL_EXPORTER_OTLP_ENDPOINT", Held::Url),
    ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", Held::Url),
    ("OTEL_EXPORTER_OTLP_HEADERS", Held::Headers),
    ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", Held::Headers),
];

/// The free texts of the table that are no secrets, and why. Numbers and words of a fixed set are
/// none either.
const NO_SECRETS: &[(&str, &str)] = &[
    ("IDEMPOTENCY_STORE_AWS_CACHE", "a name, shown to be compared with AWS"),
    ("IDEMPOTENCY_KEY_PREFIX", "begins each key, by which operators look for them in the store"),
    ("NO_COLOR", "a switch: any text means yes"),
    ("OTEL_SDK_DISABLED", "a switch: true or false"),
    ("OTEL_SERVICE_NAME", "a name, which each trace has"),
    ("OTEL_RESOURCE_ATTRIBUTES", "names, which each trace has"),
    ("OTEL_TRACES_SAMPLER_ARG", "a number"),
    ("OTEL_PROPAGATORS", "words of a fixed set"),
];

#[test]
fn every_variable_that_may_hold_a_secret_is_planted() {
    for variable in VARIABLES {
        let name = variable.name;
        let is_planted = SECRETS.iter().any(|(planted, _)| *planted == name);
        let is_left_out = NO_SECRETS.iter().any(|(left_out, _)| *left_out == name);
        let is_free_text = matches!(variable.allowed, Allowed::Told(_));
        assert!(
            is_free_text == (is_planted != is_left_out) && !(is_planted && is_left_out),
            "{name}: plant a marker in it, or say why it is no secret"
        );
    }
}
