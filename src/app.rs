//! Starts every task and ends them in the right order.
//!
//! Shutdown takes these steps, all within one deadline:
//!
//! 1. The poller starts no further receive. Workers take no further job and finish the one in
//!    progress.
//! 2. An open receive is awaited; its messages are handed back at once, or after a backoff if they
//!    came back before.
//! 3. Every job that no worker is processing is handed back, visible at once or when its backoff
//!    ends. Not before step 2: the open receive of this process would take the message again and
//!    raise its receive count.
//! 4. The workers are awaited; those that miss the deadline are stopped.
//! 5. The lease keeper finishes open visibility extensions and ends: no extension can override a
//!    later release. Jobs that the workers put aside are handed back too. Messages of stopped
//!    workers stay hidden until their calls can no longer take effect.
//! 6. The batches are flushed.
//!
//! The admin port and the spans end after that, in [`crate::run`].

mod build;
mod pool;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use futures_util::future::ready;
use futures_util::{StreamExt, stream};
use tokio::sync::Mutex;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use self::build::{intake, settler, table};
use self::pool::WorkerPool;
use crate::controls::Controls;
use crate::handler::Services;
use crate::inflight::capacity::InFlightLimiter;
use crate::inflight::lease_keeper::LeaseKeeper;
use crate::inflight::probe::Prober;
use crate::inflight::{InFlight, redrive};
use crate::poller::{self, Poller};
use crate::queue::Queue;
use crate::queue::actions::QueueActions;
use crate::queue::instrumented::InstrumentedQueue;
use crate::scheduler::{wake_parked, wake_waiting};
use crate::settle::account::{Disposition, MessageAccount};
use crate::settle::batch::{Batcher, Settlement};
use crate::settle::failures::Failures;
use crate::settle::{RetryPolicy, Settler};
use crate::telemetry::{QueueSpans, Tracing};
use crate::worker::Worker;

/// The most workers that there can be, as `WORKER_CONCURRENCY` has it.
pub const WORKERS_MAX: usize = 1_000;

/// Calls per attempt at most: change of status, query after a conflict, seats.
const CALLS_PER_ATTEMPT: u32 = 3;

/// Time beyond its calls that an attempt may take before its worker counts as stuck.
const ATTEMPT_MARGIN: Duration = Duration::from_secs(30);

/// Concurrent hand-backs: each may release a claim, a round trip to the store.
const HAND_BACKS_MAX: usize = 64;

/// Part of the shutdown time reserved for the last two steps: two calls to SQS.
const FLUSH_RESERVE: Duration = Duration::from_millis(1_750);

/// Dependencies of the app.
pub struct AppParts {
    /// The source queue.
    pub queue: Arc<dyn Queue>,
    /// Dependencies of the handlers.
    pub services: Services,
    /// Starts spans.
    pub tracing: Tracing,
    /// The levers.
    pub controls: Arc<Controls>,
}

/// Limits and durations.
#[derive(Clone, Debug)]
pub struct AppSettings {
    /// The queue's name, for spans.
    pub queue_name: String,
    /// The long-poll wait.
    pub wait: Duration,
    /// The visibility timeout of messages.
    pub visibility: Duration,
    /// Events handled concurrently.
    pub concurrency: usize,
    /// Maximum number of held messages.
    pub in_flight_max: usize,
    /// Maximum bytes of held messages.
    pub in_flight_bytes_max: u64,
    /// The retry policy.
    pub policy: RetryPolicy,
    /// Longest duration of one call to a service.
    pub call_timeout_max: Duration,
}

/// The running worker. Dropping it stops all tasks at once and hands nothing back.
pub struct App {
    settings: AppSettings,
    inflight: Arc<InFlight>,
    settler: Settler,
    account: Arc<MessageAccount>,
    stop: CancellationToken,
    stop_keepers: CancellationToken,
    poller: JoinSet<()>,
    pool: WorkerPool,
    controls: Arc<Controls>,
    /// The number of workers that an operator chose.
    workers_chosen: Option<NonZeroUsize>,
    keepers: JoinSet<()>,
    batcher: JoinSet<()>,
}

