//! Counts of all calls since the last mark.

use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

/// Counts and sums since a mark.
#[derive(Debug)]
pub(super) struct Account {
    marked_at: Instant,
    /// Since the start, not since the mark.
    first_effect_at: Option<SystemTime>,
    last_effect_at: Option<SystemTime>,
    receives: u64,
    receives_empty: u64,
    received: u64,
    delete_calls: u64,
    change_calls: u64,
    other_calls: u64,
    deleted: u64,
    lost: u64,
    done_twice: u64,
    rest: Calls,
    rpc: Calls,
    /// Times of effects beyond the service calls, in microseconds: since visible, since received.
    since_visible_us: Vec<u32>,
    since_received_us: Vec<u32>,
}

/// The calls to one service.
#[derive(Debug, Default)]
struct Calls {
    count: u64,
    total: Duration,
}

impl Calls {
    fn mean_us(&self) -> f64 {
        if self.count == 0 {
            return 0.0;
        }
        self.total.as_secs_f64() * 1e6 / count(self.count)
    }
}

/// The kinds of SQS calls that are counted separately, each for one message or for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SqsCall {
    Delete,
    ChangeVisibility,
    Other,
}

/// The figures of an account.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figures {
    /// Seconds since the mark.
    pub elapsed_s: f64,
    /// Events whose last service call succeeded.
    pub effects: u64,
    /// Time of the first effect since the start, in seconds since 1970.
    pub first_effect_at_s: Option<f64>,
    /// Time of the last effect since the mark, in seconds since 1970.
    pub last_effect_at_s: Option<f64>,
    /// Received messages.
    pub received: u64,
    /// Deleted messages.
    pub deleted: u64,
    /// Messages that were deleted before their last service call.
    pub lost: u64,
    /// Last service calls that were repeated after they had succeeded.
    pub done_twice: u64,
    /// Messages received at any time and not yet deleted.
    pub unsettled: usize,
    /// Calls of `ReceiveMessage`, including empty ones.
    pub receives: u64,
    /// Receives without messages.
    pub receives_empty: u64,
    /// Calls of `DeleteMessage` and `DeleteMessageBatch`.
    pub delete_calls: u64,
    /// Calls of `ChangeMessageVisibility` and `ChangeMessageVisibilityBatch`.
    pub change_calls: u64,
    /// All other calls to SQS.
    pub other_calls: u64,
    /// Mean duration of a call to the Reservation API, in microseconds.
    pub rest_us: f64,
    /// Mean duration of a call to the Inventory service, in microseconds.
    pub rpc_us: f64,
    /// Time from visible to the last effect, less the service calls.
    pub since_visible: Spread,
    /// Time from received to the last effect, less the service calls.
    pub since_received: Spread,
}

/// Percentiles of times, in microseconds.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Spread {
    /// The median.
    pub p50_us: u32,
    /// The 99th percentile.
    pub p99_us: u32,
    /// The 99.9th percentile.
    pub p999_us: u32,
}

impl Spread {
    fn of(times_us: &[u32]) -> Self {
        let mut sorted = times_us.to_vec();
        sorted.sort_unstable();
        let at = |per_mille: usize| {
            let rank = (sorted.len() * per_mille).div_ceil(1000).max(1) - 1;
            sorted.get(rank).copied().unwrap_or(0)
        };
        Self { p50_us: at(500), p99_us: at(990), p999_us: at(999) }
    }
}

impl Default for Account {
    fn default() -> Self {
        Self {
            marked_at: Instant::now(),
            first_effect_at: None,
            last_effect_at: None,
            receives: 0,
            receives_empty: 0,
            received: 0,
            delete_calls: 0,
            change_calls: 0,
            other_calls: 0,
            deleted: 0,
            lost: 0,
            done_twice: 0,
            rest: Calls::default(),
            rpc: Calls::default(),
            since_visible_us: Vec::new(),
            since_received_us: Vec::new(),
        }
    }
}

