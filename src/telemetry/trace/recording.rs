//! A span of any kind while it is recorded, until it is passed to the exporter.

use std::borrow::Cow;
use std::time::SystemTime;

use opentelemetry::trace::{SpanContext, SpanId, SpanKind, Status};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use super::Tracing;

/// Maximum length of an error message in characters.
const MESSAGE_CHARS_MAX: usize = 256;
/// The error type of a span that is dropped before its end.
const ABANDONED: &str = "abandoned";

/// Failure recorded in a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanFailure<'a> {
    /// Value of `error.type`, from a fixed set.
    pub error_type: &'a str,
    /// Short description for operators; never contains a message body.
    pub message: &'a str,
}

/// Initial values of a recorded span.
pub(super) struct Begin {
    pub(super) context: SpanContext,
    pub(super) parent: Option<SpanId>,
    pub(super) parent_is_remote: bool,
    pub(super) kind: SpanKind,
    pub(super) name: Cow<'static, str>,
    pub(super) at: SystemTime,
    pub(super) attributes: Vec<KeyValue>,
}

/// A span during recording. Its owners box it, so that events without recording stay small.
#[derive(Debug)]
pub(super) struct Recording {
    pub(super) tracing: Tracing,
    /// `None` after it was passed to the exporter.
    pub(super) data: Option<SpanData>,
}

impl Recording {
    pub(super) fn begin(tracing: &Tracing, begin: Begin) -> Box<Self> {
        let data = SpanData {
            span_context: begin.context,
            parent_span_is_remote: begin.parent.is_some() && begin.parent_is_remote,
            parent_span_id: begin.parent.unwrap_or(SpanId::INVALID),
            span_kind: begin.kind,
            name: begin.name,
            start_time: begin.at,
            end_time: begin.at,
            attributes: begin.attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: tracing.scope(),
        };
        Box::new(Self { tracing: tracing.clone(), data: Some(data) })
    }

    pub(super) fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(data) = &mut self.data {
            data.attributes.push(KeyValue::new(key, value));
        }
    }

    pub(super) fn link(&mut self, links: SpanLinks) {
        if let Some(data) = &mut self.data {
            data.links = links;
        }
    }

    pub(super) fn finish(&mut self, failure: Option<SpanFailure<'_>>) {
        if let Some(failure) = failure {
            self.set("error.type", failure.error_type.to_owned());
        }
        let Some(mut data) = self.data.take() else {
            return;
        };
        if let Some(failure) = failure {
            let message: String = failure.message.chars().take(MESSAGE_CHARS_MAX).collect();
            data.status = Status::error(message);
        }
        // If the clock was set back, the end time must not be before the start time.
        data.end_time = SystemTime::now().max(data.start_time);
        self.tracing.export(data);
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if self.data.is_some() {
            self.finish(Some(SpanFailure { error_type: ABANDONED, message: ABANDONED }));
        }
    }
}
