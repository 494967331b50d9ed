//! Sends letters back to the queue: first the copy, then the delete.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use serde_json::{Value, json};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until};

use super::console::Console;
use super::delete::delete;
use super::letter::{IdHash, Letter};
use super::repeat::can_pass;
use super::scan::{RunState, Work, lock};
use super::text::{brief, printable};
use crate::queue::{MessageGroup, MessageId, OperatorQueue, QueueErrorKind, RedriveCopy};
use crate::retry::Backoff;

/// How long an unclear or throttled send is repeated.
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);

/// Pauses between the attempts.
const RETRY: Backoff = Backoff { base: Duration::from_millis(200), cap: Duration::from_secs(5) };

/// Time that a letter must stay hidden for, before it is sent: a send takes 5 s at most, and then
/// it is deleted.
const LEASE_MIN: Duration = Duration::from_secs(10);

/// Bytes of bodies that are sent at once at most: two of the largest. SQS must have each within
/// 5 s, so on a slow line more at once would all be cut off, again and again.
const BYTES_AT_ONCE: u32 = 2 * 1024 * 1024;

/// Letters in hand at most, beside the rate: what is sent in two seconds.
const SECONDS_IN_HAND: u32 = 2;
const BATCHES_MAX: usize = 16;

/// Redrives a second up to which each letter is deleted at once.
///
/// Above it, those of one receive are deleted together: that takes a tenth of the calls, and a kill
/// leaves more letters to be sent again.
const SINGLE_DELETES_MAX: u32 = 50;

/// Spaces sends evenly.
#[derive(Debug)]
pub(super) struct Pacer {
    interval: Duration,
    next: Mutex<Instant>,
}

impl Pacer {
    pub(super) fn new(per_second: u32) -> Self {
        let interval = Duration::from_secs(1) / per_second.max(1);
        Self { interval, next: Mutex::new(Instant::now()) }
    }

    async fn turn(&self) {
        let at = {
            let mut next = lock(&self.next);
            let at = (*next).max(Instant::now());
            *next = at + self.interval;
            at
        };
        sleep_until(at).await;
    }
}

/// Returns the permits for the bytes that are sent at once.
pub(super) fn send_permits() -> Semaphore {
    Semaphore::new(usize::try_from(BYTES_AT_ONCE).unwrap_or(Semaphore::MAX_PERMITS))
}

/// Redrives.
pub(super) struct RedriveWork<'a> {
    pub(super) held: &'a RunState<'a>,
    pub(super) source: &'a dyn OperatorQueue,
    pub(super) console: &'a Console,
    pub(super) pacer: Pacer,
    /// A permit for each byte that may be sent now.
    pub(super) send_permits: Semaphore,
    pub(super) rate: u32,
}

/// What became of a letter.
enum SendOutcome {
    /// The copy is stored, with this id.
    Sent(MessageId),
    /// It is not known to be stored; the letter stays.
    Failed(String),
    /// Not tried, as the run ends.
    Stopped,
}

/// The end of a letter that was tried.
#[derive(Clone, Copy)]
enum Fate {
    /// Sent and deleted.
    Redriven,
    /// Sent, and its dead letter is still there.
    NotDeleted,
    /// Not sent.
    Failed,
}

impl Fate {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Redriven => "redriven",
            Self::NotDeleted => "not_deleted",
            Self::Failed => "failed",
        }
    }
}

/// A letter after its attempt, without its body.
struct Tried {
    id: IdHash,
    fields: serde_json::Map<String, Value>,
    attempt: SendOutcome,
}

#[async_trait]
impl Work for RedriveWork<'_> {
    fn batches_max(&self) -> usize {
        let letters =
            usize::try_from(self.rate.saturating_mul(SECONDS_IN_HAND)).unwrap_or(usize::MAX);
        (letters / crate::queue::BATCH_MAX).clamp(2, BATCHES_MAX)
    }

    async fn handle(&self, letters: Vec<Letter>) {
        let is_slow = self.rate <= SINGLE_DELETES_MAX;
        let mut running: FuturesUnordered<_> = chains(letters, self.source.is_fifo())
            .into_iter()
            .map(|chain| async move {
                let tried = self.send_chain(chain).await;
                if is_slow { self.settle(tried).await } else { tried }
            })
            .collect();
        let mut left = Vec::new();
        while let Some(tried) = running.next().await {
            left.extend(tried);
        }
        self.settle(left).await;
    }
}

/// Groups letters that must be sent one after another: those of a group, for a FIFO queue.
fn chains(letters: Vec<Letter>, is_fifo: bool) -> Vec<Vec<Letter>> {
    let mut chains: Vec<Vec<Letter>> = Vec::new();
    let mut of_group: HashMap<String, usize> = HashMap::new();
    for letter in letters {
        let group = letter.message.group.as_ref().map(|group| MessageGroup::name(group).to_owned());
        match group.filter(|_| is_fifo) {
            Some(group) => {
                let at = *of_group.entry(group).or_insert(chains.len());
                if at == chains.len() {
                    chains.push(Vec::new());
                }
                chains[at].push(letter);
            }
            None => chains.push(vec![letter]),
        }
    }
    chains
}