impl App {
    /// Starts all tasks.
    #[must_use]
    pub fn start(parts: AppParts, settings: AppSettings) -> Self {
        let AppParts { queue, services, tracing, controls } = parts;
        let health = Arc::clone(&services.idempotency.health);
        let metrics = Arc::clone(&services.metrics);
        let visibility = settings.visibility;
        let actions = QueueActions::new(Arc::clone(&health), Arc::clone(&metrics), visibility);
        let actions = Arc::new(actions);
        let queue: Arc<dyn Queue> =
            Arc::new(InstrumentedQueue::new(queue, Arc::clone(&metrics), Arc::clone(&actions)));
        let account = Arc::new(MessageAccount::default());
        let spans = QueueSpans::new(tracing.clone(), &settings.queue_name);
        let (inflight, ready) = table(&settings);
        let pool = Arc::new(AtomicUsize::new(settings.concurrency));
        let (batches, batcher) = Batcher::new(
            Arc::clone(&queue),
            Arc::clone(&metrics),
            Arc::clone(&account),
            spans.clone(),
            Arc::clone(&inflight),
            Arc::clone(&actions),
            settings.in_flight_max,
        );
        let settler = settler(&settings, &services, &inflight, &account, batches);
        let worker = Worker {
            ready: Arc::new(Mutex::new(ready)),
            inflight: Arc::clone(&inflight),
            services,
            settler: settler.clone(),
            metrics: Arc::clone(&metrics),
            health: Arc::clone(&health),
            attempt_max: settings.call_timeout_max * CALLS_PER_ATTEMPT + ATTEMPT_MARGIN,
            pool: Arc::clone(&pool),
        };
        let intake = intake(&settings, &settler, tracing, spans);
        let poller = Poller {
            queue: Arc::clone(&queue),
            limiter: InFlightLimiter::new(settings.in_flight_max, settings.in_flight_bytes_max),
            inflight: Arc::clone(&inflight),
            intake,
            actions: Arc::clone(&actions),
            controls: Arc::clone(&controls),
            wait: settings.wait,
            visibility: settings.visibility,
            concurrency: settings.concurrency,
            metrics,
            account: Arc::clone(&account),
            heartbeat: health.register("poller", poller::turn_max(settings.wait)),
            health,
        };
        let stop = CancellationToken::new();
        let mut app = Self {
            pool: WorkerPool::start(worker, Arc::clone(&pool), stop.clone()),
            controls,
            workers_chosen: None,
            settings,
            inflight,
            settler,
            account,
            stop: stop.clone(),
            stop_keepers: CancellationToken::new(),
            poller: JoinSet::new(),
            keepers: JoinSet::new(),
            batcher: JoinSet::new(),
        };
        app.batcher.spawn(batcher.run());
        app.poller.spawn(poller.run(stop));
        app.spawn_keepers(queue, actions, pool);
        app
    }

    fn spawn_keepers(
        &mut self,
        queue: Arc<dyn Queue>,
        actions: Arc<QueueActions>,
        workers: Arc<AtomicUsize>,
    ) {
        let keeper = LeaseKeeper {
            inflight: Arc::clone(&self.inflight),
            queue: Arc::clone(&queue),
            events: Arc::new(self.settler.clone()),
        };
        self.keepers.spawn(redrive::watch(
            Arc::clone(&self.inflight),
            Arc::clone(&queue),
            self.stop_keepers.clone(),
        ));
        let prober = Prober { inflight: Arc::clone(&self.inflight), queue, actions };
        self.keepers.spawn(keeper.run(self.stop_keepers.clone()));
        self.keepers.spawn(prober.run(self.stop_keepers.clone()));
        let (inflight, outages) = (&self.inflight, &self.settler.outages);
        self.keepers.spawn(wake_waiting(Arc::clone(inflight), self.stop_keepers.clone()));
        self.keepers.spawn(wake_parked(
            Arc::clone(inflight),
            Arc::clone(outages),
            workers,
            self.stop_keepers.clone(),
        ));
    }

    /// Returns the accounting of the messages so far.
    #[must_use]
    pub fn account(&self) -> &Arc<MessageAccount> {
        &self.account
    }

    /// Returns the table of held events, and the last failures: what the status shows of them.
    #[must_use]
    pub fn shown(&self) -> (Arc<InFlight>, Arc<Failures>) {
        (Arc::clone(&self.inflight), Arc::clone(&self.settler.failures))
    }

