//! An SQS-compatible server in memory, for tests and demonstrations: the AWS JSON protocol over
//! HTTP on a local port, with a ledger of what it saw and knobs for what should go wrong.
//!
//! It follows the AWS documentation, not any other stand-in. Signatures are not checked, and the older
//! XML protocol (boto3 before 1.28 and its like) is not spoken. What real
//! SQS leaves open it does in the plain way: a standard queue hands out what has been visible longest.
//! One conformance suite (`crate::conformance`) holds it to what the AWS SDK expects.

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

/// A running server. Clones share it; it stops with the last of them, or on [`Sqs::stop`].
#[derive(Clone, Debug)]
pub struct Sqs {
    shared: Arc<Shared>,
    running: Arc<Running>,
}

/// Stops the server when the last handle lets go of it.
#[derive(Debug)]
struct Running(CancellationToken);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// A message as it lies in its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// `MessageId`.
    pub id: String,
    /// The body as sent.
    pub body: String,
    /// The message attributes as sent.
    pub attributes: std::collections::BTreeMap<String, AttributeValue>,
    /// The message group that it was sent with.
    pub group: Option<String>,
    /// Receives so far, in all queues that it has been in.
    pub receive_count: u32,
    /// Where it stands.
    pub state: MessageState,
}

impl Sqs {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// Where the machine has no free local port.
    pub async fn start() -> Self {
        Self::start_on(SocketAddr::from(([127, 0, 0, 1], 0)))
            .await
            .expect("a free port on the loopback interface")
    }

    /// Starts on an address of your choice.
    ///
    /// # Errors
    /// Where the address cannot be bound.
    pub async fn start_on(address: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let shared = Arc::new(Shared::new(endpoint));
        let stop = CancellationToken::new();
        tokio::spawn(server::serve(Arc::clone(&shared), listener, stop.clone()));
        Ok(Self { shared, running: Arc::new(Running(stop)) })
    }

    /// Stops listening and closes every connection. What is in memory can still be looked at.
    pub fn stop(&self) {
        self.running.0.cancel();
    }

    /// `http://127.0.0.1:<port>`, for `AWS_ENDPOINT_URL`.
    pub fn endpoint_url(&self) -> String {
        self.shared.endpoint.clone()
    }

    /// Makes a queue, in place of one of the same name, and returns its URL.
    ///
    /// # Panics
    /// Where SQS would refuse the name for this kind of queue.
    pub fn create_queue(&self, name: &str, spec: QueueSpec) -> String {
        settings::check_queue_name(name, spec.fifo).expect("a valid queue name");
        let now = self.shared.now();
        self.shared.lock().insert(name, Settings::new(spec), now);
        self.shared.url(name)
    }

    /// Changes one of a queue's attributes, as `SetQueueAttributes` does.
    ///
    /// # Panics
    /// Where SQS would refuse it.
    pub fn set_attribute(&self, queue_url: &str, name: &str, value: &str) {
        let attributes = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let now = self.shared.now();
        let changed = self.shared.lock().reconfigure(Some(queue_url), &attributes, now);
        changed.expect("an existing queue and a valid attribute");
    }

    /// Sends a message with nothing but a body, and returns its id.
    ///
    /// # Panics
    /// Where SQS would refuse it; [`Sqs::send_message`] says why instead.
    pub fn send(&self, queue_url: &str, body: impl Into<String>) -> String {
        self.send_message(queue_url, NewMessage::new(body))
            .expect("an existing queue and a valid body")
    }

    /// Sends a message, and returns its id.
    ///
    /// # Errors
    /// As `SendMessage`.
    pub fn send_message(&self, queue_url: &str, message: NewMessage) -> Result<String, SqsError> {
        send::send_new(&self.shared, queue_url, message)
    }

    /// How many messages stand where, now. Zero everywhere for a queue that does not exist.
    pub fn counts(&self, queue_url: &str) -> Counts {
        let now = self.shared.now();
        let mut world = self.shared.lock();
        world.queue(Some(queue_url), now).map(|queue| queue.counts()).unwrap_or_default()
    }

    /// All messages of a queue in order of sending, without receiving them.
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
                receive_count: message.receive_count,
                state: message.placed.state,
            })
            .collect()
    }

    /// From now on allows nothing but this. At first everything is allowed.
    pub fn authorize(&self, grants: Vec<Grant>) {
        self.shared.lock().permissions.only(grants);
    }

    /// The knobs for what should go wrong with a queue.
    pub fn faults(&self, queue_url: &str) -> Faults {
        Faults::new(Arc::clone(&self.shared), queue_url.to_owned())
    }

    /// What the server saw of a queue until now. Empty for one that does not exist.
    pub fn ledger(&self, queue_url: &str) -> Ledger {
        let now = self.shared.now();
        let mut world = self.shared.lock();
        world.queue(Some(queue_url), now).map(|queue| queue.ledger.clone()).unwrap_or_default()
    }

    /// Waits until `what` holds, asked again after every change and every entry in the ledger; it may
    /// look at the ledger as well as at the counts that it is given. False when `timeout` has
    /// passed first, or the queue does not exist. Cancel-safe.
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
            // Registered before the look, so that no change falls between look and wait.
            notified.as_mut().enable();
            let (counts, timer) = match self.shared.lock().queue(Some(queue_url), now) {
                Ok(queue) => (queue.counts(), queue.next_timer()),
                Err(_) => return false,
            };
            // Outside the lock: it may look at the ledger.
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
