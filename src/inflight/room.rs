//! Room for messages: reserved before a receive is sent, kept until the message is settled.
//!
//! Two bounds hold at once: how many messages (`MAX_IN_FLIGHT`) and how many bytes of bodies
//! (`MAX_IN_FLIGHT_MB`). What a receive will bring is not known before, so it reserves the most
//! that SQS can send, 1 MiB a message, and gives back what was not used: the bound is never passed.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::queue::BATCH_MAX;

/// The largest message that SQS carries, in KiB (AWS: "Amazon SQS message quotas", 1 MiB).
const MESSAGE_KIB_MAX: u32 = 1_024;

/// How long a reservation that has found some room waits for room for a full batch. In a saturated
/// worker that turns ten receives of one message into one receive of ten; it is short beside what
/// a receive itself takes.
const GATHER_TIME: Duration = Duration::from_millis(10);

/// The room that is left.
#[derive(Clone, Debug)]
pub struct Room {
    messages: Arc<Semaphore>,
    kib: Arc<Semaphore>,
    messages_max: usize,
}

/// Room for one message; dropping it gives the room back.
#[derive(Debug)]
pub struct RoomPermit {
    _message: OwnedSemaphorePermit,
    _kib: OwnedSemaphorePermit,
}

/// Room for what one receive may bring; dropping it gives back what was not [taken](Self::take).
#[derive(Debug)]
pub struct Reserved {
    messages: OwnedSemaphorePermit,
    kib: OwnedSemaphorePermit,
}

impl Room {
    /// Room for `messages_max` messages whose bodies have at most `bytes_max` bytes together.
    #[must_use]
    pub fn new(messages_max: usize, bytes_max: u64) -> Self {
        let kib = usize::try_from(bytes_max / 1_024).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            messages: Arc::new(Semaphore::new(messages_max)),
            kib: Arc::new(Semaphore::new(kib.min(Semaphore::MAX_PERMITS))),
            messages_max,
        }
    }

    /// Messages that could be reserved now, by number.
    #[must_use]
    pub fn free(&self) -> usize {
        self.messages.available_permits()
    }

    /// Messages that hold room now, or may once an open receive is answered.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.messages_max - self.free()
    }

    /// Waits for room for at least one message and reserves up to [`BATCH_MAX`]. Cancel-safe:
    /// nothing stays reserved when the future is dropped.
    pub async fn reserve(&self) -> Reserved {
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

    async fn acquire(&self, messages: u32) -> Reserved {
        const OPEN: &str = "the semaphores are never closed";
        let count = Arc::clone(&self.messages).acquire_many_owned(messages).await.expect(OPEN);
        let kib = messages * MESSAGE_KIB_MAX;
        let kib = Arc::clone(&self.kib).acquire_many_owned(kib).await.expect(OPEN);
        Reserved { messages: count, kib }
    }

    fn try_acquire_up_to(&self, messages: u32) -> Option<Reserved> {
        (1..=messages).rev().find_map(|n| {
            let count = Arc::clone(&self.messages).try_acquire_many_owned(n).ok()?;
            let kib = Arc::clone(&self.kib).try_acquire_many_owned(n * MESSAGE_KIB_MAX).ok()?;
            Some(Reserved { messages: count, kib })
        })
    }
}

impl Reserved {
    /// How many messages there is room for.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.num_permits()
    }

    /// Whether all of it was taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Takes the room of one message with that many bytes; `None` when all of it was taken.
    pub fn take(&mut self, bytes: usize) -> Option<RoomPermit> {
        let message = self.messages.split(1)?;
        let kib = u32::try_from(bytes.div_ceil(1_024)).unwrap_or(u32::MAX);
        let kib = usize_from(kib.clamp(1, MESSAGE_KIB_MAX));
        let kib = self.kib.split(kib).expect("1 MiB was reserved for each message");
        Some(RoomPermit { _message: message, _kib: kib })
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
    async fn a_receive_gets_a_full_batch_where_there_is_room_and_what_there_is_otherwise() {
        let room = Room::new(13, 64 * MIB);
        let full = room.reserve().await;
        assert_eq!(full.len(), BATCH_MAX);
        let rest = room.reserve().await;
        assert_eq!(rest.len(), 3);
        assert_eq!(room.free(), 0);
        drop(full);
        assert_eq!(room.free(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_room_makes_the_next_receive_wait() {
        let room = Room::new(1, 64 * MIB);
        let held = room.reserve().await;
        assert!(timeout(Duration::from_secs(60), room.reserve()).await.is_err());
        drop(held);
        assert_eq!(room.reserve().await.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_bound_what_a_receive_may_bring() {
        let room = Room::new(1_000, 2 * MIB);
        let mut reserved = room.reserve().await;
        assert_eq!(reserved.len(), 2, "2 MiB are two messages of the largest size");
        let small = reserved.take(10).expect("room");
        drop(reserved);
        let next = room.reserve().await;
        assert_eq!(next.len(), 1, "1 KiB is held, so a second MiB is not whole");
        drop((small, next));
        assert_eq!(room.reserve().await.len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_taken_stays_taken_until_it_is_dropped() {
        let room = Room::new(10, 64 * MIB);
        let mut reserved = room.reserve().await;
        let permits: Vec<_> = (0..3).map_while(|_| reserved.take(5_000_000)).collect();
        drop(reserved);
        assert_eq!((permits.len(), room.taken(), room.free()), (3, 3, 7));
        drop(permits);
        assert_eq!(room.taken(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_wait_leaves_nothing_reserved() {
        let room = Room::new(5, 64 * MIB);
        let mut wait = Box::pin(room.reserve());
        assert!(timeout(Duration::from_millis(1), &mut wait).await.is_err(), "still gathering");
        drop(wait);
        assert_eq!(room.taken(), 0);
    }
}
