//! The trace context that a body itself carries: only checked and put in one form here. Which of a message's contexts counts,
//! and what is done with it, is left to telemetry.

use super::wire::{Key, Layer, Value};

/// What one layer, or all layers around it, say about the trace.
#[derive(Clone, Debug, Default)]
pub(super) struct TraceContext {
    trace_parent: Option<Box<str>>,
    trace_id: Option<Box<str>>,
}

impl TraceContext {
    /// This context with that of a layer further in, which wins.
    pub(super) fn inside(self, layer: &Layer<'_>) -> Self {
        let found = |key: Key, read: fn(&str) -> Option<Box<str>>| match layer.get(key) {
            Value::Text(text) => read(text),
            Value::Absent | Value::Integer(_) | Value::Other(_) => None,
        };
        Self {
            trace_parent: found(Key::Traceparent, trace_parent)
                .or_else(|| found(Key::TraceId, trace_parent))
                .or(self.trace_parent),
            trace_id: found(Key::TraceId, trace_id).or(self.trace_id),
        }
    }

    /// The `traceparent` found; where there is only a trace id, one made of it.
    ///
    /// A parent's id must not be zero (W3C Trace Context, 3.2.2.4), and a trace id alone names no parent. Its own last half (the first,
    /// where that is zero) stands in: it is no real span, but the trace is joined, and the same message always gets the same one.
    /// It is marked as sampled: the producer had a trace to tell of.
    pub(super) fn into_trace_parent(self) -> Option<Box<str>> {
        self.trace_parent.or_else(|| {
            let id = self.trace_id?;
            let (first, last) = id.split_at(16);
            let parent = if is_zero(last) { first } else { last };
            Some(format!("00-{id}-{parent}-01").into())
        })
    }
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
