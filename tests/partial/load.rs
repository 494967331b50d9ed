//! The capacity of a service: a number of servers with one queue of calls, and a rate limit.
//!
//! A call whose client gives up keeps its place in the queue: it is served, and its response is
//! thrown away.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::plan::{Bucket, Stage};

/// The servers, by the time at which each becomes free.
#[derive(Debug, Default)]
pub(crate) struct Servers {
    free_at: BinaryHeap<Reverse<Duration>>,
    stages: Vec<Stage>,
}

impl Servers {
    pub(crate) fn new(stages: &[Stage]) -> Self {
        Self { free_at: BinaryHeap::new(), stages: stages.to_vec() }
    }

    /// The time at which a call that joins the queue now has been served.
    pub(crate) fn served_at(&mut self, now: Duration) -> Duration {
        let Some(stage) = self.stages.iter().rev().find(|stage| stage.from <= now).copied() else {
            return now;
        };
        // With fewer servers, the ones that become free first are removed.
        while self.free_at.len() > stage.servers {
            self.free_at.pop();
        }
        while self.free_at.len() < stage.servers {
            self.free_at.push(Reverse(now));
        }
        let Reverse(free_at) = self.free_at.pop().expect("at least one server");
        let served_at = free_at.max(now) + stage.service_time;
        self.free_at.push(Reverse(served_at));
        served_at
    }
}

/// The tokens of the rate limit.
#[derive(Debug)]
pub(crate) struct Tokens {
    bucket: Option<Bucket>,
    left: f64,
    at: Duration,
}

impl Tokens {
    pub(crate) fn new(bucket: Option<Bucket>) -> Self {
        Self { bucket, left: bucket.map_or(0.0, |bucket| bucket.capacity), at: Duration::ZERO }
    }

    /// Takes a token. Returns the retry time if there is none.
    pub(crate) fn refuses(&mut self, now: Duration) -> Option<Duration> {
        let bucket = self.bucket?;
        let more = (now - self.at).as_secs_f64() * bucket.per_s;
        self.at = now;
        self.left = (self.left + more).min(bucket.capacity);
        if self.left < 1.0 {
            return Some(bucket.retry_after);
        }
        self.left -= 1.0;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{millis, secs};

    fn stage(from: Duration, servers: usize, service_time: Duration) -> Stage {
        Stage { from, servers, service_time }
    }

    #[test]
    fn calls_wait_in_one_queue() {
        let mut servers = Servers::new(&[stage(secs(0), 2, millis(100))]);
        let served: Vec<_> = (0..5).map(|_| servers.served_at(secs(1))).collect();
        let after = |ms: &[u64]| ms.iter().map(|ms| millis(1_000 + ms)).collect::<Vec<_>>();
        assert_eq!(served, after(&[100, 100, 200, 200, 300]));
        assert_eq!(servers.served_at(secs(9)), millis(9_100), "a free server serves at once");
    }

    #[test]
    fn capacity_changes_with_each_stage() {
        let mut servers =
            Servers::new(&[stage(secs(0), 2, millis(100)), stage(secs(5), 1, millis(100))]);
        assert_eq!(servers.served_at(secs(1)), millis(1_100));
        assert_eq!(servers.served_at(secs(5)), millis(5_100));
        assert_eq!(servers.served_at(secs(5)), millis(5_200));
    }

    #[test]
    fn tokens_are_refilled_over_time() {
        let bucket = Bucket { per_s: 10.0, capacity: 2.0, retry_after: secs(1) };
        let mut tokens = Tokens::new(Some(bucket));
        assert_eq!(tokens.refuses(secs(0)), None);
        assert_eq!(tokens.refuses(secs(0)), None);
        assert_eq!(tokens.refuses(millis(50)), Some(secs(1)));
        assert_eq!(tokens.refuses(millis(150)), None);
        assert_eq!(Tokens::new(None).refuses(secs(0)), None);
    }
}
