//! Bounds of a limit, and how it follows other bounds.

use std::mem;

use super::{Limit, as_f64};

/// Bounds of a limit.
#[derive(Clone, Copy, Debug)]
pub(in crate::outage) struct Bounds {
    pub(in crate::outage) min: f64,
    pub(in crate::outage) max: f64,
}

impl Bounds {
    /// Creates bounds with `min` at most `max`, and both at least 1.
    pub(in crate::outage) fn new(min: usize, max: usize) -> Self {
        let max = as_f64(max.max(1));
        Self { min: as_f64(min.max(1)).min(max), max }
    }

    pub(super) fn clamp(self, value: f64) -> f64 {
        value.clamp(self.min, self.max)
    }
}

impl Limit {
    /// Sets new bounds. A limit at its maximum follows the maximum, by a slow start. One that the
    /// bounds cut goes back to what it was when they no longer do.
    pub(in crate::outage) fn set_bounds(&mut self, bounds: Bounds) {
        let before = mem::replace(&mut self.bounds, bounds);
        let goal = self.slow_start.unwrap_or(self.value);
        let is_full = goal >= before.max;
        let goal = match self.uncut.take() {
            Some(uncut) if is_full => uncut,
            None if is_full => f64::INFINITY,
            Some(_) | None => goal,
        };
        let up_to = bounds.clamp(goal);
        self.uncut = (goal > up_to).then_some(goal);
        self.value = bounds.clamp(self.value.min(up_to));
        self.slow_start = (self.value < up_to).then_some(up_to);
    }
}
