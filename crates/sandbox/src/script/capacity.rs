//! How much a stand-in takes: a number of calls a second that it lets in (a token bucket), and a number of servers that
//! work, each on one call at a time, with one queue before them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// What a caller is told that comes too often: `Retry-After: 1`, and its like.
pub(crate) const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Replies that refuse a call as there are too many.
pub trait Refuse {
    /// To be tried again after so long.
    fn refused(retry_after: Duration) -> Self;
}

/// A token bucket: `per_second` calls are let in a second, and up to `burst` that were not used before.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    per_second: f64,
    burst: f64,
    tokens: f64,
    counted_at: Option<Instant>,
}

impl RateLimit {
    /// So many calls a second; the bucket holds a second's worth, and is full at first.
    #[must_use]
    pub fn per_second(calls: u32) -> Self {
        let calls_f = f64::from(calls);
        Self { per_second: calls_f, burst: calls_f, tokens: calls_f, counted_at: None }
    }

    /// The bucket holds so many, and is full at first.
    #[must_use]
    pub fn burst(self, calls: u32) -> Self {
        Self { burst: f64::from(calls), tokens: f64::from(calls), ..self }
    }

    /// Takes a token, if there is one.
    pub(crate) fn lets_in(&mut self) -> bool {
        let now = Instant::now();
        let since = now - self.counted_at.replace(now).unwrap_or(now);
        self.tokens = (self.tokens + since.as_secs_f64() * self.per_second).min(self.burst);
        let is_in = self.tokens >= 1.0;
        if is_in {
            self.tokens -= 1.0;
        }
        is_in
    }
}

/// Servers at a fixed time for each call, and one queue before them, first come, first served. A caller that gives up
/// keeps its place: its work is done for nobody.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// When each server has done what it was given so far.
    free_at: Arc<Mutex<Vec<Instant>>>,
    service_time: Duration,
}

impl Capacity {
    /// So many servers, each of which takes so long for a call.
    ///
    /// # Panics
    /// Where there is none: no call would ever end.
    #[must_use]
    pub fn new(servers: usize, service_time: Duration) -> Self {
        assert!(servers > 0, "a service without servers");
        let free_at = Arc::new(Mutex::new(vec![Instant::now(); servers]));
        Self { free_at, service_time }
    }

    /// Waits for a server, and until it has done its work.
    pub(crate) async fn serve(&self) {
        // By the clock, and not one sleep after the other: timers that are late on a busy machine cost no capacity.
        sleep_until(self.take_a_place(Instant::now())).await;
    }

    /// Until when the work of a caller lasts that comes now.
    fn take_a_place(&self, now: Instant) -> Instant {
        let mut free_at = self.free_at.lock().expect("no panic happens under this lock");
        let first = free_at.iter_mut().min().expect("there is a server");
        *first = now.max(*first) + self.service_time;
        *first
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::JoinSet;
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_lets_in_its_rate_and_what_it_holds() {
        let mut limit = RateLimit::per_second(10).burst(5);
        let taken = |limit: &mut RateLimit| (0..100).filter(|_| limit.lets_in()).count();
        assert_eq!(taken(&mut limit), 5, "full at first");
        advance(Duration::from_millis(300)).await;
        assert_eq!(taken(&mut limit), 3);
        advance(Duration::from_secs(60)).await;
        assert_eq!(taken(&mut limit), 5, "no more than it holds");
        assert_eq!(taken(&mut RateLimit::per_second(10)), 10);
        let mut limit = RateLimit::per_second(10);
        let mut let_in = 0;
        for _ in 0..1_000 {
            let_in += usize::from(limit.lets_in());
            advance(Duration::from_millis(10)).await;
        }
        assert!((105..=110).contains(&let_in), "{let_in} in ten seconds, of 100 a second");
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_are_served_at_once_in_their_order() {
        let capacity = Capacity::new(2, Duration::from_millis(100));
        let began = Instant::now();
        let mut calls = JoinSet::new();
        for number in 0..5 {
            let capacity = capacity.clone();
            calls.spawn(async move {
                capacity.serve().await;
                (number, began.elapsed().as_millis())
            });
        }
        let mut done = calls.join_all().await;
        done.sort_unstable();
        let at: Vec<u128> = done.into_iter().map(|(_, at)| at / 10 * 10).collect();
        assert_eq!(at, [100, 100, 200, 200, 300]);
    }
}
