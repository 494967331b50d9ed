//! What is known of the calls on one connection, and the watch over it: whether the other end still lives.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep};

use crate::deadline::within;

/// The calls of a connection, and what the watch over it goes by.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) open_calls: AtomicUsize,
    /// One of them ended, or the connection did.
    pub(super) has_room: Notify,
    has_ended: AtomicBool,
    /// The one that waits for room. The others wait for their turn.
    pub(super) turn: Mutex<()>,
    /// A call came since the other end was last heard, and may have been given up.
    pub(super) was_asked: AtomicBool,
    pub(super) was_heard: Arc<AtomicBool>,
}

impl Watch {
    pub(super) fn new(was_heard: Arc<AtomicBool>) -> Self {
        Self {
            open_calls: AtomicUsize::new(0),
            has_room: Notify::new(),
            has_ended: AtomicBool::new(false),
            turn: Mutex::new(()),
            was_asked: AtomicBool::new(false),
            was_heard,
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }
}

/// Ends when a connection on which calls were made has been silent for the interval, and says nothing for `patience` when it is asked.
/// Calls that were given up count too: where nothing is heard any more, they all are.
pub(super) async fn until_dead(
    mut pings: PingPong,
    watch: Arc<Watch>,
    interval: Duration,
    patience: Duration,
) {
    let mut silent_halves = 0;
    loop {
        sleep(interval / 2).await;
        let has_open_calls = watch.open_calls.load(Ordering::Relaxed) > 0;
        if watch.was_heard.swap(false, Ordering::Relaxed) {
            watch.was_asked.store(has_open_calls, Ordering::Relaxed);
            silent_halves = 0;
        } else if has_open_calls || watch.was_asked.load(Ordering::Relaxed) {
            silent_halves += 1;
        }
        if silent_halves < 2 {
            continue;
        }
        let pong = within(Instant::now() + patience, pings.ping(Ping::opaque())).await;
        if !matches!(pong, Some(Ok(_))) {
            return;
        }
    }
}

/// Tells the calls that wait that a connection has ended, in whatever way.
pub(super) struct End(pub(super) Arc<Watch>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.has_ended.store(true, Ordering::Relaxed);
        self.0.has_room.notify_one();
    }
}

/// A call whose answer is not whole yet, nor given up.
#[derive(Debug)]
pub(super) struct OpenCall(Arc<Watch>);

impl OpenCall {
    pub(super) fn new(watch: Arc<Watch>) -> Self {
        watch.open_calls.fetch_add(1, Ordering::Relaxed);
        Self(watch)
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.open_calls.fetch_sub(1, Ordering::Relaxed);
        self.0.has_room.notify_one();
    }
}
