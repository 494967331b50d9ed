//! The trace context that a body itself carries: only checked and put in one form here. Which of a message's contexts counts,
//! and what is done with it, is left to telemetry.

use super::wire::{self, Key, Layer, Value};

/// The longest `tracestate` that is kept: what is longer, its grammar cuts or refuses (W3C Trace Context, 3.3.1.5).
const STATE_BYTES_MAX: usize = 512;

/// The longest `baggage` that is kept: what is longer need not be passed on (W3C Baggage, 3.3.2).
const BAGGAGE_BYTES_MAX: usize = 8192;

/// The trace context that a body carries, for when the message's own attributes have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyTrace {
    /// A well-formed W3C `traceparent`.
    pub parent: Box<str>,
    /// The `tracestate` that stood beside it, as it is.
    pub state: Option<Box<str>>,
    /// It stood in the attributes of an SNS notification, and counts as a message's attribute does.
    pub is_attribute: bool,
}

/// What one layer, or all layers around it, say about the trace.
#[derive(Clone, Debug, Default)]
pub(super) struct TraceContext {
    attribute: Option<BodyTrace>,
    own: Option<BodyTrace>,
    trace_id: Option<Box<str>>,
    /// Of a notification's attributes.
    pub(super) baggage: Option<Box<str>>,
}

impl TraceContext {
    /// This context with that of a layer further in, which wins.
    pub(super) fn inside(self, layer: &Layer<'_>) -> Self {
        fn text<'v>(layer: &'v Layer<'_>, key: Key) -> Option<&'v str> {
            match layer.get(key) {
                Value::Text(text) => Some(text),
                Value::Absent | Value::Integer(_) | Value::Number(_) | Value::Other(_) => None,
            }
        }
        let id = text(layer, Key::TraceId);
        let named = text(layer, Key::Traceparent).and_then(trace_parent);
        let own = named.or_else(|| id.and_then(trace_parent)).map(|parent| BodyTrace {
            parent,
            state: text(layer, Key::Tracestate).and_then(trace_state),
            is_attribute: false,
        });
        Self {
            attribute: self.attribute,
            own: own.or(self.own),
            trace_id: id.and_then(trace_id).or(self.trace_id),
            baggage: self.baggage,
        }
    }

    /// This context with that of a notification's `MessageAttributes`: `{"traceparent":{"Type":"String","Value":"00-..."}}`.
    pub(super) fn with_attributes(mut self, json: Option<&str>) -> Self {
        let value = |name: &str, read: fn(&str) -> Option<Box<str>>| {
            let attribute = wire::member(json?, name)?;
            read(&wire::text_of(wire::member(attribute.get(), "Value")?)?)
        };
        if let Some(parent) = value("traceparent", trace_parent) {
            let state = value("tracestate", trace_state);
            self.attribute = Some(BodyTrace { parent, state, is_attribute: true });
        }
        self.baggage = value("baggage", baggage).or(self.baggage);
        self
    }

    /// The context found; where there is only a trace id, one made of it.
    ///
    /// A parent's id must not be zero (W3C Trace Context, 3.2.2.4), and a trace id alone names no parent. Its own last half (the first,
    /// where that is zero) stands in: it is no real span, but the trace is joined, and the same message always gets the same one.
    /// It is marked as sampled: the producer had a trace to tell of.
    pub(super) fn into_trace(self) -> Option<BodyTrace> {
        self.attribute.or(self.own).or_else(|| {
            let id = self.trace_id?;
            let (first, last) = id.split_at(16);
            let parent = if is_zero(last) { first } else { last };
            let parent = format!("00-{id}-{parent}-01").into();
            Some(BodyTrace { parent, state: None, is_attribute: false })
        })
    }
}

fn trace_state(text: &str) -> Option<Box<str>> {
    (!text.is_empty() && text.len() <= STATE_BYTES_MAX).then(|| text.into())
}

fn baggage(text: &str) -> Option<Box<str>> {
    (1..=BAGGAGE_BYTES_MAX).contains(&text.len()).then(|| text.into())
}

fn is_zero(hex: &str) -> bool {
    hex.bytes().all(|digit| digit == b'0')
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// A `traceparent` of any version, read as version 00 (W3C Trace Context, 3.2 and 4.3: later versions may only append).
fn trace_parent(text: &str) -> Option<Box<str>> {
    let mut parts = text.splitn(5, '-');
    let (version, id, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |part: &str, length: usize| part.len() == length && is_lower_hex(part);
    let fits = is_hex(version, 2)
        && version != "ff"
        && (version != "00" || parts.next().is_none())
        && is_hex(id, 32)
        && !is_zero(id)
        && is_hex(parent, 16)
        && !is_zero(parent)
        && is_hex(flags, 2);
    fits.then(|| format!("00-{id}-{parent}-{flags}").into())
}

/// A trace id of 32 hexadecimal digits, or in X-Ray's form, `1-<8>-<24>`, which holds the same 128 bits
/// (AWS X-Ray developer guide, "Trace ID format").
fn trace_id(text: &str) -> Option<Box<str>> {
    let id = match text.strip_prefix("1-").and_then(|rest| rest.split_once('-')) {
        Some((epoch, rest)) if epoch.len() == 8 => format!("{epoch}{rest}"),
        Some(_) => return None,
        None => text.to_owned(),
    }
    .to_ascii_lowercase();
    (id.len() == 32 && is_lower_hex(&id) && !is_zero(&id)).then(|| id.into())
}
