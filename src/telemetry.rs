//! Logs and traces.
//!
//! Log lines go through the `tracing` macros to the formatters in [`log`]. Spans are created with
//! OpenTelemetry directly in [`trace`]: a log line has no span overhead, and a span has no logging
//! overhead. Metrics are in [`crate::metrics`].

pub mod context;
mod limiter;
pub mod log;
pub mod trace;

pub use self::context::TraceParent;
pub use self::limiter::LogLimiter;
pub use self::log::{
    CHANGES_TARGET, LogError, LogSettings, flush_logs, init_logging, install_panic_hook,
    set_log_level,
};
pub use self::trace::{
    CallEnd, CallSpan, CallStart, CallStatus, EventSpan, EventStart, QueueSpan, QueueSpans,
    Sampling, SpanFailure, SpanLink, TraceError, TraceSettings, Tracing,
};
