//! The OpenTelemetry variables, read by the rules of its specification.
//!
//! Source: "Environment Variable Specification", SDK configuration. A value that is not understood
//! causes a warning and is ignored, so that tracing never stops the worker. A known but unsupported
//! value is refused. The settings of the collector must be valid (`otlp`). The telemetry module
//! uses the settings.

use percent_encoding::percent_decode_str;

use super::otlp::{self, OtlpConfig};
use super::raw::Raw;
use super::read::Reader;
use super::table;

/// Settings of trace export and sampling.
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryConfig {
    /// The connection to the collector; `None` if nothing is exported.
    ///
    /// Nothing is exported if `OTEL_SDK_DISABLED` is true or `OTEL_TRACES_EXPORTER` is none.
    pub otlp: Option<OtlpConfig>,
    /// `OTEL_SERVICE_NAME`, else the resource attribute `service.name`, else `reservation-worker`.
    pub service_name: String,
    /// `OTEL_RESOURCE_ATTRIBUTES`, decoded, without `service.name`.
    pub resource_attributes: Vec<(String, String)>,
    /// `OTEL_TRACES_SAMPLER` with its argument.
    pub sampler: Sampler,
    /// `OTEL_PROPAGATORS`.
    pub propagators: Propagators,
}

/// The sampler: which traces are sampled.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// The sampler for traces without a parent, or for all traces if not parent-based.
    pub root: RootSampler,
    /// Whether the parent's sampling decision is used.
    pub is_parent_based: bool,
}

/// The sampler for a trace without regard to a parent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RootSampler {
    /// Samples all traces.
    AlwaysOn,
    /// Samples no traces.
    AlwaysOff,
    /// Samples this share of traces, from 0 to 1, by trace id.
    TraceIdRatio(f64),
}

/// The headers that carry the trace context between services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagators {
    /// W3C `traceparent` and `tracestate`.
    pub trace_context: bool,
    /// W3C `baggage`.
    pub baggage: bool,
    /// X-Ray's `X-Amzn-Trace-Id`, and the sampling decision in `AWSTraceHeader`.
    pub xray: bool,
}

impl Propagators {
    /// No headers.
    pub const NONE: Self = Self { trace_context: false, baggage: false, xray: false };
}

impl Default for Propagators {
    fn default() -> Self {
        Self { trace_context: true, baggage: true, xray: false }
    }
}

const SERVICE_NAME: &str = "reservation-worker";
const SERVICE_NAME_KEY: &str = "service.name";

pub(super) fn read(reader: &mut Reader, raw: &Raw) -> Option<TelemetryConfig> {
    let is_disabled = is_disabled(reader, &raw.otel_sdk_disabled);
    let has_exporter = has_exporter(reader, &raw.otel_traces_exporter);
    let is_exported = !is_disabled && has_exporter;
    let otlp = otlp::read(reader, raw, is_exported);
    let mut resource_attributes = resource_attributes(reader, &raw.otel_resource_attributes);
    let given_name = reader.text(&table::OTEL_SERVICE_NAME, &raw.otel_service_name);
    let attribute_name = resource_attributes
        .iter()
        .rposition(|(key, _)| key == SERVICE_NAME_KEY)
        .map(|index| resource_attributes.swap_remove(index).1);
    resource_attributes.retain(|(key, _)| key != SERVICE_NAME_KEY);
    let service_name = given_name.map(str::to_owned).or(attribute_name);
    let sampler = sampler(reader, raw);
    let propagators = propagators(reader, &raw.otel_propagators);
    // If export is enabled and `otlp` is `None`, an error is recorded already.
    (otlp.is_some() || !is_exported).then(|| TelemetryConfig {
        otlp,
        service_name: service_name.unwrap_or_else(|| SERVICE_NAME.to_owned()),
        resource_attributes,
        sampler,
        propagators,
    })
}

/// Returns the comma-separated words of a list, trimmed.
fn words(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|word| !word.is_empty())
}

