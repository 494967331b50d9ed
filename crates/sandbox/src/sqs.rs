//! An SQS-compatible server in memory for tests and demonstrations: the AWS JSON protocol over HTTP
//! on a local port, with a ledger of all calls and settings for faults.
//!
//! It follows the AWS documentation, not another stand-in. It does not check signatures and does
//! not support the older XML protocol (for example boto3 before 1.28). Where the documentation
//! leaves a choice, the simplest behaviour applies: a standard queue delivers the message that has
//! been visible longest. The conformance suite (`crate::conformance`) tests it against the AWS SDK.

mod action;
mod ailment;
mod batch;
mod connection;
mod error;
mod fair;
mod faults;
mod fifo;
mod handle;
mod ledger;
mod message;
mod permissions;
mod queue;
mod queues;
mod receive;
mod send;
mod server;
mod settings;
mod settle;
mod wire;
mod world;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

pub use action::Action;
pub use ailment::{Ailment, Right};
pub use error::{ErrorCode, SqsError};
pub use faults::{Fault, Faults};
pub use ledger::{Entry, FaultKind, Ledger, Outcome};
pub use message::{AttributeValue, NewMessage};
pub use permissions::Grant;
pub use queue::{Counts, MessageState};
pub use settings::{QueueSpec, Redrive};

use settings::Settings;
use world::Shared;

/// A running server. Clones share it; it stops when the last clone is dropped, or on [`Sqs::stop`].
#[derive(Clone, Debug)]
pub struct Sqs {
    shared: Arc<Shared>,
    running: Arc<Running>,
}

/// Stops the server when the last handle is dropped.
#[derive(Debug)]
struct Running(CancellationToken);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// `MessageId`.
    pub id: String,
    /// The body as sent.
    pub body: String,
    /// The message attributes as sent.
    pub attributes: std::collections::BTreeMap<String, AttributeValue>,
    /// Its message group.
    pub group: Option<String>,
    /// The system attribute `AWSTraceHeader` as sent.
    pub trace_header: Option<String>,
    /// Receives so far, in all its queues.
    pub receive_count: u32,
    /// Its state.
    pub state: MessageState,
}

impl Sqs {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// If no local port is free.
    pub async fn start() -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .expect("a free port on the loopback interface")
    }

    /// Starts on this address.
    ///
    /// # Errors
    /// If the address cannot be bound.
    pub async fn start_on(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared::new(endpoint));
        let stop = CancellationToken::new();
        tokio::spawn(server::serve(Arc::clone(&shared), listener, stop.clone()));
        Ok(Self { shared, running: Arc::new(Running(stop)) })
    }

    /// Stops listening and closes every connection. The stored state stays readable.
    pub fn stop(&self) {
        self.running.0.cancel();
    }

    /// Returns `http://127.0.0.1:<port>`, for `AWS_ENDPOINT_URL`.
    pub fn endpoint_url(&self) -> String {
        self.shared.endpoint.clone()
    }

    /// Creates a queue, which replaces one of the same name, and returns its URL.
    ///
    /// # Panics
    /// If the name is invalid for this kind of queue.
    pub fn create_queue(&self, name: &str, spec: QueueSpec) -> String {
        settings::check_queue_name(name, spec.fifo).expect("a valid queue name");
        let now = self.shared.now();
        self.shared.lock().insert(name, Settings::new(spec), now);
        self.shared.url(name)
    }

    /// Sets a queue attribute, as `SetQueueAttributes` does.
    ///
    /// # Panics
    /// If SQS would refuse it.
    pub fn set_attribute(&self, queue_url: &str, name: &str, value: &str) {
        let attributes = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let now = self.shared.now();
        let changed = self.shared.lock().reconfigure(Some(queue_url), &attributes, now);
        changed.expect("an existing queue and a valid attribute");
    }

    /// Sends a message with only a body and returns its id.
    ///
    /// # Panics
    /// If SQS would refuse it; [`Sqs::send_message`] returns the error instead.
    pub fn send(&self, queue_url: &str, body: impl Into<String>) -> String {
        self.send_message(queue_url, NewMessage::new(body))
            .expect("an existing queue and a valid body")
    }

    /// Sends a message and returns its id.
    ///
    /// # Errors
    /// As `SendMessage`.
    pub fn send_message(&self, queue_url: &str, message: NewMessage) -> Result<String, SqsError> {
        send::send_new(&self.shared, queue_url, message)
    }

    /// Returns the current message counts; all zero for a missing queue.
    pub fn counts(&self, queue_url: &str) -> Counts {
        let now = self.shared.now();
        let mut world = self.shared.lock();
        world.queue(Some(queue_url), now).map(|queue| queue.counts()).unwrap_or_default()
    }

    /// Returns all messages of a queue in order of sending, without receiving them.
    pub fn peek_all(&self, queue_url: &str) -> Vec<StoredMessage> {
        let now = self.shared.now();
        let mut world = self.shared.lock();
        let Ok(queue) = world.queue(Some(queue_url), now) else {
            return Vec::new();
        };
        let mut messages: Vec<_> = queue.messages.iter().collect();
        messages.sort_by_key(|(key, _)| **key);
        messages
            .into_iter()
            .map(|(_, message)| StoredMessage {
                id: message.content.id.clone(),
                body: message.content.body.clone(),
                attributes: message.content.attributes.clone(),
                group: message.content.group.clone(),
                trace_header: message.content.trace_header.clone(),
                receive_count: message.receive_count,
                state: message.placed.state,
            })
            .collect()
    }

    /// Allows only these actions from now on. At first everything is allowed.
    pub fn authorize(&self, grants: Vec<Grant>) {
        self.shared.lock().permissions.only(grants);
    }

    /// Returns the fault settings of a queue.
    pub fn faults(&self, queue_url: &str) -> Faults {
        Faults::new(Arc::clone(&self.shared), queue_url.to_owned())
    }

    /// Returns the ledger of a queue; empty for a missing queue.
    pub fn ledger(&self, queue_url: &str) -> Ledger {
        let now = self.shared.now();
        let mut world = self.shared.lock();
        world.queue(Some(queue_url), now).map(|queue| queue.ledger.clone()).unwrap_or_default()
    }

    /// Waits until `what` holds, with a check after every change and every ledger entry. `what` may
    /// read the ledger too. Returns false if `timeout` passes first or the queue does not exist.
    /// Cancel-safe.
    pub async fn wait_until(
        &self,
        queue_url: &str,
        what: impl Fn(&Counts) -> bool + Send,
        timeout: Duration,
    ) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let now = self.shared.now();
            let changed = match self.shared.lock().queue(Some(queue_url), now) {
                Ok(queue) => Arc::clone(&queue.changed),
                Err(_) => return false,
            };
            let mut notified = std::pin::pin!(changed.notified());
            // Registered before the check, so that no change is missed in between.
            notified.as_mut().enable();
            let (counts, timer) = match self.shared.lock().queue(Some(queue_url), now) {
                Ok(queue) => (queue.counts(), queue.next_timer()),
                Err(_) => return false,
            };
            // Checked without the lock, because it may read the ledger.
            if what(&counts) {
                return true;
            }
            if now.instant >= deadline {
                return false;
            }
            tokio::select! {
                () = notified => {}
                () = sleep_until(timer.unwrap_or(deadline).min(deadline)) => {}
            }
        }
    }
}
