//! `/healthz` fails when the poll loop or the worker pool is stuck, and never because of an outage
//! of a service.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use reservation_worker::app::AppSettings;
use reservation_worker::controls::Controls;
use reservation_worker::health::{Health, Problem};
use reservation_worker::inflight::capacity::InFlightLimiter;
use reservation_worker::inflight::{InFlight, SuspectBounds};
use reservation_worker::intake::Intake;
use reservation_worker::poller::{self, Poller};
use reservation_worker::queue::actions::QueueActions;
use reservation_worker::queue::{
    BatchAnswer, DeadLetter, Message, MessageId, Queue, QueueError, ReceiptHandle,
};
use reservation_worker::settle::Settler;
use reservation_worker::settle::account::MessageAccount;
use reservation_worker::settle::batch::Batcher;
use reservation_worker::telemetry::{QueueSpans, Tracing};
use tokio::task::yield_now;
use tokio::time::{advance, pause, resume};
use tokio_util::sync::CancellationToken;

use crate::support::{World, eventually, expired, settings};

/// Advances the clock second by second and lets all tasks run in each.
async fn pass(seconds: u64) {
    pause();
    for _ in 0..seconds {
        advance(Duration::from_secs(1)).await;
        for _ in 0..20 {
            yield_now().await;
        }
    }
    resume();
}

fn stuck(health: &Health) -> Option<&'static str> {
    match health.alive() {
        Ok(()) => None,
        Err(Problem::Stale { part, .. }) => Some(part),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_call_that_never_ends_makes_the_worker_stuck() {
    let world = World::start().await;
    let brief = |settings: &mut AppSettings| settings.call_timeout_max = Duration::from_secs(1);
    let (worker, gate) = world.gated(&["a"], brief).await;
    world.send(&expired("evt-1", "a"));
    eventually("the call is at the gate", || gate.entered().iter().any(|id| id == "a")).await;
    pass(30).await;
    assert_eq!(stuck(&worker.health), None, "an attempt may take a while");
    pass(10).await;
    assert_eq!(stuck(&worker.health), Some("worker"));
    gate.open();
    eventually("the worker is not stuck any more", || stuck(&worker.health).is_none()).await;
}

#[tokio::test]
async fn an_outage_and_a_reached_in_flight_limit_do_not_make_it_stuck() {
    let world = World::start().await;
    world.api.go_down().await.unwrap();
    let few = |settings: &mut AppSettings| settings.in_flight_max = 20;
    let worker = world.worker_with(few).await;
    for n in 0..40 {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    eventually("the in-flight limit is reached", || worker.parked() == 20.0).await;
    for _ in 0..60 {
        pass(5).await;
        assert_eq!(stuck(&worker.health), None);
    }
}

/// A queue with nothing but poison.
struct Poisoned;

#[async_trait]
impl Queue for Poisoned {
    async fn receive(&self, max: usize, _: Duration) -> Result<Vec<Message>, QueueError> {
        let poison = |n: usize| Message {
            id: MessageId(format!("m-{n}").into()),
            handle: ReceiptHandle(format!("h-{n}").into()),
            body: "no event".to_owned(),
            receive_count: 1,
            sent_at: None,
            group: None,
            trace_header: None,
            source_arn: None,
            attributes: Vec::new(),
        };
        Ok((0..max).map(poison).collect())
    }

    async fn delete(&self, _: &[ReceiptHandle]) -> BatchAnswer {
        unreachable!("the batcher does not run")
    }

    async fn extend(&self, _: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        unreachable!("the batcher does not run")
    }

    async fn hand_back(&self, _: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        unreachable!("the batcher does not run")
    }

    async fn dead_letter(&self, _: &DeadLetter) -> Result<(), QueueError> {
        unreachable!("the batcher does not run")
    }
}

/// A poll loop without a running batcher: it hangs when it hands over a settlement.
async fn wedged_loop(world: &World, health: &Arc<Health>) -> (Poller, Batcher) {
    let (services, AppSettings { wait, visibility, policy, .. }) = (world.services(), settings());
    let (account, queue): (_, Arc<dyn Queue>) =
        (Arc::new(MessageAccount::default()), Arc::new(Poisoned));
    let metrics = Arc::clone(&services.metrics);
    let spans = QueueSpans::new(Tracing::disabled(), "events");
    let actions = Arc::new(QueueActions::new(Arc::clone(health), Arc::clone(&metrics), visibility));
    let (inflight, _ready) =
        InFlight::new(20, 20, SuspectBounds { held_max: 10, tried_max: 5 }, visibility);
    let inflight = Arc::new(inflight);
    let (batches, batcher) = Batcher::new(
        Arc::clone(&queue),
        Arc::clone(&metrics),
        Arc::clone(&account),
        spans.clone(),
        Arc::clone(&inflight),
        Arc::clone(&actions),
        1,
    );
    let settler = Settler {
        inflight: Arc::clone(&inflight),
        idempotency: services.idempotency,
        batches,
        policy,
        metrics: Arc::clone(&metrics),
        outages: services.outages,
        account: Arc::clone(&account),
        failures: Arc::default(),
    };
    let intake = Intake {
        inflight: Arc::clone(&inflight),
        settler,
        tracing: Tracing::disabled(),
        spans,
        metrics: Arc::clone(&metrics),
        account: Arc::clone(&account),
        queue_name: "events".to_owned(),
    };
    let poller = Poller {
        queue,
        limiter: InFlightLimiter::new(20, 64 << 20),
        inflight,
        intake,
        actions,
        controls: Arc::new(Controls::new(Arc::clone(&metrics))),
        wait,
        visibility,
        concurrency: 20,
        metrics,
        account,
        heartbeat: health.register("poller", poller::turn_max(wait)),
        health: Arc::clone(health),
    };
    (poller, batcher)
}

#[tokio::test]
async fn a_blocked_poll_loop_is_stuck() {
    let world = World::start().await;
    let health = Arc::new(Health::new());
    let (poller, _batcher) = wedged_loop(&world, &health).await;
    let polling = tokio::spawn(poller.run(CancellationToken::new()));
    pass(20).await;
    assert_eq!(stuck(&health), None, "a turn may take a while");
    pass(20).await;
    assert_eq!(stuck(&health), Some("poller"));
    assert!(!polling.is_finished());
    polling.abort();
}
