//! Parses the W3C `traceparent`, and reads the trace context in a body.
//!
//! The intake decides which context of a message is used, and telemetry how.

use std::fmt;

use super::json_object::{self, JsonObject, Key, Value};

/// The maximum length of `tracestate` that is kept, in bytes.
///
/// The grammar truncates or refuses a longer one (W3C Trace Context, 3.3.1.5).
const STATE_BYTES_MAX: usize = 512;

/// The maximum length of `baggage`, in bytes; a longer one may be dropped (W3C Baggage, 3.3.2).
const BAGGAGE_BYTES_MAX: usize = 8192;

/// The content of a W3C `traceparent`; `Display` writes it as version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct W3cParent {
    /// The trace id; not zero.
    pub trace_id: u128,
    /// The id of the parent span; not zero.
    pub span_id: u64,
    /// The flags, as given.
    pub flags: u8,
}

/// The flag of a trace that its sender records.
const SAMPLED: u8 = 1;

impl W3cParent {
    /// Parses a `traceparent` of any version by the rules of version 00.
    ///
    /// Later versions may only append (W3C Trace Context, 3.2 and 4.3). `None` for wrong lengths,
    /// upper case, version `ff` and zero ids.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let mut next = |digits| lower_hex(parts.next()?, digits);
        let (version, trace_id, span_id, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
        let ends = version != 0 || parts.next().is_none();
        let fits = ends && version != 0xff && trace_id != 0 && span_id != 0;
        let (span_id, flags) = (u64::try_from(span_id).ok()?, u8::try_from(flags).ok()?);
        fits.then_some(Self { trace_id, span_id, flags })
    }

    /// Returns whether the sender records the trace.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Builds a parent from a trace id alone.
    ///
    /// A parent id must not be zero (W3C Trace Context, 3.2.2.4). The last half of the trace id is
    /// used as parent id, or the first half if the last is zero. It is not a real span, but the
    /// message joins the trace, and the same message always gets the same parent. The trace is
    /// marked as sampled, because the producer had a trace.
    fn of_trace(trace_id: u128) -> Option<Self> {
        let halves = [trace_id & u128::from(u64::MAX), trace_id >> 64];
        let span_id = halves.into_iter().find(|half| *half != 0)?;
        Some(Self { trace_id, span_id: u64::try_from(span_id).ok()?, flags: SAMPLED })
    }
}

impl fmt::Display for W3cParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

/// The trace context in a body, used if the message's own attributes have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyTrace {
    /// The content of its `traceparent`.
    pub parent: W3cParent,
    /// The `tracestate` next to it, unchanged.
    pub state: Option<Box<str>>,
    /// Whether it is from the attributes of an SNS notification.
    ///
    /// It then counts as an attribute of the message.
    pub is_attribute: bool,
}

/// The trace context of one object, or of all objects around it.
#[derive(Clone, Debug, Default)]
pub(super) struct TraceContext {
    attribute: Option<BodyTrace>,
    own: Option<BodyTrace>,
    trace_id: Option<u128>,
    /// The `baggage` in the attributes of a notification.
    pub(super) baggage: Option<Box<str>>,
}

impl TraceContext {
    /// Merges the context of an object further inside, which has priority.
    pub(super) fn inside(self, object: &JsonObject<'_>) -> Self {
        fn text<'v>(object: &'v JsonObject<'_>, key: Key) -> Option<&'v str> {
            match object.get(key) {
                Value::Text(text) => Some(text),
                Value::Absent | Value::Integer(_) | Value::Number(_) | Value::Other(_) => None,
            }
        }
        let id = text(object, Key::TraceId);
        let named = text(object, Key::Traceparent).and_then(W3cParent::parse);
        let own = named.or_else(|| id.and_then(W3cParent::parse)).map(|parent| BodyTrace {
            parent,
            state: text(object, Key::Tracestate).and_then(trace_state),
            is_attribute: false,
        });
        Self {
            attribute: self.attribute,
            own: own.or(self.own),
            trace_id: id.and_then(trace_id).or(self.trace_id),
            baggage: self.baggage,
        }
    }

    /// Merges the context in the `MessageAttributes` of a notification.
    ///
    /// Their form is `{"traceparent":{"Type":"String","Value":"00-..."}}`.
    pub(super) fn with_attributes(mut self, json: Option<&str>) -> Self {
        let value = |name: &str| {
            let attribute = json_object::member(json?, name)?;
            json_object::text_of(json_object::member(attribute.get(), "Value")?)
        };
        if let Some(parent) = value("traceparent").and_then(|text| W3cParent::parse(&text)) {
            let state = value("tracestate").and_then(|text| trace_state(&text));
            self.attribute = Some(BodyTrace { parent, state, is_attribute: true });
        }
        self.baggage = value("baggage").and_then(|text| baggage(&text)).or(self.baggage);
        self
    }

    /// Returns the context found; if there is only a trace id, one built from it.
    pub(super) fn into_trace(self) -> Option<BodyTrace> {
        self.attribute.or(self.own).or_else(|| {
            let parent = W3cParent::of_trace(self.trace_id?)?;
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

/// Parses exactly `digits` lower-case hexadecimal digits; at most 32.
fn lower_hex(text: &str, digits: usize) -> Option<u128> {
    let value = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let push = |number: u128, byte| Some(number << 4 | u128::from(value(byte)?));
    if text.len() == digits { text.bytes().try_fold(0, push) } else { None }
}

/// Parses a trace id of 32 hexadecimal digits, or in X-Ray's form `1-<8>-<24>`.
///
/// Both hold the same 128 bits (AWS X-Ray developer guide, "Trace ID format").
fn trace_id(text: &str) -> Option<u128> {
    let id = match text.strip_prefix("1-").and_then(|rest| rest.split_once('-')) {
        Some((epoch, rest)) if epoch.len() == 8 => format!("{epoch}{rest}"),
        Some(_) => return None,
        None => text.to_owned(),
    };
    lower_hex(&id.to_ascii_lowercase(), 32).filter(|id| *id != 0)
}