impl Account {
    pub(super) fn mark(&mut self) {
        *self = Self { first_effect_at: self.first_effect_at, ..Self::default() };
    }

    pub(super) fn received(&mut self, messages: usize) {
        self.receives += 1;
        self.receives_empty += u64::from(messages == 0);
        self.received += u64::try_from(messages).expect("a reply has at most ten");
    }

    pub(super) fn called(&mut self, call: SqsCall) {
        match call {
            SqsCall::Delete => self.delete_calls += 1,
            SqsCall::ChangeVisibility => self.change_calls += 1,
            SqsCall::Other => self.other_calls += 1,
        }
    }

    /// Counts a deleted message, and whether its last service call had been made.
    pub(super) fn deleted(&mut self, is_done: bool) {
        self.deleted += 1;
        self.lost += u64::from(!is_done);
    }

    pub(super) fn done_again(&mut self) {
        self.done_twice += 1;
    }

    pub(super) fn rest(&mut self, took: Duration) {
        self.rest.count += 1;
        self.rest.total += took;
    }

    pub(super) fn rpc(&mut self, took: Duration) {
        self.rpc.count += 1;
        self.rpc.total += took;
    }

    pub(super) fn effect(&mut self, since_visible: Duration, since_received: Duration) {
        let now = SystemTime::now();
        self.first_effect_at.get_or_insert(now);
        self.last_effect_at = Some(now);
        self.since_visible_us.push(micros(since_visible));
        self.since_received_us.push(micros(since_received));
    }

    pub(super) fn figures(&self, unsettled: usize) -> Figures {
        let since_1970_s = |at: SystemTime| {
            at.duration_since(SystemTime::UNIX_EPOCH).ok().map(|since| since.as_secs_f64())
        };
        Figures {
            elapsed_s: self.marked_at.elapsed().as_secs_f64(),
            effects: u64::try_from(self.since_visible_us.len()).expect("usize fits into u64"),
            first_effect_at_s: self.first_effect_at.and_then(since_1970_s),
            last_effect_at_s: self.last_effect_at.and_then(since_1970_s),
            received: self.received,
            deleted: self.deleted,
            lost: self.lost,
            done_twice: self.done_twice,
            unsettled,
            receives: self.receives,
            receives_empty: self.receives_empty,
            delete_calls: self.delete_calls,
            change_calls: self.change_calls,
            other_calls: self.other_calls,
            rest_us: self.rest.mean_us(),
            rpc_us: self.rpc.mean_us(),
            since_visible: Spread::of(&self.since_visible_us),
            since_received: Spread::of(&self.since_received_us),
        }
    }
}

/// Converts a count for a division. Exact up to `u32::MAX`, more than a run counts.
pub(crate) fn count(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_taken_by_rank() {
        let times: Vec<u32> = (1..=1000).rev().collect();
        let Spread { p50_us, p99_us, p999_us } = Spread::of(&times);
        assert_eq!((p50_us, p99_us, p999_us), (500, 990, 999));
        assert_eq!(Spread::of(&[7]).p999_us, 7);
        assert_eq!(Spread::of(&[]).p50_us, 0);
    }

    #[test]
    fn a_mark_resets_all_counts_except_the_first_effect() {
        let mut account = Account::default();
        account.received(0);
        account.received(10);
        account.called(SqsCall::Delete);
        account.effect(Duration::from_micros(5), Duration::from_micros(3));
        account.rest(Duration::from_millis(5));
        let figures = account.figures(3);
        assert_eq!((figures.receives, figures.receives_empty, figures.received), (2, 1, 10));
        assert_eq!((figures.effects, figures.since_visible.p50_us, figures.unsettled), (1, 5, 3));
        assert!((figures.rest_us - 5_000.0).abs() < 1e-6);
        account.mark();
        let figures = account.figures(0);
        assert_eq!((figures.receives, figures.effects, figures.delete_calls), (0, 0, 0));
        assert!(figures.first_effect_at_s.is_some());
    }
}
