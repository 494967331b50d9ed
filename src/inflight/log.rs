//! Common fields of all log lines about a held event.

/// Logs a line about a [`Job`](super::Job) at `$level`.
/// Logs the event's type, its reservation and its trace, then the given fields and message, in the
/// syntax of the macros of `tracing`.
macro_rules! log_job {
    ($level:ident, $job:expr, $($given:tt)+) => {
        ::tracing::$level!(
            event_type = $job.event.event_type().as_str(),
            reservation_id = $job.event.reservation_id.as_str(),
            trace_id = $job.span.trace_id(),
            $($given)+
        )
    };
}

pub(crate) use log_job;
