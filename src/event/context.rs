//! The fields that the envelopes around an event give it.

use super::json_object::Value;
use super::trace::TraceContext;

/// The fields of the envelopes opened so far; the nearest one has priority.
#[derive(Clone, Default)]
pub(super) struct EnvelopeContext<'a> {
    pub(super) id: Value<'a>,
    pub(super) type_name: Value<'a>,
    pub(super) trace: TraceContext,
    /// The identity of an event that has none of its own.
    pub(super) message_id: &'a str,
}
