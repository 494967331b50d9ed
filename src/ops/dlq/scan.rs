//! One pass over the dead-letter queue: receives until nothing more comes, and hands what matches
//! to the command.
//!
//! What does not match stays hidden until the pass ends. Otherwise it would be received again and
//! again, and the pass would not end.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::filter::matches;
use super::leases::Leases;
use super::letter::{IdHash, Letter};
use super::repeat::can_pass;
use super::tally::Tally;
use crate::cli::Filter;
use crate::clock;
use crate::queue::{BATCH_MAX, Message, OperatorQueue, QueueCounts, ReceiptHandle};
use crate::retry::Backoff;
use crate::settle::DeadLetterReason;

/// Messages held at most. SQS allows 120,000 in flight on a standard queue, and 20,000 on a FIFO
/// queue; other consumers may have some.
const HELD_MAX: usize = 100_000;
const HELD_MAX_FIFO: usize = 18_000;

/// Bytes of messages in hand at most, before the next receive, which may bring 10 MiB more.
const BYTES_MAX: usize = 16 * 1024 * 1024;

/// Empty receives in a row that mean that the queue is empty.
const EMPTY_MAX: u32 = 2;

/// Receives in a row with nothing that was there when the run began and was not seen before: only
/// what comes meanwhile is left.
const BARREN_MAX: u32 = 20;

/// How long receives may fail in a row, while SQS is throttled or away.
const RETRY_TIMEOUT: Duration = Duration::from_secs(60);

/// Pauses between failed receives.
const RETRY: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(5) };

/// Maximum difference between this machine's clock and that of SQS. SQS refuses calls beyond it.
const CLOCK_SKEW_MAX: Duration = Duration::from_secs(15 * 60);

/// What a command does with the letters that match.
#[async_trait]
pub(super) trait Work: Send + Sync {
    /// Batches in hand at most.
    fn batches_max(&self) -> usize {
        1
    }

    /// Handles the matching letters of one receive. They are held; what is still held at the end
    /// of the pass is shown again.
    async fn handle(&self, letters: Vec<Letter>);
}

/// What the passes of a command and its work share.
pub(super) struct RunState<'a> {
    pub(super) dlq: &'a dyn OperatorQueue,
    pub(super) leases: Leases,
    pub(super) tally: Tally,
    /// Cancelled by a signal, or by an error that ends the run.
    pub(super) halt: CancellationToken,
    /// The error that ended the run.
    pub(super) fatal: Mutex<Option<String>>,
    /// Messages that were deleted. A standard queue may deliver one again.
    pub(super) deleted: Mutex<HashSet<IdHash>>,
    /// The original ids of messages that were sent.
    pub(super) sent: Mutex<HashSet<IdHash>>,
}

impl<'a> RunState<'a> {
    pub(super) fn new(dlq: &'a dyn OperatorQueue, halt: CancellationToken) -> Self {
        Self {
            dlq,
            leases: Leases::default(),
            tally: Tally::default(),
            halt,
            fatal: Mutex::default(),
            deleted: Mutex::default(),
            sent: Mutex::default(),
        }
    }

    /// Ends the run with an error; the first one counts.
    pub(super) fn fail(&self, error: impl Into<String>) {
        lock(&self.fatal).get_or_insert(error.into());
        self.halt.cancel();
    }
}

/// Locks; a panic elsewhere does not make the value unusable.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What a pass is about.
pub(super) struct Scan<'a> {
    pub(super) held: &'a RunState<'a>,
    pub(super) filter: &'a Filter,
    pub(super) limit: u64,
    /// Only these messages, which were counted and confirmed before.
    pub(super) only: Option<HashSet<IdHash>>,
    /// When the run began, by this machine's clock. Once only messages come that were sent later,
    /// the pass ends.
    pub(super) began_at: SystemTime,
    /// Whether messages that were sent later are left alone.
    pub(super) leaves_newer: bool,
    /// Whether `money_without_seat` is left alone.
    pub(super) leaves_money: bool,
    /// The name of the queue; letters of others are left alone. `None` if they are not.
    pub(super) only_of: Option<&'a str>,
}

/// The messages of one receive that need something done.
#[derive(Default)]
struct Sorted {
    matching: Vec<Letter>,
    /// Those that were deleted before.
    again: Vec<ReceiptHandle>,
    /// Whether one of them was there when the run began, and was not seen before.
    has_new: bool,
}

