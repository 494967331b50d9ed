//! The environment as text: one field per variable of the table, filled by `envy`.
//!
//! Nothing is required or parsed here, so that all faults can be found before any is reported.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::table::VARIABLES;

/// The text of each variable, as given.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Raw {
    pub(super) sqs_queue_url: Option<String>,
    pub(super) inventory_grpc_addr: Option<String>,
    pub(super) reservation_api_base: Option<String>,
    pub(super) sqs_wait_time: Option<String>,
    pub(super) sqs_visibility_timeout: Option<String>,
    pub(super) sqs_dlq_url: Option<String>,
    pub(super) worker_concurrency: Option<String>,
    pub(super) concurrency_min: Option<String>,
    pub(super) max_in_flight: Option<String>,
    pub(super) max_in_flight_mb: Option<String>,
    pub(super) worker_threads: Option<String>,
    pub(super) max_retries: Option<String>,
    pub(super) backoff_base_ms: Option<String>,
    pub(super) backoff_max_ms: Option<String>,
    pub(super) inventory_timeout_ms: Option<String>,
    pub(super) reservation_timeout_ms: Option<String>,
    pub(super) inventory_latency_target_ms: Option<String>,
    pub(super) reservation_latency_target_ms: Option<String>,
    pub(super) inventory_ca_file: Option<String>,
    pub(super) inventory_client_cert_file: Option<String>,
    pub(super) inventory_key_file: Option<String>,
    pub(super) inventory_token_file: Option<String>,
    pub(super) reservation_api_ca_file: Option<String>,
    pub(super) reservation_api_client_cert_file: Option<String>,
    pub(super) reservation_api_key_file: Option<String>,
    pub(super) reservation_api_token_file: Option<String>,
    pub(super) idempotency_store: Option<String>,
    pub(super) idempotency_store_auth: Option<String>,
    pub(super) idempotency_store_password_file: Option<String>,
    pub(super) idempotency_store_aws_cache: Option<String>,
    pub(super) idempotency_store_ca_file: Option<String>,
    pub(super) idempotency_store_client_cert_file: Option<String>,
    pub(super) idempotency_store_key_file: Option<String>,
    pub(super) idempotency_ttl: Option<String>,
    pub(super) idempotency_capacity: Option<String>,
    pub(super) idempotency_key_prefix: Option<String>,
    pub(super) shared_order: Option<String>,
    pub(super) shutdown_grace: Option<String>,
    pub(super) server_port: Option<String>,
    pub(super) status_page: Option<String>,
    pub(super) log_level: Option<String>,
    pub(super) log_format: Option<String>,
    pub(super) no_color: Option<String>,
    pub(super) otel_exporter_otlp_endpoint: Option<String>,
    pub(super) otel_exporter_otlp_traces_endpoint: Option<String>,
    pub(super) otel_exporter_otlp_insecure: Option<String>,
    pub(super) otel_exporter_otlp_traces_insecure: Option<String>,
    pub(super) otel_exporter_otlp_protocol: Option<String>,
    pub(super) otel_exporter_otlp_traces_protocol: Option<String>,
    pub(super) otel_exporter_otlp_headers: Option<String>,
    pub(super) otel_exporter_otlp_traces_headers: Option<String>,
    pub(super) otel_exporter_otlp_timeout: Option<String>,
    pub(super) otel_exporter_otlp_traces_timeout: Option<String>,
    pub(super) otel_exporter_otlp_compression: Option<String>,
    pub(super) otel_exporter_otlp_traces_compression: Option<String>,
    pub(super) otel_sdk_disabled: Option<String>,
    pub(super) otel_service_name: Option<String>,
    pub(super) otel_resource_attributes: Option<String>,
    pub(super) otel_traces_sampler: Option<String>,
    pub(super) otel_traces_sampler_arg: Option<String>,
    pub(super) otel_traces_exporter: Option<String>,
    pub(super) otel_propagators: Option<String>,
    /// Variables that are set and that OpenTelemetry defines, but that are not supported here.
    #[serde(skip)]
    pub(super) unsupported: Vec<&'static str>,
}

impl Raw {
    /// Takes the table's variables out of `vars`; empty counts as not set.
    ///
    /// If a name occurs twice, the last value is used.
    pub(super) fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Self {
        let vars: BTreeMap<String, String> = vars.into_iter().collect();
        let set = vars.iter().filter(|(_, value)| !value.is_empty());
        let unsupported = unsupported(set.map(|(name, _)| name.as_str()));
        // `envy` ignores the case of names, so `path` and `PATH` would clash: only exact names are
        // passed.
        let known: BTreeMap<String, String> = vars
            .into_iter()
            .filter(|(name, _)| VARIABLES.iter().any(|variable| variable.name == name))
            .collect();
        let set = known.into_iter().filter(|(_, value)| !value.is_empty());
        let raw = envy::from_iter(set);
        let raw = raw.expect("every field is optional text, and no name comes twice");
        Self { unsupported, ..raw }
    }
}

/// OTLP variables that OpenTelemetry defines and this worker does not support.
const UNSUPPORTED: &[&str] = &[
    "OTEL_EXPORTER_OTLP_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
    "OTEL_EXPORTER_OTLP_CLIENT_KEY",
    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY",
];

/// Returns the unsupported OTLP variables among the names.
fn unsupported<'n>(names: impl Iterator<Item = &'n str>) -> Vec<&'static str> {
    names.filter_map(|name| UNSUPPORTED.iter().copied().find(|known| *known == name)).collect()
}
