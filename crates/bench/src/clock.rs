//! Waits of one fixed length, exact to some tens of microseconds: tokio's own timers go by whole milliseconds, which is
//! a fifth of what a service is to take. All waits are equally long, so that they end in the order in which they began.

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

/// A timer at zero is a timer that is off.
const SHORTEST: Duration = Duration::from_nanos(1);

/// Waits of one length.
#[derive(Debug)]
pub struct Clock {
    length: Duration,
    timer: AsyncFd<OwnedFd>,
    waiting: Mutex<VecDeque<(Instant, oneshot::Sender<()>)>>,
}

impl Clock {
    /// To be called on a runtime. Nothing ends unless [`Clock::run`] does.
    ///
    /// # Errors
    /// Where the system has no timer to spare.
    pub fn new(length: Duration) -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        #[expect(
            deprecated,
            reason = "its replacement is unsafe; an owned descriptor is what it asks for"
        )]
        let timer = AsyncFd::new(timerfd_create(TimerfdClockId::Monotonic, flags)?)?;
        Ok(Self { length, timer, waiting: Mutex::default() })
    }

    /// Ends after the clock's length; at once where that is nothing.
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
        // The other end is gone only where the whole process is going.
        let _ = wait.await;
    }

    /// Ends the waits. Never returns.
    ///
    /// # Errors
    /// Where the timer breaks.
    pub async fn run(&self) -> io::Result<()> {
        loop {
            let mut ready = self.timer.readable().await?;
            // When it is set anew, or has been read, it is not readable any more.
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
            // Whoever waited may have hung up.
            let _ = done.send(());
        }
    }

    fn set(&self, after: Duration) {
        let after = after.max(SHORTEST);
        let once = Itimerspec {
            it_interval: Timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: Timespec {
                tv_sec: i64::try_from(after.as_secs()).expect("a wait is short"),
                tv_nsec: after.subsec_nanos().into(),
            },
        };
        timerfd_settime(self.timer.get_ref(), TimerfdTimerFlags::empty(), &once)
            .expect("the timer is open and the time is valid");
    }

    fn waiting(&self) -> MutexGuard<'_, VecDeque<(Instant, oneshot::Sender<()>)>> {
        self.waiting.lock().expect("no panic happens under this lock")
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn waits_end_in_their_order_none_too_early_and_a_clock_of_no_length_waits_for_nothing() {
        let length = Duration::from_millis(3);
        let clock = Arc::new(Clock::new(length).expect("a timer"));
        let runs = Arc::clone(&clock);
        let running = tokio::spawn(async move { runs.run().await });
        let (began, ended) = (Instant::now(), Arc::new(Mutex::new(Vec::new())));
        let mut waits = tokio::task::JoinSet::new();
        for number in 1..=3 {
            let (clock, ended) = (Arc::clone(&clock), Arc::clone(&ended));
            waits.spawn(async move {
                clock.wait().await;
                ended.lock().expect("whole").push(number);
            });
        }
        waits.join_all().await;
        assert!(began.elapsed() >= length, "{:?}", began.elapsed());
        assert_eq!(*ended.lock().expect("whole"), [1, 2, 3]);
        // It was off, and is set anew.
        clock.wait().await;
        assert!(began.elapsed() >= 2 * length, "{:?}", began.elapsed());
        running.abort();
        Clock::new(Duration::ZERO).expect("a timer").wait().await;
    }
}