impl Scan<'_> {
    /// Runs the pass, extends what is held meanwhile, and shows at the end what is left.
    pub(super) async fn run(&self, work: &dyn Work) {
        let done = CancellationToken::new();
        let held = self.held;
        let receiving = async {
            self.receive_all(work).await;
            done.cancel();
        };
        tokio::join!(receiving, held.leases.keep(held.dlq, &done));
        let hidden = held.leases.release(held.dlq).await;
        held.tally.change(|numbers| numbers.hidden += u64::try_from(hidden).unwrap_or(u64::MAX));
    }

    async fn receive_all(&self, work: &dyn Work) {
        let held = self.held;
        let before = held.dlq.counts().await.unwrap_or_default();
        let there = usize::try_from(before.visible + before.in_flight).unwrap_or(usize::MAX);
        let open_bytes = AtomicUsize::new(0);
        let mut running: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        let mut seen = HashSet::new();
        let (mut empty, mut barren) = (0, 0);
        while self.can_go_on() && empty < EMPTY_MAX && barren < BARREN_MAX {
            let is_full = running.len() >= work.batches_max()
                || open_bytes.load(Ordering::Relaxed) >= BYTES_MAX;
            if is_full {
                running.next().await;
                continue;
            }
            let hidden = held.leases.visibility();
            let asked_at = clock::now();
            let Some(messages) = while_running(&mut running, self.receive(hidden)).await else {
                break;
            };
            if messages.is_empty() {
                // On a FIFO queue, what is in hand may hide what comes behind it.
                if running.next().await.is_none() {
                    empty += 1;
                }
                continue;
            }
            empty = 0;
            let known = seen.len();
            let Sorted { matching, again, has_new } =
                self.sort(messages, &mut seen, asked_at, hidden);
            // Not the clocks, but the queue's own count tells a command that looks how far to go.
            let goes_on = !self.leaves_newer && known < there && known < seen.len();
            if has_new || goes_on {
                barren = 0;
            } else if running.next().await.is_none() {
                barren += 1;
            }
            // What was just received is held by now, and shown again.
            if held.halt.is_cancelled() {
                break;
            }
            if !again.is_empty() {
                // Deleted once more. Where that fails, SQS shows it again.
                let _ = while_running(&mut running, held.dlq.delete(&again)).await;
            }
            if !matching.is_empty() {
                let bytes = matching.iter().map(|letter| letter.message.bytes()).sum();
                open_bytes.fetch_add(bytes, Ordering::Relaxed);
                let open_bytes = &open_bytes;
                running.push(Box::pin(async move {
                    work.handle(matching).await;
                    open_bytes.fetch_sub(bytes, Ordering::Relaxed);
                }));
            }
        }
        while running.next().await.is_some() {}
        self.note_unseen(empty >= EMPTY_MAX || barren >= BARREN_MAX, before).await;
    }

    fn can_go_on(&self) -> bool {
        let has_all = self.held.tally.matches() >= self.limit;
        !self.held.halt.is_cancelled() && self.has_room() && !has_all
    }

    fn has_room(&self) -> bool {
        self.held.leases.len() + BATCH_MAX <= self.held_max()
    }

    fn held_max(&self) -> usize {
        if self.held.dlq.is_fifo() { HELD_MAX_FIFO } else { HELD_MAX }
    }

    /// Receives; repeats while SQS is throttled or away. `None` ends the pass.
    async fn receive(&self, hidden: Duration) -> Option<Vec<Message>> {
        let (began, mut failures) = (Instant::now(), 0);
        loop {
            let why = match self.held.dlq.receive(BATCH_MAX, hidden).await {
                Ok(messages) => return Some(messages),
                Err(why) => why,
            };
            if !can_pass(&why) || began.elapsed() >= RETRY_TIMEOUT {
                self.held.fail(format!("the dead-letter queue cannot be received from: {why}"));
                return None;
            }
            let pause = RETRY.delay(failures, &mut fastrand::Rng::new());
            failures += 1;
            tokio::select! {
                () = sleep(pause) => {}
                () = self.held.halt.cancelled() => return None,
            }
        }
    }

    /// Holds what was received, and picks what matches.
    fn sort(
        &self,
        messages: Vec<Message>,
        seen: &mut HashSet<IdHash>,
        asked_at: Instant,
        hidden: Duration,
    ) -> Sorted {
        let held = self.held;
        let mut sorted = Sorted::default();
        for message in messages {
            let id = IdHash::of(&message.id.0);
            if lock(&held.deleted).contains(&id) {
                sorted.again.push(message.handle);
                continue;
            }
            held.leases.hold(id, message.handle.clone(), asked_at, hidden);
            if seen.insert(id) {
                held.tally.change(|numbers| numbers.seen += 1);
                let letter = Letter::new(message);
                sorted.has_new |= !self.is_newer(&letter);
                sorted.matching.extend(self.pick(letter));
            }
        }
        sorted
    }

    fn pick(&self, letter: Letter) -> Option<Letter> {
        let tally = &self.held.tally;
        if self.leaves_newer && self.is_newer(&letter) {
            tally.change(|numbers| numbers.newer += 1);
            return None;
        }
        let is_confirmed = self.only.as_ref().is_none_or(|only| only.contains(&letter.hash()));
        if !is_confirmed || !matches(self.filter, &letter, self.began_at) {
            return None;
        }
        // Of what does not say where it was, nothing better is known than that it is here.
        if self.only_of.is_some_and(|ours| letter.source().is_some_and(|source| source != ours)) {
            tally.change(|numbers| numbers.others += 1);
            return None;
        }
        let money = DeadLetterReason::MoneyWithoutSeat.as_str();
        if self.leaves_money && letter.reason() == Some(money) {
            tally.change(|numbers| numbers.money += 1);
            return None;
        }
        if tally.matches() >= self.limit {
            return None;
        }
        tally.matching(&letter);
        Some(letter)
    }

    /// Whether it came after the run began: by SQS's clock, and by what this run has sent, as the
    /// two clocks may differ.
    fn is_newer(&self, letter: &Letter) -> bool {
        let Some(sent_at) = letter.message.sent_at else { return false };
        let original = IdHash::of(letter.message.original_id());
        let came_back = lock(&self.held.sent).contains(&original);
        sent_at > self.began_at || (came_back && sent_at + CLOCK_SKEW_MAX > self.began_at)
    }

    /// Notes why there may be more in the queue than was looked at.
    async fn note_unseen(&self, has_ended: bool, before: QueueCounts) {
        let held = self.held;
        if has_ended && !held.halt.is_cancelled() {
            self.note_held_by_others(before).await;
        }
        if !has_ended && !self.has_room() && !held.halt.is_cancelled() {
            let most = self.held_max();
            held.tally.change(|numbers| {
                numbers.unseen = Some(format!(
                    "more than {most} messages would have to be held at once, which SQS does not allow: what comes behind them was not looked at"
                ));
            });
        }
        if has_ended && held.dlq.is_fifo() && held.leases.len() > 0 {
            let behind = held.dlq.counts().await.map_or(0, |counts| counts.visible);
            if behind > 0 {
                held.tally.change(|numbers| {
                    numbers.unseen = Some(format!(
                        "about {behind} more are behind others of their message groups: a FIFO queue shows them once those are gone"
                    ));
                });
            }
        }
    }
}

