//! Waits of one fixed length, exact to some tens of microseconds.
//!
//! The resolution of tokio's timers is one millisecond, a fifth of the duration of a service call.
//! All waits have the same length, so they end in the order in which they began.

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

/// A timer that is set to zero is disarmed.
const SHORTEST: Duration = Duration::from_nanos(1);

/// Waits of one fixed length.
#[derive(Debug)]
pub struct Clock {
    length: Duration,
    timer: AsyncFd<OwnedFd>,
    waiting: Mutex<VecDeque<(Instant, oneshot::Sender<()>)>>,
}

impl Clock {
    /// Creates the clock; needs a runtime. No wait ends unless [`Clock::run`] runs.
    ///
    /// # Errors
    /// If the system cannot create a timer.
    pub fn new(length: Duration) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe; an owned descriptor is what it asks for"
        )]
        let timer = AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
        Ok(Self { length, timer, waiting: Mutex::default() })
    }

    /// Waits for the clock's length. Returns at once if the length is zero.
    pub async fn wait(&self) {
        if self.length.is_zero() {
            return;
        }
        let (done, wait) = oneshot::channel();
        let is_first = {
            let mut waiting = self.waiting();
            waiting.push_back((Instant::now() + self.length, done));
            waiting.len() == 1
        };
        if is_first {
            self.set(self.length);
        }
        // The sender is dropped only when the process ends.
        let _ = wait.await;
    }

    /// Ends the waits. Never returns.
    ///
    /// # Errors
    /// If the timer cannot be read.
    pub async fn run(&self) -> io::Result<()> {
        loop {
            let mut ready = self.timer.readable().await?;
            // The timer is not readable if it was set again or has been read.
            let read = ready.try_io(|timer| Ok(rustix::io::read(timer, &mut [0; 8])?));
            if read.is_err() {
                continue;
            }
            if let Some(rest) = self.end_due() {
                self.set(rest);
            }
        }
    }

    fn end_due(&self) -> Option<Duration> {
        let mut waiting = self.waiting();
        loop {
            let (until, _) = waiting.front()?;
            let rest = until.saturating_duration_since(Instant::now());
            if !rest.is_zero() {
                return Some(rest);
            }
            let (_, done) = waiting.pop_front()?;
            // The waiting task may have been cancelled.
            let _ = done.send(());
        }
    }

    fn set(&self, after: Duration) {
        let after = after.max(SHORTEST);
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(after.as_secs()).expect("a wait takes seconds at most"),
                tv_nsec: after.subsec_nanos().into(),
            },
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)
            .expect("the timer is open and the time is valid");
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Instant, oneshot::Sender<()>)>> {
        self.waiting.lock().expect("no code panics under this lock")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn waits_end_in_order_and_not_early_and_a_zero_length_does_not_wait() {
        let length = Duration::from_millis(3);
        let clock = Arc::new(Clock::new(length).expect("a timer is available"));
        let runs = Arc::clone(&clock);
        let running = tokio::spawn(async move { runs.run().await });
        let (began, ended) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let mut waits = tokio::task::JoinSet::new();
        for number in 1..=3 {
            let (clock, ended) = (Arc::clone(&clock), Arc::clone(&ended));
            waits.spawn(async move {
                clock.wait().await;
                ended.lock().expect("the lock is not poisoned").push(number);
            });
        }
        waits.join_all().await;
        assert!(began.elapsed() >= length, "{:?}", began.elapsed());
        assert_eq!(*ended.lock().expect("the lock is not poisoned"), [1, 2, 3]);
        // The timer was disarmed and is set again.
        clock.wait().await;
        assert!(began.elapsed() >= 2 * length, "{:?}", began.elapsed());
        running.abort();
        Clock::new(Duration::ZERO).expect("a timer is available").wait().await;
    }
}
