//! Limits of a stand-in: a rate limit (token bucket), and a number of servers for one call each
//! with a common queue.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// The pause that a refused caller gets, such as `Retry-After: 1`.
pub(crate) const REFUSED_FOR: Duration = Duration::from_secs(1);

/// Replies that refuse a call because of a rate limit.
pub trait Refuse {
    /// Builds the refusal with this pause.
    fn refused(retry_after: Duration) -> Self;
}

/// A token bucket: accepts `per_second` calls per second, and up to `burst` unused ones.
#[derive(Clone, Copy, Debug)]
pub struct RateLimit {
    per_second: f64,
    burst: f64,
    tokens: f64,
    counted_at: Option<Instant>,
}

impl RateLimit {
    /// Sets the rate. The bucket holds one second of calls and is full at first.
    #[must_use]
    pub fn per_second(calls: u32) -> Self {
        let calls_f = f64::from(calls);
        Self { per_second: calls_f, burst: calls_f, tokens: calls_f, counted_at: None }
    }

    /// Sets the size of the bucket, which is full at first.
    #[must_use]
    pub fn burst(self, calls: u32) -> Self {
        Self { burst: f64::from(calls), tokens: f64::from(calls), ..self }
    }

    /// Takes a token if there is one.
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

/// Servers with a fixed time per call and a common queue, first in, first out. An abandoned call
/// keeps its place and is processed in vain.
#[derive(Clone, Debug)]
pub struct Capacity {
    /// When each server is free.
    free_at: Arc<Mutex<Vec<Instant>>>,
    service_time: Duration,
}

impl Capacity {
    /// Creates this number of servers with this time per call.
    ///
    /// # Panics
    /// If the number is 0: no call would ever end.
    #[must_use]
    pub fn new(servers: usize, service_time: Duration) -> Self {
        assert!(servers > 0, "a service without servers");
        let free_at = Arc::new(Mutex::new(vec![Instant::now(); servers]));
        Self { free_at, service_time }
    }

    /// Waits for a server and for the end of its work.
    pub(crate) async fn serve(&self) {
        // Until a point in time, not by consecutive sleeps: late timers on a busy machine must not
        // reduce the capacity.
        sleep_until(self.take_a_place(Instant::now())).await;
    }

    /// Returns when the work for a call that arrives now ends.
    fn take_a_place(&self, now: Instant) -> Instant {
        let mut free_at = self.free_at.lock().expect("no code panics under this lock");
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
    async fn a_token_bucket_accepts_its_rate_and_its_burst() {
        let mut limit = RateLimit::per_second(10).burst(5);
        let taken = |limit: &mut RateLimit| (0..100).filter(|_| limit.lets_in()).count();
        assert_eq!(taken(&mut limit), 5, "the bucket is full at first");
        advance(Duration::from_millis(300)).await;
        assert_eq!(taken(&mut limit), 3);
        advance(Duration::from_secs(60)).await;
        assert_eq!(taken(&mut limit), 5, "the burst is limited");
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
    async fn calls_are_served_in_order_up_to_the_number_of_servers() {
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