impl RedriveWork<'_> {
    /// Sends the letters of a group in order. After one that failed none is sent, so that none
    /// overtakes it.
    async fn send_chain(&self, chain: Vec<Letter>) -> Vec<Tried> {
        let mut tried = Vec::new();
        let (mut has_failed, mut has_stopped) = (false, false);
        for letter in chain {
            let (id, fields) = (letter.hash(), brief(&letter));
            let attempt = if has_stopped {
                SendOutcome::Stopped
            } else if has_failed {
                SendOutcome::Failed(
                    "an earlier one of its message group could not be sent".to_owned(),
                )
            } else {
                self.send(letter).await
            };
            has_failed |= matches!(attempt, SendOutcome::Failed(_));
            has_stopped |= matches!(attempt, SendOutcome::Stopped);
            tried.push(Tried { id, fields, attempt });
        }
        tried
    }

    /// Deletes what was sent, and reports all. Returns nothing that is left to settle.
    async fn settle(&self, tried: Vec<Tried>) -> Vec<Tried> {
        let is_sent = |one: &&Tried| matches!(one.attempt, SendOutcome::Sent(_));
        let sent: Vec<IdHash> = tried.iter().filter(is_sent).map(|one| one.id).collect();
        let kept = delete(self.held, &sent).await;
        for one in tried {
            let is_kept = kept.contains(&one.id);
            self.report(one, is_kept).await;
        }
        Vec::new()
    }

    /// Sends one letter. Repeats while it is unclear whether the copy is stored.
    async fn send(&self, letter: Letter) -> SendOutcome {
        let (id, has_own_id) = (letter.hash(), letter.has_own_id());
        let original = IdHash::of(letter.message.original_id());
        let mut copy = RedriveCopy::new(letter.message, has_own_id);
        self.tell_left_out(&copy).await;
        let (began, mut failures) = (Instant::now(), 0);
        loop {
            let room = tokio::select! {
                biased;
                () = self.held.halt.cancelled() => return SendOutcome::Stopped,
                room = self.turn(copy.body.len()) => room,
            };
            if !self.held.leases.lasts_for(id, LEASE_MIN) {
                return SendOutcome::Failed(
                    "it is not held any more: SQS showed it to others".to_owned(),
                );
            }
            // Its own dead letter, or that of its copy, is not touched again in this run: also if
            // the copy is stored and the answer is lost.
            lock(&self.held.sent).insert(original);
            let sent = self.source.redrive(&copy).await;
            drop(room);
            let why = match sent {
                Ok(new_id) => {
                    lock(&self.held.sent).insert(IdHash::of(&new_id.0));
                    return SendOutcome::Sent(new_id);
                }
                Err(why) => why,
            };
            let had_header = copy.trace_header.is_some();
            if why.kind == QueueErrorKind::Refused && copy.shorten() {
                if had_header && copy.trace_header.is_none() {
                    self.tell_header_left_out(&copy).await;
                }
                continue;
            }
            if matches!(why.kind, QueueErrorKind::Denied | QueueErrorKind::NoSuchQueue) {
                self.held.fail(format!("the queue cannot be sent to: {why}"));
            }
            if !can_pass(&why) || began.elapsed() >= RETRY_TIMEOUT {
                return SendOutcome::Failed(why.to_string());
            }
            let pause = RETRY.delay(failures, &mut fastrand::Rng::new());
            failures += 1;
            tokio::select! {
                () = sleep(pause) => {}
                () = self.held.halt.cancelled() => return SendOutcome::Failed(why.to_string()),
            }
        }
    }

    /// Waits until the rate allows a send, and until so many bytes fit beside those that are sent
    /// now.
    async fn turn(&self, bytes: usize) -> Option<SemaphorePermit<'_>> {
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(BYTES_AT_ONCE);
        // Fails only if it is closed, which it never is.
        let room = self.send_permits.acquire_many(bytes).await.ok();
        self.pacer.turn().await;
        room
    }

    async fn tell_left_out(&self, copy: &RedriveCopy) {
        if let Some(name) = &copy.left_out {
            let (id, name) = (printable(&copy.source_id.0), printable(name));
            self.console.tell(&format!(
                "{id}: the attribute {name} is left out: the event has no id of its own, and redrive_of keeps its identity"
            )).await;
        }
    }

    async fn tell_header_left_out(&self, copy: &RedriveCopy) {
        let id = printable(&copy.source_id.0);
        self.console
            .tell(&format!("{id}: the queue refuses it: it is sent without its X-Ray header"))
            .await;
    }

    async fn report(&self, tried: Tried, is_kept: bool) {
        let Tried { id: _, mut fields, attempt } = tried;
        let (fate, new_id, error) = match attempt {
            SendOutcome::Stopped => return,
            SendOutcome::Sent(new_id) if is_kept => {
                let error = "it is in the queue, and its dead letter could not be deleted";
                (Fate::NotDeleted, Some(new_id), Some(error.to_owned()))
            }
            SendOutcome::Sent(new_id) => (Fate::Redriven, Some(new_id), None),
            SendOutcome::Failed(error) => (Fate::Failed, None, Some(error)),
        };
        self.held.tally.change(|numbers| match fate {
            Fate::Redriven => numbers.done += 1,
            Fate::NotDeleted => {
                numbers.not_deleted += 1;
                numbers.failed += 1;
            }
            Fate::Failed => numbers.failed += 1,
        });
        if let Some(error) = &error {
            let id = fields.get("message_id").and_then(Value::as_str).unwrap_or_default();
            self.console.tell(&format!("{}: {}", printable(id), error)).await;
        }
        if self.console.is_json() {
            fields.insert("result".to_owned(), json!(fate.as_str()));
            fields.insert("new_message_id".to_owned(), json!(new_id.map(|id| id.0)));
            fields.insert("failure".to_owned(), json!(error));
            self.console.print_json(&Value::Object(fields)).await;
        }
    }
}
