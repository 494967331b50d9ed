//! A queue and a store that answer as they are told, and record what they are asked.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use crate::event::StepSet;
use crate::idempotency::{
    Claim, ClaimRequest, ClaimToken, HandledAs, Notice, RecordKey, Store, StoreError,
};
use crate::metrics::QueueAction;
use crate::queue::{
    BatchAnswer, DeadLetter, EntryError, Message, Permission, Queue, QueueError, QueueErrorKind,
    QueueLimits, ReceiptHandle,
};

/// How the queue answers one call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told {
    Works,
    Fails(QueueErrorKind),
    /// Fails, after this time.
    FailsLate(Duration, QueueErrorKind),
    /// Each entry of the batch is to be tried again.
    Entries,
    /// Each receipt of the batch is invalid.
    Lost,
    /// Works, after this time.
    Takes(Duration),
}

/// A call to the queue.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) action: &'static str,
    /// When, counted from the creation of the queue.
    pub(crate) at: Duration,
    /// The message ids, or the handles.
    pub(crate) entries: Vec<String>,
    /// For how long the first entry is hidden.
    pub(crate) hidden: Duration,
    /// The reason of a copy and the number of its attributes, or the action of a probe.
    pub(crate) says: String,
}

/// A queue that answers as it is told, by action; what it is not told works.
pub(crate) struct ToldQueue {
    began_at: Instant,
    told: Mutex<HashMap<&'static str, VecDeque<Told>>>,
    /// The actions that fail until they are mended.
    broken: Mutex<HashMap<&'static str, QueueErrorKind>>,
    asked: Mutex<Vec<Asked>>,
    /// What the next receives bring.
    pub(crate) messages: Mutex<VecDeque<Vec<Message>>>,
    /// The limits of the queue.
    pub(crate) limits: Mutex<QueueLimits>,
}

impl ToldQueue {
    pub(super) fn new() -> Self {
        Self {
            began_at: Instant::now(),
            told: Mutex::default(),
            broken: Mutex::default(),
            asked: Mutex::default(),
            messages: Mutex::default(),
            limits: Mutex::default(),
        }
    }

    /// Makes all calls of an action fail until [`ToldQueue::mend`].
    pub(crate) fn break_down(&self, action: &'static str, kind: QueueErrorKind) {
        self.broken.lock().unwrap().insert(action, kind);
    }

    /// Makes the calls of an action work again.
    pub(crate) fn mend(&self, action: &str) {
        self.broken.lock().unwrap().remove(action);
    }

    /// Tells how the next calls of an action are answered.
    pub(crate) fn tell(&self, action: &'static str, answers: impl IntoIterator<Item = Told>) {
        self.told.lock().unwrap().entry(action).or_default().extend(answers);
    }

    /// Returns the calls of an action so far.
    pub(crate) fn asked(&self, action: &str) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.action == action).cloned().collect()
    }

    /// Returns the pauses between the calls of an action.
    pub(crate) fn pauses(&self, action: &str) -> Vec<Duration> {
        self.asked(action).windows(2).map(|calls| calls[1].at - calls[0].at).collect()
    }

    async fn answer(
        &self,
        action: &'static str,
        entries: Vec<String>,
        hidden: Duration,
        says: String,
    ) -> BatchAnswer {
        let (at, count) = (self.began_at.elapsed(), entries.len());
        let asked = {
            let mut asked = self.asked.lock().unwrap();
            asked.push(Asked { action, at, entries, hidden, says });
            asked.len()
        };
        assert!(asked < 2_000, "the engine asks {action} again and again");
        let told = self.told.lock().unwrap().get_mut(action).and_then(VecDeque::pop_front);
        let broken = self.broken.lock().unwrap().get(action).copied().map(Told::Fails);
        let detail = "as it is told".to_owned();
        match told.or(broken).unwrap_or(Told::Works) {
            Told::Works => Ok(vec![Ok(()); count]),
            Told::Fails(kind) => Err(QueueError { kind, detail }),
            Told::FailsLate(time, kind) => {
                sleep(time).await;
                Err(QueueError { kind, detail })
            }
            Told::Entries => Ok(vec![Err(EntryError::Retry(detail)); count]),
            Told::Lost => Ok(vec![Err(EntryError::Lost(detail)); count]),
            Told::Takes(time) => {
                sleep(time).await;
                Ok(vec![Ok(()); count])
            }
        }
    }
}

