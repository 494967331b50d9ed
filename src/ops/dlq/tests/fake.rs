//! A queue in memory, in paused time: standard or FIFO, with failures on demand.

use std::collections::{HashSet, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::super::scan::lock;
use crate::queue::{
    BatchAnswer, DeadLetter, EntryError, Message, MessageGroup, MessageId, OperatorQueue, Queue,
    QueueCounts, QueueError, QueueErrorKind, ReceiptHandle, RedriveCopy,
};

struct Stored {
    message: Message,
    visible_at: Instant,
    receives: u32,
}

#[derive(Default)]
struct FakeState {
    stored: Vec<Stored>,
    sent: Vec<RedriveCopy>,
    sends: VecDeque<QueueErrorKind>,
    receives: VecDeque<QueueErrorKind>,
    /// Bytes of the bodies that are being sent, and the most there were.
    sending: usize,
    sending_max: usize,
    failing_deletes: u32,
    undeleted: u32,
}

/// The queue.
#[derive(Default)]
pub(super) struct FakeQueue {
    state: Mutex<FakeState>,
    is_fifo: bool,
    /// Whether visibility may not be changed.
    pub(super) is_visibility_denied: bool,
    /// How long a send takes.
    pub(super) send_takes: Duration,
}

pub(super) fn error(kind: QueueErrorKind) -> QueueError {
    QueueError { kind, detail: "as the test says".to_owned() }
}

impl FakeQueue {
    pub(super) fn new(is_fifo: bool, messages: Vec<Message>) -> Self {
        let queue = Self { is_fifo, ..Self::default() };
        messages.into_iter().for_each(|message| queue.put(message));
        queue
    }

    pub(super) fn put(&self, message: Message) {
        let stored = Stored { message, visible_at: Instant::now(), receives: 0 };
        lock(&self.state).stored.push(stored);
    }

    /// Fails the next sends in these ways. A timeout is unclear: the copy is stored.
    pub(super) fn fail_sends(&self, kinds: &[QueueErrorKind]) {
        lock(&self.state).sends.extend(kinds);
    }

    pub(super) fn fail_receives(&self, kinds: &[QueueErrorKind]) {
        lock(&self.state).receives.extend(kinds);
    }

    /// Fails so many entries of deletes.
    pub(super) fn fail_deletes(&self, entries: u32) {
        lock(&self.state).failing_deletes = entries;
    }

    /// Acknowledges so many deletes, and delivers the messages once more.
    pub(super) fn forget_deletes(&self, entries: u32) {
        lock(&self.state).undeleted = entries;
    }

    /// The copies that were stored, in order.
    pub(super) fn sent(&self) -> Vec<RedriveCopy> {
        lock(&self.state).sent.clone()
    }

    /// The most bytes of bodies that were sent at once.
    pub(super) fn sending_max(&self) -> usize {
        lock(&self.state).sending_max
    }

    /// The ids of the messages that can be received now.
    pub(super) fn visible(&self) -> Vec<String> {
        let now = Instant::now();
        let state = lock(&self.state);
        let visible = state.stored.iter().filter(|one| one.visible_at <= now);
        visible.map(|one| one.message.id.to_string()).collect()
    }

    pub(super) fn len(&self) -> usize {
        lock(&self.state).stored.len()
    }

    /// The most receives of one message.
    pub(super) fn receives_max(&self) -> u32 {
        lock(&self.state).stored.iter().map(|one| one.receives).max().unwrap_or(0)
    }

    fn take(&self, max: usize, visibility: Duration) -> Vec<Message> {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let name =
            |message: &Message| message.group.as_ref().map(|g| MessageGroup::name(g).to_owned());
        let hidden = state.stored.iter().filter(|one| one.visible_at > now);
        let blocked: HashSet<_> = hidden.filter_map(|one| name(&one.message)).collect();
        let is_fifo = self.is_fifo;
        let is_free = |one: &&mut Stored| {
            let is_blocked =
                is_fifo && name(&one.message).is_some_and(|name| blocked.contains(&name));
            one.visible_at <= now && !is_blocked
        };
        let mut taken = Vec::new();
        for one in state.stored.iter_mut().filter(is_free).take(max) {
            one.receives += 1;
            one.visible_at = now + visibility;
            let handle = format!("{}/{}", one.message.id, one.receives);
            one.message.handle = ReceiptHandle(handle.into());
            taken.push(one.message.clone());
        }
        taken
    }

    fn change(&self, changes: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        if self.is_visibility_denied {
            return Err(error(QueueErrorKind::Denied));
        }
        let now = Instant::now();
        let mut state = lock(&self.state);
        let mut change = |(handle, after): &(ReceiptHandle, Duration)| {
            let is_it = |one: &&mut Stored| one.message.handle == *handle && one.visible_at > now;
            match state.stored.iter_mut().find(is_it) {
                Some(one) => {
                    one.visible_at = now + *after;
                    Ok(())
                }
                None => Err(EntryError::Lost("not in flight".to_owned())),
            }
        };
        Ok(changes.iter().map(&mut change).collect())
    }
}

#[async_trait]
impl Queue for FakeQueue {
    async fn receive(&self, max: usize, visibility: Duration) -> Result<Vec<Message>, QueueError> {
        if let Some(kind) = lock(&self.state).receives.pop_front() {
            return Err(error(kind));
        }
        let taken = self.take(max, visibility);
        // An empty long poll lasts a second; an answer some time too.
        let wait = if taken.is_empty() { Duration::from_secs(1) } else { Duration::from_millis(5) };
        sleep(wait).await;
        Ok(taken)
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        let now = Instant::now();
        let mut state = lock(&self.state);
        let mut delete = |handle: &ReceiptHandle| {
            if state.failing_deletes > 0 {
                state.failing_deletes -= 1;
                return Err(EntryError::Retry("InternalError".to_owned()));
            }
            let is_it = |one: &Stored| one.message.handle == *handle;
            let Some(at) = state.stored.iter().position(is_it) else { return Ok(()) };
            if state.undeleted > 0 {
                state.undeleted -= 1;
                state.stored[at].visible_at = now;
            } else {
                state.stored.remove(at);
            }
            Ok(())
        };
        Ok(handles.iter().map(&mut delete).collect())
    }

    async fn extend(&self, leases: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        self.change(leases)
    }

    async fn hand_back(&self, messages: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        self.change(messages)
    }

    async fn dead_letter(&self, _: &DeadLetter) -> Result<(), QueueError> {
        Err(error(QueueErrorKind::NoDeadLetterQueue))
    }

    fn is_fifo(&self) -> bool {
        self.is_fifo
    }
}

#[async_trait]
impl OperatorQueue for FakeQueue {
    async fn counts(&self) -> Result<QueueCounts, QueueError> {
        let visible = u64::try_from(self.visible().len()).unwrap_or(u64::MAX);
        let all = u64::try_from(self.len()).unwrap_or(u64::MAX);
        Ok(QueueCounts { visible, in_flight: all - visible })
    }

    async fn redrive(&self, copy: &RedriveCopy) -> Result<MessageId, QueueError> {
        {
            let mut state = lock(&self.state);
            state.sending += copy.body.len();
            state.sending_max = state.sending_max.max(state.sending);
        }
        sleep(self.send_takes).await;
        let mut state = lock(&self.state);
        state.sending -= copy.body.len();
        let failure = state.sends.pop_front();
        if matches!(failure, None | Some(QueueErrorKind::Timeout)) {
            let is_known = state.sent.iter().any(|sent| sent.source_id == copy.source_id);
            if !(self.is_fifo && is_known) {
                state.sent.push(copy.clone());
            }
        }
        match failure {
            Some(kind) => Err(error(kind)),
            None => Ok(MessageId(format!("new-{}", copy.source_id).into())),
        }
    }
}

/// A dead-letter queue into which the copies of a redrive fall at once.
pub(super) struct Returning {
    pub(super) dlq: Arc<FakeQueue>,
    pub(super) sent_at: SystemTime,
}

#[async_trait]
impl Queue for Returning {
    async fn receive(&self, _: usize, _: Duration) -> Result<Vec<Message>, QueueError> {
        Ok(Vec::new())
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        Ok(vec![Ok(()); handles.len()])
    }

    async fn extend(&self, leases: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        Ok(vec![Ok(()); leases.len()])
    }

    async fn hand_back(&self, messages: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        Ok(vec![Ok(()); messages.len()])
    }

    async fn dead_letter(&self, _: &DeadLetter) -> Result<(), QueueError> {
        Ok(())
    }
}

#[async_trait]
impl OperatorQueue for Returning {
    async fn counts(&self) -> Result<QueueCounts, QueueError> {
        Ok(QueueCounts::default())
    }

    async fn redrive(&self, copy: &RedriveCopy) -> Result<MessageId, QueueError> {
        let id = format!("again-{}", copy.source_id);
        let message = Message {
            id: MessageId(id.as_str().into()),
            sent_at: Some(self.sent_at),
            attributes: copy.attributes.clone(),
            ..super::message(&id, &copy.body, Vec::new())
        };
        self.dlq.put(message);
        Ok(MessageId(format!("new-{}", copy.source_id).into()))
    }
}
