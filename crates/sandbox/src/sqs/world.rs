//! All queues of a server under one lock, and its clock. The lock is held only for lookups and
//! moves: parsing, digests and formatting happen outside.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::time::{Duration, Instant};

use super::error::{ErrorCode, SqsError};
use super::permissions::Permissions;
use super::queue::{Delivery, Now, Queue};
use super::settings::{ACCOUNT, QueueSpec, Settings, check_queue_name, queue_arn, queue_name};

/// The pause after a delete or purge. Source: API_DeleteQueue and API_PurgeQueue.
const PAUSE: Duration = Duration::from_secs(60);

/// State that all handlers share.
#[derive(Debug)]
pub(crate) struct Shared {
    world: Mutex<World>,
    started: Instant,
    started_epoch_ms: u64,
    pub(crate) endpoint: String,
}

impl Shared {
    pub(crate) fn new(endpoint: String) -> Self {
        let epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            world: Mutex::new(World::default()),
            started: Instant::now(),
            started_epoch_ms: millis(epoch),
            endpoint,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("no code panics under this lock")
    }

    /// Returns the current time of a clock that tests can pause.
    pub(crate) fn now(&self) -> Now {
        let instant = Instant::now();
        let since_start_ms = millis(instant.duration_since(self.started));
        Now { instant, since_start_ms, epoch_ms: self.started_epoch_ms + since_start_ms }
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("{}/{ACCOUNT}/{name}", self.endpoint)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("no run lasts 2^64 ms")
}

/// All queues.
#[derive(Debug, Default)]
pub(crate) struct World {
    /// The permissions of callers.
    pub(crate) permissions: Permissions,
    queues: BTreeMap<String, Queue>,
    deleted: HashMap<String, Instant>,
}

impl World {
    /// Returns the queue with this name or URL without advancing its time.
    pub(crate) fn queue_mut(&mut self, url: &str) -> Option<&mut Queue> {
        self.queues.get_mut(queue_name(url))
    }

    /// Returns the queue with this name or URL in its current state.
    pub(crate) fn queue(&mut self, url: Option<&str>, now: Now) -> Result<&mut Queue, SqsError> {
        let url = url.ok_or_else(|| SqsError::missing("QueueUrl"))?;
        let queue = self.queues.get_mut(queue_name(url)).ok_or_else(SqsError::no_such_queue)?;
        queue.advance(now);
        Ok(queue)
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.queues.keys()
    }

    /// Creates a queue. Succeeds for an existing queue if `attributes` do not contradict it.
    pub(crate) fn create(
        &mut self,
        name: &str,
        attributes: &BTreeMap<String, String>,
        now: Now,
    ) -> Result<(), SqsError> {
        let fifo = attributes.get("FifoQueue").is_some_and(|flag| flag == "true");
        check_queue_name(name, fifo)?;
        let mut settings = Settings::new(QueueSpec { fifo, ..QueueSpec::default() });
        settings.apply(attributes)?;
        self.check_redrive(&settings)?;
        if let Some(queue) = self.queues.get(name) {
            let existing = queue.settings.attributes();
            let asked = settings.attributes();
            let same = attributes.keys().all(|name| existing.get(name) == asked.get(name));
            return if same {
                Ok(())
            } else {
                Err(SqsError::new(
                    ErrorCode::QueueNameExists,
                    "A queue already exists with the same name and a different value for an attribute",
                ))
            };
        }
        if self.deleted.get(name).is_some_and(|at| *at + PAUSE > now.instant) {
            return Err(SqsError::new(
                ErrorCode::QueueDeletedRecently,
                "You must wait 60 seconds after deleting a queue before you can create another with the same name.",
            ));
        }
        self.insert(name, settings, now);
        Ok(())
    }

    /// Inserts a queue and replaces an existing one.
    pub(crate) fn insert(&mut self, name: &str, settings: Settings, now: Now) {
        let queue = Queue::new(name, settings, now);
        if let Some(before) = self.queues.insert(name.to_owned(), queue) {
            // Tasks that wait on the replaced queue must check again.
            before.arrived.notify_waiters();
            before.changed.notify_waiters();
        }
    }

    /// Changes a queue's settings.
    pub(crate) fn reconfigure(
        &mut self,
        url: Option<&str>,
        attributes: &BTreeMap<String, String>,
        now: Now,
    ) -> Result<(), SqsError> {
        let mut settings = self.queue(url, now)?.settings.clone();
        settings.apply(attributes)?;
        self.check_redrive(&settings)?;
        let queue = self.queue(url, now)?;
        queue.settings = settings;
        queue.modified_s = now.epoch_ms / 1000;
        queue.arrived.notify_waiters();
        Ok(())
    }

