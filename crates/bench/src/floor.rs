//! The floor: the fewest instructions that make the same calls.
//!
//! One thread, hyper, handwritten JSON and protobuf, deletes in batches of ten. No SDK, signatures,
//! retries, leases, timeouts, idempotency records, logs or metrics. It is not meant for use: it
//! shows the cost of the network calls alone.

mod calls;
mod text;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::error::Error;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::timeout;

use self::calls::{Inventory, Plain};
use self::text::Job;

/// Concurrent receives.
const RECEIVERS: usize = 3;
/// Buffered jobs per worker; above this, no receive starts.
const BUFFERED_PER_WORKER: usize = 3;
/// Messages per batch.
const BATCH: usize = 10;
/// Maximum time that a delete waits for others.
const FLUSH_AFTER: Duration = Duration::from_millis(100);

type Failure = Box<dyn Error + Send + Sync>;

/// Addresses and the concurrency limit.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The queue's URL.
    pub queue_url: String,
    /// Host and port of SQS.
    pub sqs: String,
    /// Host and port of the Reservation API.
    pub reservations: String,
    /// Host and port of the Inventory service.
    pub inventory: String,
    /// Events handled concurrently.
    pub concurrency: usize,
}

/// State that the tasks share.
#[derive(Debug, Default)]
struct Buffer {
    jobs: RefCell<VecDeque<Job>>,
    arrived: Notify,
    wanted: Notify,
}

/// Runs until a task fails.
///
/// # Errors
/// The failure.
pub async fn run(settings: Settings) -> Result<(), Failure> {
    let local = LocalSet::new();
    local.run_until(run_all(settings)).await
}

async fn run_all(settings: Settings) -> Result<(), Failure> {
    let settings = Rc::new(settings);
    let buffer = Rc::new(Buffer::default());
    let (deletes, to_delete) = mpsc::unbounded_channel();
    let inventory = Inventory::connect(&settings.inventory).await?;
    let mut tasks = JoinSet::new();
    for _ in 0..RECEIVERS {
        tasks.spawn_local(receive(Rc::clone(&settings), Rc::clone(&buffer)));
    }
    for _ in 0..settings.concurrency {
        let (settings, buffer) = (Rc::clone(&settings), Rc::clone(&buffer));
        tasks.spawn_local(work(settings, buffer, inventory.clone(), deletes.clone()));
    }
    tasks.spawn_local(delete(settings, to_delete));
    tasks.join_next().await.ok_or("no tasks")??
}

async fn receive(settings: Rc<Settings>, buffer: Rc<Buffer>) -> Result<(), Failure> {
    let mut sqs = Plain::connect(&settings.sqs).await?;
    let request = text::receive(&settings.queue_url);
    let most = settings.concurrency * BUFFERED_PER_WORKER;
    loop {
        while buffer.jobs.borrow().len() > most {
            buffer.wanted.notified().await;
        }
        let reply = sqs.sqs("AmazonSQS.ReceiveMessage", request.clone()).await?;
        let jobs = text::jobs(std::str::from_utf8(&reply)?);
        for job in jobs {
            buffer.jobs.borrow_mut().push_back(job);
            buffer.arrived.notify_one();
        }
    }
}

async fn work(
    settings: Rc<Settings>,
    buffer: Rc<Buffer>,
    mut inventory: Inventory,
    deletes: mpsc::UnboundedSender<String>,
) -> Result<(), Failure> {
    let mut reservations = Plain::connect(&settings.reservations).await?;
    let most = settings.concurrency * BUFFERED_PER_WORKER;
    loop {
        let next = buffer.jobs.borrow_mut().pop_front();
        let Some(job) = next else {
            buffer.arrived.notified().await;
            continue;
        };
        if buffer.jobs.borrow().len() == most {
            buffer.wanted.notify_waiters();
        }
        reservations.patch(&job).await?;
        inventory.call(&job).await?;
        deletes.send(job.handle)?;
    }
}

async fn delete(
    settings: Rc<Settings>,
    mut handles: mpsc::UnboundedReceiver<String>,
) -> Result<(), Failure> {
    let mut sqs = Plain::connect(&settings.sqs).await?;
    let mut batch = Vec::with_capacity(BATCH);
    while let Some(first) = handles.recv().await {
        batch.push(first);
        let fill = async {
            while batch.len() < BATCH {
                let Some(next) = handles.recv().await else { return };
                batch.push(next);
            }
        };
        // A batch that is not full in time is sent as it is.
        let _ = timeout(FLUSH_AFTER, fill).await;
        let request = text::delete(&settings.queue_url, &batch);
        batch.clear();
        sqs.sqs("AmazonSQS.DeleteMessageBatch", request).await?;
    }
    Ok(())
}
