//! What operators see of the table.

use tokio::time::Instant;

use super::InFlight;
use super::state::{HeldEvent, Overview};
use crate::event::EventId;

impl InFlight {
    /// Counts the held events by state, and returns the `oldest_max` oldest.
    ///
    /// Holds the lock while it looks at each held event once, which takes about a millisecond for
    /// 20,000: call it at most once a second. `now` is a time of [`crate::clock`].
    pub fn overview(&self, oldest_max: usize, now: Instant) -> Overview {
        self.lock().overview(oldest_max, now)
    }

    /// Returns the held event with this id.
    pub fn held_event(&self, id: &EventId, now: Instant) -> Option<HeldEvent> {
        self.lock().held_event_of(id, now)
    }
}
