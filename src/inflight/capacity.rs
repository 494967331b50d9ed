//! Capacity for messages: reserved before a receive, held until the message is settled.
//!
//! Two limits apply together: the number of messages (`MAX_IN_FLIGHT`) and their memory
//! (`MAX_IN_FLIGHT_MB`): what bodies, attributes, the data parsed from them and the worker's own
//! notes take ([`Message::bytes`](crate::queue::Message::bytes)). The size of a response is not
//! known in advance. So a receive reserves the maximum that SQS can send, 1 MiB per message, and
//! gives back the unused part. If a message takes more than is free, the excess becomes debt. Usage
//! exceeds the limit by at most what the receives open at that time bring.

use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::queue::BATCH_MAX;

/// Largest SQS message in KiB (AWS: "Amazon SQS message quotas", 1 MiB).
const MESSAGE_KIB_MAX: u32 = 1_024;

/// How long a reservation of less than a full batch waits for the rest.
/// In a saturated worker this turns ten receives of one message into one receive of ten. It is
/// short compared with the duration of a receive.
const GATHER_TIME: Duration = Duration::from_millis(10);

/// The remaining capacity.
#[derive(Clone, Debug)]
pub struct InFlightLimiter {
    messages: Arc<Semaphore>,
    memory: Arc<MemoryLimiter>,
    messages_max: usize,
}

/// A permit for one message. Dropping it frees the capacity.
#[derive(Debug)]
pub struct Permit {
    _message: OwnedSemaphorePermit,
    kib: MemoryPermit,
}

/// Capacity for one receive. Dropping it frees the part that was not [taken](Self::take).
#[derive(Debug)]
pub struct ReservedPermits {
    messages: OwnedSemaphorePermit,
    kib: MemoryPermit,
}

/// The remaining memory, in KiB.
#[derive(Debug)]
struct MemoryLimiter {
    free: Semaphore,
    all: usize,
    /// Memory of received messages, without reservations for open receives.
    held: AtomicUsize,
    /// Memory taken beyond the free amount. The next freed memory pays it back.
    owed: Mutex<usize>,
}

impl MemoryLimiter {
    fn take(&self, kib: usize) {
        let mut owed = self.owed();
        *owed += kib - self.free.forget_permits(kib);
    }

    fn give_back(&self, kib: usize) {
        let mut owed = self.owed();
        let paid = kib.min(*owed);
        *owed -= paid;
        self.free.add_permits(kib - paid);
    }

    fn owed(&self) -> MutexGuard<'_, usize> {
        self.owed.lock().expect("no panic happens under this lock")
    }
}

/// Memory in use, in KiB. Dropping it frees the memory.
#[derive(Debug)]
struct MemoryPermit {
    count: usize,
    memory: Arc<MemoryLimiter>,
}

impl MemoryPermit {
    /// Splits off up to `count` KiB.
    fn split(&mut self, count: usize) -> Self {
        let count = count.min(self.count);
        self.count -= count;
        Self { count, memory: Arc::clone(&self.memory) }
    }

    fn merge(&mut self, mut other: Self) {
        self.count += mem::take(&mut other.count);
    }

    /// Takes more memory, even if it is not free.
    fn grow(&mut self, count: usize) {
        self.memory.take(count);
        self.count += count;
    }
}

impl Drop for MemoryPermit {
    fn drop(&mut self) {
        self.memory.give_back(self.count);
    }
}

impl InFlightLimiter {
    /// Creates capacity for `messages_max` messages of at most `bytes_max` bytes in total.
    #[must_use]
    pub fn new(messages_max: usize, bytes_max: u64) -> Self {
        let kib = usize::try_from(bytes_max / 1_024).unwrap_or(Semaphore::MAX_PERMITS);
        let all = kib.min(Semaphore::MAX_PERMITS);
        let (free, held) = (Semaphore::new(all), AtomicUsize::new(0));
        Self {
            messages: Arc::new(Semaphore::new(messages_max)),
            memory: Arc::new(MemoryLimiter { free, all, held, owed: Mutex::default() }),
            messages_max,
        }
    }

    /// Counts the messages that can be reserved now.
    #[must_use]
    pub fn free(&self) -> usize {
        self.messages.available_permits()
    }