    /// Waits until a task ends unexpectedly, and returns its name; meanwhile keeps as many workers
    /// as the levers say. Cancel-safe.
    pub async fn broken(&mut self) -> &'static str {
        let (name, ended) = loop {
            tokio::select! {
                biased;
                Some(ended) = self.poller.join_next() => break ("poller", ended),
                Some(ended) = self.keepers.join_next() => break ("keepers", ended),
                Some(ended) = self.batcher.join_next() => break ("batches", ended),
                workers = self.controls.concurrency_other_than(self.workers_chosen) => {
                    self.resize(workers);
                }
                Some(ended) = self.pool.broken() => break ("worker", ended),
            }
        };
        let error = ended.err().map_or_else(|| "it returned".to_owned(), |e| e.to_string());
        error!(task = name, error, "A task ended that never should: leaving");
        name
    }

    fn resize(&mut self, chosen: Option<NonZeroUsize>) {
        self.workers_chosen = chosen;
        // What all workers are told may be more than this one can have.
        let most = self.settings.in_flight_max.min(WORKERS_MAX);
        let workers = chosen.map_or(self.settings.concurrency, |chosen| chosen.get().min(most));
        self.pool.resize(workers);
        self.settler.outages.set_calls_max(workers);
        self.settler.metrics.pool_size(workers);
    }

    /// Shuts down by `deadline` in the steps of the module docs. Returns the accounting.
    pub async fn drain(mut self, deadline: Instant) -> Arc<MessageAccount> {
        let finish_by = deadline.checked_sub(FLUSH_RESERVE).unwrap_or(deadline);
        self.inflight.stop();
        self.stop.cancel();
        self.finish_work(finish_by).await;
        self.stop_keepers.cancel();
        end(&mut self.keepers, finish_by + FLUSH_RESERVE / 2, "keepers").await;
        for (receipt, after) in self.inflight.end_extensions() {
            self.settler.batches.send(Settlement::Release(receipt, after)).await;
        }
        self.hand_back_idle(half_way(deadline)).await;
        self.hand_back_unfinished().await;
        let Self { settler, mut batcher, account, keepers, poller, pool, .. } = self;
        let outstanding = settler.batches.outstanding();
        // The batcher ends when all senders to it are dropped.
        drop((settler, keepers, poller, pool));
        end(&mut batcher, deadline, "batches").await;
        // Unsent settlements: SQS delivers these messages again after their visibility timeout.
        account.left(Disposition::Unsettled, outstanding.count());
        account.log();
        account
    }

    async fn finish_work(&mut self, finish_by: Instant) {
        let account = Arc::clone(&self.account);
        info!(
            held = self.inflight.held(),
            received = account.received_total(),
            "Finishing what is in hand"
        );
        end(&mut self.poller, finish_by, "poller").await;
        self.hand_back_idle(half_way(finish_by)).await;
        end(&mut self.pool.tasks, finish_by, "workers").await;
    }

    /// Hands idle jobs back. Stops waiting for the release of claims at `limit`.
    async fn hand_back_idle(&self, limit: Instant) {
        let idle = self.inflight.take_idle(Instant::now());
        let hand_back = |(job, after)| self.settler.hand_back_by(job, after, limit);
        let answered = stream::iter(idle).map(hand_back).buffer_unordered(HAND_BACKS_MAX);
        let late = answered.filter(|is_answered| ready(!is_answered)).count().await;
        if late > 0 {
            warn!(
                events = late,
                "The idempotency store is slow: claims were not given back, and end with their leases"
            );
        }
    }

    /// Hands back the jobs of stopped workers: their calls may still be open.
    async fn hand_back_unfinished(&self) {
        let unfinished = self.inflight.take_all();
        if !unfinished.is_empty() {
            warn!(
                messages = unfinished.len(),
                "Events were cut off in the middle: they are handed back once their calls cannot take effect any more"
            );
        }
        for receipt in unfinished {
            let after = self.settings.call_timeout_max;
            self.settler.batches.send(Settlement::Release(receipt, after)).await;
        }
    }
}

/// Returns the midpoint between now and `deadline`. Claims get the first half of the time; the rest
/// is for messages, which matter more.
fn half_way(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

/// Waits for the tasks until `deadline`, then stops them.
async fn end(tasks: &mut JoinSet<()>, deadline: Instant, name: &'static str) {
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            note(&ended, name);
        }
    };
    if timeout_at(deadline, all).await.is_err() {
        warn!(task = name, "Not done in time, stopped");
        tasks.shutdown().await;
    }
}

fn note(ended: &Result<(), JoinError>, name: &'static str) {
    if let Err(why) = ended {
        error!(task = name, error = %why, "A task failed while leaving");
    }
}
