//! Logs and traces, and the little they share. Logs go through the `tracing` macros to [`log`]'s formatters; spans are
//! made with OpenTelemetry directly in [`trace`], so that a log line never pays for a span, nor a span for a log line.
//! Metrics are counted in [`crate::metrics`].

pub mod context;
pub mod log;
pub mod trace;

pub use self::context::TraceParent;
pub use self::log::{LogError, LogSettings, flush_logs, init_logging, install_panic_hook};
pub use self::trace::{
    CallEnd, CallSpan, CallStart, CallStatus, EventSpan, EventStart, Failure, QueueSpan,
    QueueSpans, Sampling, SpanLink, TraceError, TraceSettings, Tracing,
};