    /// Counts the messages held, plus those that open receives have reserved.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.messages_max - self.free()
    }

    /// Waits for room for one message and reserves up to [`BATCH_MAX`].
    /// Cancel-safe: nothing stays reserved when the future is dropped.
    pub async fn reserve(&self) -> ReservedPermits {
        let first = self.acquire(1).await;
        let rest = u32::try_from(BATCH_MAX - 1).expect("small");
        match timeout(GATHER_TIME, self.acquire(rest)).await {
            Ok(rest) => first.merge(rest),
            Err(_elapsed) => match self.try_acquire_up_to(rest) {
                Some(some) => first.merge(some),
                None => first,
            },
        }
    }

    async fn acquire(&self, messages: u32) -> ReservedPermits {
        const OPEN: &str = "the semaphores are never closed";
        let count = Arc::clone(&self.messages).acquire_many_owned(messages).await.expect(OPEN);
        let kib = messages * MESSAGE_KIB_MAX;
        self.memory.free.acquire_many(kib).await.expect(OPEN).forget();
        ReservedPermits { messages: count, kib: self.memory_permit(kib) }
    }

    fn try_acquire_up_to(&self, messages: u32) -> Option<ReservedPermits> {
        (1..=messages).rev().find_map(|n| {
            let count = Arc::clone(&self.messages).try_acquire_many_owned(n).ok()?;
            self.memory.free.try_acquire_many(n * MESSAGE_KIB_MAX).ok()?.forget();
            Some(ReservedPermits { messages: count, kib: self.memory_permit(n * MESSAGE_KIB_MAX) })
        })
    }

    fn memory_permit(&self, kib: u32) -> MemoryPermit {
        MemoryPermit { count: usize_from(kib), memory: Arc::clone(&self.memory) }
    }
}

impl Permit {
    /// Adds `bytes` to the memory of its message, after parsing.
    /// The memory may exceed the limit. Then less is received until memory is free again.
    pub fn grow(&mut self, bytes: usize) {
        let kib = bytes / 1_024;
        self.kib.memory.held.fetch_add(kib, Ordering::Relaxed);
        self.kib.grow(kib);
    }

    /// Returns how many messages of this size fit into the free memory and into the whole memory.
    #[must_use]
    pub fn alike(&self) -> Alike {
        let MemoryLimiter { all, held, .. } = &*self.kib.memory;
        let each = self.kib.count.max(1);
        let left = all.saturating_sub(held.load(Ordering::Relaxed));
        Alike { left: left / each, all: all / each }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.kib.memory.held.fetch_sub(self.kib.count, Ordering::Relaxed);
    }
}

/// Numbers of messages of one size that fit into the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alike {
    /// Messages that fit beside those already held.
    pub left: usize,
    /// Messages that fit when nothing is held.
    pub all: usize,
}

impl ReservedPermits {
    /// Counts the messages for which there is room.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.num_permits()
    }

    /// Returns whether all of the room was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Keeps room for at most `messages` messages and frees the rest.
    pub fn shrink_to(&mut self, messages: usize) {
        let rest = self.len().saturating_sub(messages);
        let kib = rest * usize_from(MESSAGE_KIB_MAX);
        drop((self.messages.split(rest), self.kib.split(kib)));
    }

    /// Takes the room of one message of `bytes` bytes; `None` if no room is left.
    pub fn take(&mut self, bytes: usize) -> Option<Permit> {
        let message = self.messages.split(1)?;
        let wanted = bytes.div_ceil(1_024).max(1);
        let mut kib = self.kib.split(wanted.min(usize_from(MESSAGE_KIB_MAX)));
        kib.grow(wanted - kib.count);
        kib.memory.held.fetch_add(kib.count, Ordering::Relaxed);
        Some(Permit { _message: message, kib })
    }

    fn merge(mut self, other: Self) -> Self {
        self.messages.merge(other.messages);
        self.kib.merge(other.kib);
        self
    }
}

