//! Wrappers between the worker and a stand-in, to observe or delay calls: a queue that counts, and
//! a gate in front of the Reservation API. Both pass all calls on unchanged.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::client::{
    CallContext, CallError, Reservation, ReservationApi, TargetStatus,
};
use reservation_worker::event::ReservationId;
use reservation_worker::metrics::QueueAction;
use reservation_worker::queue::sqs::SqsQueue;
use reservation_worker::queue::{
    BatchAnswer, DeadLetter, Message, Permission, Queue, QueueError, QueueLimits, ReceiptHandle,
};
use tokio::sync::watch;

/// A queue that counts the calls made to it.
pub(crate) struct Spy {
    queue: SqsQueue,
    receives_open: AtomicUsize,
    delete_sizes: Mutex<Vec<usize>>,
    receive_sizes: Mutex<Vec<usize>>,
    probes: AtomicUsize,
}

impl Spy {
    pub(crate) fn new(queue: SqsQueue) -> Self {
        Self {
            queue,
            receives_open: AtomicUsize::new(0),
            delete_sizes: Mutex::default(),
            receive_sizes: Mutex::default(),
            probes: AtomicUsize::new(0),
        }
    }

    /// Returns the number of open receives.
    pub(crate) fn receives_open(&self) -> usize {
        self.receives_open.load(Ordering::SeqCst)
    }

    /// Returns the number of answered probes.
    pub(crate) fn probes(&self) -> usize {
        self.probes.load(Ordering::SeqCst)
    }

    /// Returns the number of entries of each delete call so far.
    pub(crate) fn delete_sizes(&self) -> Vec<usize> {
        self.delete_sizes.lock().unwrap().clone()
    }

    /// Returns the number of messages requested by each receive so far.
    pub(crate) fn receive_sizes(&self) -> Vec<usize> {
        self.receive_sizes.lock().unwrap().clone()
    }
}

#[async_trait]
impl Queue for Spy {
    async fn receive(&self, max: usize, visibility: Duration) -> Result<Vec<Message>, QueueError> {
        self.receive_sizes.lock().unwrap().push(max);
        self.receives_open.fetch_add(1, Ordering::SeqCst);
        let answer = self.queue.receive(max, visibility).await;
        self.receives_open.fetch_sub(1, Ordering::SeqCst);
        answer
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        self.delete_sizes.lock().unwrap().push(handles.len());
        self.queue.delete(handles).await
    }

    async fn extend(&self, leases: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        self.queue.extend(leases).await
    }

    async fn hand_back(&self, messages: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        self.queue.hand_back(messages).await
    }

    fn is_fifo(&self) -> bool {
        self.queue.is_fifo()
    }

    async fn limits(&self) -> Result<QueueLimits, QueueError> {
        self.queue.limits().await
    }

    async fn dead_letter(&self, dead_letter: &DeadLetter) -> Result<(), QueueError> {
        self.queue.dead_letter(dead_letter).await
    }

    async fn probe(&self, action: QueueAction) -> Result<Permission, QueueError> {
        let answer = self.queue.probe(action).await;
        self.probes.fetch_add(1, Ordering::SeqCst);
        answer
    }
}

/// Holds calls back until a test opens it.
pub(crate) struct Gate {
    api: Arc<dyn ReservationApi>,
    /// Reservations whose calls are held back; `*` stands for all.
    closed: watch::Sender<HashSet<String>>,
    entered: Mutex<Vec<String>>,
}

impl Gate {
    /// Puts a gate in front of `api`, closed for these reservations.
    pub(crate) fn closed(api: Arc<dyn ReservationApi>, reservations: &[&str]) -> Arc<Self> {
        let closed = reservations.iter().map(|id| (*id).to_owned()).collect();
        Arc::new(Self { api, closed: watch::Sender::new(closed), entered: Mutex::default() })
    }

    /// Lets all calls pass from now on.
    pub(crate) fn open(&self) {
        self.closed.send_modify(HashSet::clear);
    }

    /// Returns the reservations whose calls have reached the gate, in order.
    pub(crate) fn entered(&self) -> Vec<String> {
        self.entered.lock().unwrap().clone()
    }

    async fn pass(&self, id: &ReservationId) {
        self.entered.lock().unwrap().push(id.as_str().to_owned());
        let mut closed = self.closed.subscribe();
        let open =
            |closed: &HashSet<String>| !closed.contains("*") && !closed.contains(id.as_str());
        closed.wait_for(open).await.expect("the gate holds the sender");
    }
}

#[async_trait]
impl ReservationApi for Gate {
    async fn set_status(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
        target: TargetStatus,
        payment_intent_id: Option<&str>,
    ) -> Result<(), CallError> {
        self.pass(id).await;
        self.api.set_status(call, id, target, payment_intent_id).await
    }

    async fn reservation(
        &self,
        call: &CallContext<'_>,
        id: &ReservationId,
    ) -> Result<Reservation, CallError> {
        self.api.reservation(call, id).await
    }
}