impl Scan<'_> {
    /// Notes how many messages others held all the time.
    ///
    /// SQS's counts are approximate and may be old: it may still count as held what an earlier run
    /// has shown again, or what this run has deleted. So the least of three numbers counts: what
    /// was held before, what is held now and not by this run, and what was there and was not seen.
    async fn note_held_by_others(&self, before: QueueCounts) {
        let held = self.held;
        let seen = held.tally.now().seen;
        let most = before.in_flight.min((before.visible + before.in_flight).saturating_sub(seen));
        if most == 0 {
            return;
        }
        // Where they cannot be asked for again, what was held before is all that is known.
        let now = held.dlq.counts().await.map_or(most, |counts| counts.in_flight);
        let own = u64::try_from(held.leases.len()).unwrap_or(u64::MAX);
        let others = most.min(now.saturating_sub(own));
        held.tally.change(|numbers| numbers.held_by_others = others);
    }
}

/// Waits for `what` while the batches in hand go on.
async fn while_running<T>(
    running: &mut FuturesUnordered<BoxFuture<'_, ()>>,
    what: impl Future<Output = T>,
) -> T {
    let mut what = std::pin::pin!(what);
    loop {
        tokio::select! {
            answer = &mut what => return answer,
            Some(()) = running.next() => {}
        }
    }
}