/// Returns whether the SDK is disabled: only `true` is; other values than `false` cause a warning.
fn is_disabled(reader: &mut Reader, given: &Option<String>) -> bool {
    let variable = &table::OTEL_SDK_DISABLED;
    let value = reader.text(variable, given).unwrap_or("false");
    if !value.eq_ignore_ascii_case("true") && !value.eq_ignore_ascii_case("false") {
        reader.ignored(variable, value, "false holds");
    }
    value.eq_ignore_ascii_case("true")
}

fn has_exporter(reader: &mut Reader, given: &Option<String>) -> bool {
    let variable = &table::OTEL_TRACES_EXPORTER;
    let value = reader.text(variable, given).unwrap_or_default();
    let (mut is_otlp, mut is_none) = (false, false);
    for word in words(value) {
        match word.to_ascii_lowercase().as_str() {
            "otlp" => is_otlp = true,
            "none" => is_none = true,
            _ => reader.ignored(variable, word, "the rest holds, or else otlp"),
        }
    }
    is_otlp || !is_none
}

/// Parses `key=value,key=value`, percent-encoded like W3C baggage.
///
/// One fault discards the whole value, as the specification requires.
fn resource_attributes(reader: &mut Reader, given: &Option<String>) -> Vec<(String, String)> {
    let variable = &table::OTEL_RESOURCE_ATTRIBUTES;
    let Some(value) = reader.text(variable, given) else {
        return Vec::new();
    };
    let decode = |text: &str| {
        let decoded = percent_decode_str(text.trim()).decode_utf8();
        decoded.ok().map(std::borrow::Cow::into_owned)
    };
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        Some((decode(key).filter(|key| !key.is_empty())?, decode(value)?))
    };
    let pairs: Option<Vec<_>> = words(value).map(pair).collect();
    pairs.unwrap_or_else(|| {
        reader.ignored(variable, value, "no attributes are added");
        Vec::new()
    })
}

fn sampler(reader: &mut Reader, raw: &Raw) -> Sampler {
    let ratio = ratio(reader, &raw.otel_traces_sampler_arg);
    let variable = &table::OTEL_TRACES_SAMPLER;
    let given = reader.text(variable, &raw.otel_traces_sampler).unwrap_or_default();
    let name = given.to_ascii_lowercase();
    let (is_parent_based, root_name) = match name.strip_prefix("parentbased_") {
        Some(root_name) => (true, root_name),
        None => (false, name.as_str()),
    };
    let root = match root_name {
        "always_on" => RootSampler::AlwaysOn,
        "always_off" => RootSampler::AlwaysOff,
        "traceidratio" => RootSampler::TraceIdRatio(ratio),
        _ => {
            reader.ignored(variable, given, "parentbased_always_on holds");
            return Sampler { root: RootSampler::AlwaysOn, is_parent_based: true };
        }
    };
    Sampler { root, is_parent_based }
}

fn ratio(reader: &mut Reader, given: &Option<String>) -> f64 {
    let variable = &table::OTEL_TRACES_SAMPLER_ARG;
    let Some(value) = reader.text(variable, given) else {
        return 1.0;
    };
    match value.parse::<f64>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
        Ok(_) | Err(_) => {
            reader.ignored(variable, value, "1.0 holds");
            1.0
        }
    }
}

fn propagators(reader: &mut Reader, given: &Option<String>) -> Propagators {
    let variable = &table::OTEL_PROPAGATORS;
    let value = reader.text(variable, given).unwrap_or_default();
    let (mut found, mut none) = (Propagators::NONE, false);
    for word in words(value) {
        match word.to_ascii_lowercase().as_str() {
            "tracecontext" => found.trace_context = true,
            "baggage" => found.baggage = true,
            "xray" => found.xray = true,
            "none" => none = true,
            // Ignoring them would break traces without a visible error.
            "b3" | "b3multi" | "jaeger" | "ottrace" => {
                let allowed = format!("{}; {word} is not supported", variable.allowed);
                reader.wrong(variable, value, allowed);
            }
            _ => reader.ignored(variable, word, "the rest holds, or else tracecontext,baggage"),
        }
    }
    if found == Propagators::NONE && !none { Propagators::default() } else { found }
}
