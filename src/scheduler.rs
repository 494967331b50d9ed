//! Makes delayed and parked jobs ready. The in-flight table and the circuit breakers decide when.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::inflight::InFlight;
use crate::outage::{Dependency, Due, Outages};

/// Jobs buffered per permitted call of a service, or per worker. A buffered job is not available to
/// other processes. Four jobs per worker cover a receive of 20 ms even if an event takes only 5 ms.
pub const BUFFERED_PER_CALL: usize = 4;

/// Unparks jobs as fast as the circuit breakers allow, and sets the size of the buffer.
///
/// The buffer holds [`BUFFERED_PER_CALL`] times the smallest in-flight limit of the services, or
/// times `workers` if that is smaller.
pub async fn wake_parked(
    inflight: Arc<InFlight>,
    outages: Arc<Outages>,
    workers: Arc<AtomicUsize>,
    stop: CancellationToken,
) {
    loop {
        let now = Instant::now();
        let mut next: Option<Instant> = None;
        for dependency in Dependency::all() {
            let (due, again) = outages.due(dependency, inflight.parked(dependency), now);
            match due {
                Due::Calls(0) => {}
                Due::Calls(count) => inflight.unpark(dependency, count),
                Due::Probe => inflight.unpark_any(dependency),
            }
            inflight.set_away(dependency, outages.is_away(dependency));
            next = [next, again].into_iter().flatten().min();
        }
        inflight.set_rationed(outages.is_rationed());
        inflight.set_buffer_max(
            outages.smallest_limit().min(workers.load(Ordering::Relaxed)) * BUFFERED_PER_CALL,
        );
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = outages.changed() => {}
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
        }
    }
}

/// Makes jobs ready when their delay has elapsed.
pub async fn wake_waiting(inflight: Arc<InFlight>, stop: CancellationToken) {
    loop {
        let next = inflight.wake_due(Instant::now());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = inflight.timers_changed() => {}
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}