fn usize_from(n: u32) -> usize {
    usize::try_from(n).expect("usize has at least 32 bits here")
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[tokio::test(start_paused = true)]
    async fn a_receive_gets_a_full_batch_or_what_the_limit_leaves() {
        let limiter = InFlightLimiter::new(13, 64 * MIB);
        let full = limiter.reserve().await;
        assert_eq!(full.len(), BATCH_MAX);
        let rest = limiter.reserve().await;
        assert_eq!(rest.len(), 3);
        assert_eq!(limiter.free(), 0);
        drop(full);
        assert_eq!(limiter.free(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_reached_limit_makes_the_next_receive_wait() {
        let limiter = InFlightLimiter::new(1, 64 * MIB);
        let held = limiter.reserve().await;
        assert!(timeout(Duration::from_secs(60), limiter.reserve()).await.is_err());
        drop(held);
        assert_eq!(limiter.reserve().await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_byte_limit_bounds_a_receive() {
        let limiter = InFlightLimiter::new(1_000, 2 * MIB);
        let mut reserved = limiter.reserve().await;
        assert_eq!(reserved.len(), 2, "2 MiB must allow two messages of the largest size");
        let small = reserved.take(10).expect("room");
        drop(reserved);
        let next = limiter.reserve().await;
        assert_eq!(next.len(), 1, "with 1 KiB held, less than 2 MiB are free");
        drop((small, next));
        assert_eq!(limiter.reserve().await.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_shortened_reservation_returns_the_rest() {
        let limiter = InFlightLimiter::new(10, 64 * MIB);
        let mut reserved = limiter.reserve().await;
        reserved.shrink_to(20);
        assert_eq!(reserved.len(), 10);
        reserved.shrink_to(4);
        assert_eq!((reserved.len(), limiter.free()), (4, 6));
        let permits: Vec<_> = (0..5).map_while(|_| reserved.take(2_000_000)).collect();
        drop(reserved);
        assert_eq!((permits.len(), limiter.reserve().await.len()), (4, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_permit_is_held_until_it_is_dropped() {
        let limiter = InFlightLimiter::new(10, 64 * MIB);
        let mut reserved = limiter.reserve().await;
        let permits: Vec<_> = (0..3).map_while(|_| reserved.take(5_000_000)).collect();
        drop(reserved);
        assert_eq!((permits.len(), limiter.in_use(), limiter.free()), (3, 3, 7));
        drop(permits);
        assert_eq!(limiter.in_use(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn an_unused_reservation_is_returned() {
        let limiter = InFlightLimiter::new(10, 64 * MIB);
        let mut reserved = limiter.reserve().await;
        reserved.shrink_to(usize::MAX);
        assert_eq!(reserved.len(), 10);
        reserved.shrink_to(3);
        assert_eq!((reserved.len(), limiter.free()), (3, 7));
        assert_eq!(limiter.reserve().await.len(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn an_aborted_wait_reserves_nothing() {
        let limiter = InFlightLimiter::new(5, 64 * MIB);
        let mut wait = Box::pin(limiter.reserve());
        assert!(
            timeout(Duration::from_millis(1), &mut wait).await.is_err(),
            "the wait must not end yet"
        );
        drop(wait);
        assert_eq!(limiter.in_use(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_beyond_the_limit_are_repaid_before_the_next_reservation() {
        let limiter = InFlightLimiter::new(1_000, 4 * MIB);
        let mut reserved = limiter.reserve().await;
        assert_eq!(reserved.len(), 4);
        let mut held: Vec<_> = (0..4).map_while(|_| reserved.take(600 << 10)).collect();
        held.iter_mut().for_each(|permit| permit.grow(900 << 10));
        drop(reserved);
        assert_eq!(held.len(), 4, "four messages are held, with 6,000 of 4,096 KiB");
        assert!(timeout(Duration::from_secs(60), limiter.reserve()).await.is_err());
        drop(held.split_off(2));
        let next = limiter.reserve().await;
        assert_eq!(next.len(), 1, "with 3,000 KiB held, one message is left");
        drop((held, next));
        assert_eq!(limiter.reserve().await.len(), 4, "four messages must be reserved again");
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_larger_than_the_sqs_limit_counts_completely() {
        let limiter = InFlightLimiter::new(1_000, 3 * MIB);
        let mut reserved = limiter.reserve().await;
        let large = reserved.take(2 << 20).expect("room");
        drop(reserved);
        assert_eq!(limiter.reserve().await.len(), 1);
        drop(large);
        assert_eq!(limiter.reserve().await.len(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn what_one_receive_may_bring_is_not_promised_to_another() {
        let limiter = InFlightLimiter::new(1_000, 10 * MIB);
        let first = limiter.reserve().await;
        assert_eq!(first.len(), BATCH_MAX);
        assert!(timeout(Duration::from_secs(60), limiter.reserve()).await.is_err());
        drop(first);
        assert_eq!(limiter.reserve().await.len(), BATCH_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn messages_that_have_left_do_not_count_beside_those_held() {
        let limiter = InFlightLimiter::new(1_000, 64 * MIB);
        for _ in 0..100 {
            let permit = limiter.reserve().await.take(1 << 20).expect("room");
            assert_eq!(permit.alike(), Alike { left: 63, all: 64 });
        }
    }
}
