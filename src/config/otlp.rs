//! The connection to the collector, as OpenTelemetry defines it ("OTLP Exporter Configuration").
//!
//! A variable for traces has priority over the variable for all signals. Wrong values are refused,
//! not ignored: missing spans would be noticed too late. If nothing is exported, no value is
//! checked.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::percent_decode_str;
use url::Url;

use super::address;
use super::raw::Raw;
use super::read::Reader;
use super::table::{self, Variable};

/// The default endpoint for HTTP; the table has the default for gRPC.
const HTTP_ENDPOINT: &str = "http://otel-collector:4318";

/// The path that OpenTelemetry appends to an endpoint for all signals.
const TRACES_PATH: &str = "/v1/traces";

/// The connection to the collector.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpConfig {
    /// The endpoint; for HTTP, with the path for POST requests.
    pub endpoint: Url,
    /// The transport settings.
    pub transport: OtlpTransport,
}

/// The transport settings of the exporter.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpTransport {
    /// The protocol.
    pub protocol: OtlpProtocol,
    /// The headers of each export request, marked as sensitive so that `Debug` hides the values.
    pub headers: HeaderMap,
    /// The timeout for one batch, retries included.
    pub timeout: Duration,
    /// Whether batches are compressed with gzip.
    pub gzip: bool,
}

impl Default for OtlpTransport {
    fn default() -> Self {
        Self {
            protocol: OtlpProtocol::Grpc,
            headers: HeaderMap::new(),
            timeout: Duration::from_secs(10),
            gzip: false,
        }
    }
}

/// A protocol of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// OTLP over gRPC.
    Grpc,
    /// OTLP over HTTP/1.1, encoded as protobuf.
    HttpProtobuf,
}

/// A variable of the table and the value given for it.
type GivenOtlp<'a> = (&'a Variable, &'a Option<String>);

pub(super) fn read(reader: &mut Reader, raw: &Raw, is_exported: bool) -> Option<OtlpConfig> {
    let own_endpoint =
        (&table::OTEL_EXPORTER_OTLP_TRACES_ENDPOINT, &raw.otel_exporter_otlp_traces_endpoint);
    let endpoint = (&table::OTEL_EXPORTER_OTLP_ENDPOINT, &raw.otel_exporter_otlp_endpoint);
    let protocol = [
        (&table::OTEL_EXPORTER_OTLP_TRACES_PROTOCOL, &raw.otel_exporter_otlp_traces_protocol),
        (&table::OTEL_EXPORTER_OTLP_PROTOCOL, &raw.otel_exporter_otlp_protocol),
    ];
    let headers = [
        (&table::OTEL_EXPORTER_OTLP_TRACES_HEADERS, &raw.otel_exporter_otlp_traces_headers),
        (&table::OTEL_EXPORTER_OTLP_HEADERS, &raw.otel_exporter_otlp_headers),
    ];
    let timeout = [
        (&table::OTEL_EXPORTER_OTLP_TRACES_TIMEOUT, &raw.otel_exporter_otlp_traces_timeout),
        (&table::OTEL_EXPORTER_OTLP_TIMEOUT, &raw.otel_exporter_otlp_timeout),
    ];
    let compression = [
        (&table::OTEL_EXPORTER_OTLP_TRACES_COMPRESSION, &raw.otel_exporter_otlp_traces_compression),
        (&table::OTEL_EXPORTER_OTLP_COMPRESSION, &raw.otel_exporter_otlp_compression),
    ];
    let insecure = [
        (&table::OTEL_EXPORTER_OTLP_TRACES_INSECURE, &raw.otel_exporter_otlp_traces_insecure),
        (&table::OTEL_EXPORTER_OTLP_INSECURE, &raw.otel_exporter_otlp_insecure),
    ];
    if !is_exported {
        for given in
            [[own_endpoint, endpoint], insecure, protocol, headers, timeout, compression].concat()
        {
            reader.unread(given.0, given.1);
        }
        return None;
    }
    raw.unsupported.iter().for_each(|name| reader.unsupported(name));
    let (variable, given) = used(reader, insecure);
    let is_insecure =
        reader.parsed(variable, given, |value| value.to_ascii_lowercase().parse().ok());
    let (variable, given) = used(reader, protocol);
    let protocol =
        reader.parsed(variable, given, |value| match value.to_ascii_lowercase().as_str() {
            "grpc" => Some(OtlpProtocol::Grpc),
            "http/protobuf" => Some(OtlpProtocol::HttpProtobuf),
            _ => None,
        });
    let endpoint = read_endpoint(reader, [own_endpoint, endpoint], protocol, is_insecure);
    let (variable, given) = used(reader, headers);
    let headers = match given.as_deref() {
        None | Some("") => {
            reader.unread(variable, given);
            Some(HeaderMap::new())
        }
        Some(_) => reader.parsed(variable, given, parse_headers),
    };
    let (variable, given) = used(reader, timeout);
    let timeout = reader.millis(variable, given);
    let (variable, given) = used(reader, compression);
    let gzip = reader.parsed(variable, given, |value| match value.to_ascii_lowercase().as_str() {
        "none" => Some(false),
        "gzip" => Some(true),
        _ => None,
    });
    let transport =
        OtlpTransport { protocol: protocol?, headers: headers?, timeout: timeout?, gzip: gzip? };
    Some(OtlpConfig { endpoint: endpoint?, transport })
}

/// Returns the variable for traces if it is set, else the one for all signals.
///
/// The other variable is shown but not checked.
fn used<'a>(reader: &mut Reader, [own, all]: [GivenOtlp<'a>; 2]) -> GivenOtlp<'a> {
    let is_own = own.1.as_ref().is_some_and(|value| !value.is_empty());
    let (used, other) = if is_own { (own, all) } else { (all, own) };
    reader.unread(other.0, other.1);
    used
}

fn read_endpoint(
    reader: &mut Reader,
    [own, all]: [GivenOtlp<'_>; 2],
    protocol: Option<OtlpProtocol>,
    is_insecure: Option<bool>,
) -> Option<Url> {
    let is_http = protocol == Some(OtlpProtocol::HttpProtobuf);
    let (variable, given) = used(reader, [own, all]);
    let is_own = std::ptr::eq(variable, own.0);
    let default = Some(HTTP_ENDPOINT.to_owned()).filter(|_| is_http && given.is_none());
    let given = if default.is_some() { &default } else { given };
    let mut url = reader
        .parsed(variable, given, |text| address::collector(text, is_insecure.unwrap_or(true)))?;
    // An endpoint for traces is used unchanged; only the one for all signals gets the path.
    if is_http && !is_own {
        let path = format!("{}{TRACES_PATH}", url.path().trim_end_matches('/'));
        url.set_path(&path);
    }
    Some(url)
}

/// Parses `name=value,name=value`, percent-encoded like W3C baggage.
fn parse_headers(text: &str) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=')?;
        let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let mut value = HeaderValue::from_str(&value).ok()?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Some(headers)
}
