//! Makes ready what has waited: for a time, or for a service. When that is, the table and the breakers say.

use std::sync::Arc;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::inflight::InFlight;
use crate::outage::{Dependency, Due, Outages};

/// Jobs that may be buffered for each call that a service is given, or each worker. What is buffered here, another
/// process cannot take; four jobs a worker bridge a receive of twenty milliseconds even where an event takes five.
pub const BUFFERED_PER_CALL: usize = 4;

/// The task that lets go what was parked, as fast as the breakers allow, and says how many jobs may be buffered: four
/// times as many as the service is given calls that is given the fewest, or as there are `workers`, if these are fewer.
pub async fn wake_parked(
    inflight: Arc<InFlight>,
    outages: Arc<Outages>,
    workers: usize,
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
        inflight.set_buffer_max(outages.smallest_limit().min(workers) * BUFFERED_PER_CALL);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = outages.changed() => {}
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => {}
        }
    }
}

/// The task that makes ready what has waited long enough.
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