    /// Checks that the dead-letter queue exists and is of the same kind. Source:
    /// API_SetQueueAttributes.
    fn check_redrive(&self, settings: &Settings) -> Result<(), SqsError> {
        let Some(redrive) = &settings.spec.redrive else {
            return Ok(());
        };
        let target = self.queues.get(queue_name(&redrive.dlq));
        if target.is_some_and(|dlq| dlq.settings.spec.fifo == settings.spec.fifo) {
            return Ok(());
        }
        Err(SqsError::new(
            ErrorCode::InvalidParameterValue,
            "Value for parameter RedrivePolicy is invalid. Reason: Dead letter target does not exist, or is of another kind.",
        ))
    }

    pub(crate) fn delete(&mut self, url: Option<&str>, now: Now) -> Result<(), SqsError> {
        let queue = self.queue(url, now)?;
        queue.arrived.notify_waiters();
        queue.changed.notify_waiters();
        let name = queue.name.clone();
        self.queues.remove(&name);
        self.deleted.insert(name, now.instant);
        Ok(())
    }

    pub(crate) fn purge(&mut self, url: Option<&str>, now: Now) -> Result<(), SqsError> {
        let queue = self.queue(url, now)?;
        if queue.purged_at.is_some_and(|at| at + PAUSE > now.instant) {
            return Err(SqsError::new(
                ErrorCode::PurgeQueueInProgress,
                "Only one PurgeQueue operation on a queue is allowed every 60 seconds.",
            ));
        }
        queue.purged_at = Some(now.instant);
        queue.clear();
        Ok(())
    }

    /// Delivers messages, and moves those that were received too often.
    pub(crate) fn receive(
        &mut self,
        url: Option<&str>,
        max: usize,
        visibility_s: Option<u32>,
        now: Now,
    ) -> Result<Vec<Delivery>, SqsError> {
        let redrive = self.queue(url, now)?.settings.spec.redrive.clone();
        let target = redrive.filter(|redrive| self.queues.contains_key(queue_name(&redrive.dlq)));
        let receives_max = target.as_ref().map(|redrive| redrive.max_receive_count);
        let queue = self.queue(url, now)?;
        let visibility_s = visibility_s.unwrap_or(queue.settings.spec.visibility_timeout_s);
        let visibility = Duration::from_secs(u64::from(visibility_s));
        let (deliveries, dead) = queue.take(max, visibility, receives_max, now);
        let source_arn = queue_arn(&queue.name);
        if let Some(dlq) = target.and_then(|redrive| self.queues.get_mut(queue_name(&redrive.dlq)))
        {
            for message in dead {
                dlq.adopt(message, Some(source_arn.clone()), now);
            }
        }
        Ok(deliveries)
    }

    /// Returns the queues whose redrive policy names this queue.
    pub(crate) fn sources_of(&self, name: &str) -> Vec<String> {
        let names_it = |queue: &&Queue| {
            let redrive = queue.settings.spec.redrive.as_ref();
            redrive.is_some_and(|redrive| queue_name(&redrive.dlq) == name)
        };
        self.queues.values().filter(names_it).map(|queue| queue.name.clone()).collect()
    }

    /// Moves a dead-letter queue's visible messages to `destination`, or each to its source queue.
    pub(crate) fn move_back(
        &mut self,
        source: &str,
        destination: Option<&str>,
        now: Now,
    ) -> Result<(), SqsError> {
        if self.sources_of(queue_name(source)).is_empty() {
            return Err(SqsError::new(
                ErrorCode::InvalidParameterValue,
                "Source queue must be configured as a Dead Letter Queue.",
            ));
        }
        if destination.is_some_and(|arn| !self.queues.contains_key(queue_name(arn))) {
            return Err(SqsError::new(
                ErrorCode::ResourceNotFound,
                "The resource that you specified for the DestinationArn parameter doesn't exist.",
            ));
        }
        let messages = self.queue(Some(source), now)?.drain_visible();
        for message in messages {
            let back = destination.map(str::to_owned).or_else(|| message.source_arn.clone());
            let target = back.as_deref().map(queue_name);
            let (arn, name) = match target.filter(|name| self.queues.contains_key(*name)) {
                Some(name) => (None, name),
                None => (message.source_arn.clone(), queue_name(source)),
            };
            if let Some(queue) = self.queues.get_mut(name) {
                queue.adopt(message, arn, now);
            }
        }
        Ok(())
    }
}
