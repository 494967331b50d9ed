//! What every log line about a held event says of it.

/// Logs a line about a [`Job`](super::Job) at `$level`: the event's type, its reservation and its trace, then the fields and the
/// message given, written as for the macros of `tracing`.
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