fn handles(leases: &[(ReceiptHandle, Duration)]) -> (Vec<String>, Duration) {
    let hidden = leases.first().map_or(Duration::ZERO, |(_, hidden)| *hidden);
    (leases.iter().map(|(handle, _)| handle.0.to_string()).collect(), hidden)
}

#[async_trait]
impl Queue for ToldQueue {
    async fn receive(&self, max: usize, visibility: Duration) -> Result<Vec<Message>, QueueError> {
        let asked = vec![String::new(); max];
        self.answer("receive", asked, visibility, String::new()).await?;
        let messages = self.messages.lock().unwrap().pop_front();
        Ok(messages.unwrap_or_default())
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        let entries = handles.iter().map(|handle| handle.0.to_string()).collect();
        self.answer("delete", entries, Duration::ZERO, String::new()).await
    }

    async fn extend(&self, leases: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        let (entries, hidden) = handles(leases);
        self.answer("extend", entries, hidden, String::new()).await
    }

    async fn hand_back(&self, messages: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        let (entries, hidden) = handles(messages);
        self.answer("hand_back", entries, hidden, String::new()).await
    }

    async fn dead_letter(&self, letter: &DeadLetter) -> Result<(), QueueError> {
        let says = format!("{} {}", letter.reason, letter.all_attributes().len());
        let entries = vec![letter.message_id.0.to_string()];
        self.answer("dead_letter", entries, Duration::ZERO, says).await.map(drop)
    }

    async fn limits(&self) -> Result<QueueLimits, QueueError> {
        self.answer("limits", vec![], Duration::ZERO, String::new()).await?;
        Ok(*self.limits.lock().unwrap())
    }

    async fn probe(&self, action: QueueAction) -> Result<Permission, QueueError> {
        let says = action.as_str().to_owned();
        self.answer("probe", vec![], Duration::ZERO, says).await?;
        Ok(Permission::Allowed)
    }
}

/// A store that grants everything, unless it is told otherwise. It records what it is asked.
#[derive(Default)]
pub(crate) struct ToldStore {
    pub(crate) claims: Mutex<VecDeque<Result<Claim, StoreError>>>,
    pub(crate) others: Mutex<VecDeque<Result<(), StoreError>>>,
    pub(crate) asked: Mutex<Vec<(&'static str, ClaimToken)>>,
    /// Whether no claim is answered.
    pub(crate) hangs: AtomicBool,
    /// Whether it cannot be reached.
    pub(crate) is_cut_off: AtomicBool,
}

impl ToldStore {
    fn answer(&self, call: &'static str, token: ClaimToken) -> Result<(), StoreError> {
        self.asked.lock().unwrap().push((call, token));
        self.others.lock().unwrap().pop_front().unwrap_or(Ok(()))
    }

    /// Returns the names of the calls so far.
    pub(crate) fn calls(&self) -> Vec<&'static str> {
        self.asked.lock().unwrap().iter().map(|(call, _)| *call).collect()
    }
}

#[async_trait]
impl Store for ToldStore {
    async fn claim(&self, _: RecordKey<'_>, request: ClaimRequest) -> Result<Claim, StoreError> {
        self.asked.lock().unwrap().push(("claim", request.token));
        if self.hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let told = self.claims.lock().unwrap().pop_front();
        told.unwrap_or(Ok(Claim::Ours(StepSet::default())))
    }

    async fn renew(
        &self,
        _: RecordKey<'_>,
        token: ClaimToken,
        _: Duration,
    ) -> Result<(), StoreError> {
        self.answer("renew", token)
    }

    async fn record(
        &self,
        _: RecordKey<'_>,
        token: ClaimToken,
        _: StepSet,
    ) -> Result<(), StoreError> {
        self.answer("record", token)
    }

    async fn complete(
        &self,
        _: RecordKey<'_>,
        token: ClaimToken,
        _: HandledAs,
    ) -> Result<(), StoreError> {
        self.answer("complete", token)
    }

    async fn release(
        &self,
        _: RecordKey<'_>,
        token: ClaimToken,
        _: StepSet,
    ) -> Result<(), StoreError> {
        self.answer("release", token)
    }

    async fn ping(&self) -> Result<Notice, StoreError> {
        if self.is_cut_off.load(Ordering::Relaxed) {
            return Err(StoreError::unavailable("as it is told"));
        }
        Ok(Notice::none())
    }
}
