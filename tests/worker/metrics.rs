//! The dashboards' metrics after known runs, the bounded number of series, and the effect of a
//! panic.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use reservation_worker::app::AppSettings;
use reservation_worker::client::{CallContext, CallError, Commit, Inventory, ReleaseHold};
use sandbox::reservation_api::Reply;
use sandbox::script::Scripted;
use serde_json::json;

use crate::support::{World, approved, event, eventually, expired, failed, metrics_text};

#[tokio::test]
async fn the_metrics_have_the_expected_values_after_a_known_run() {
    let world = World::start().await;
    let (worker, gate) = world.gated(&["c"], |_| {}).await;
    // An event with two retries, an event without any, its copy, and poison.
    world.api.script_for("a", [503, 500].map(Scripted::<Reply>::status));
    world.send(&expired("evt-a", "a"));
    world.send(&expired("evt-b", "b"));
    world.emptied().await;
    world.send(&expired("evt-b", "b"));
    // A dead-lettered event, a superseded one, one whose retries are used up, and one that is held
    // at the gate.
    world.api.script_for("d", [Scripted::<Reply>::status(400)]);
    world.send(&approved("evt-d", "d"));
    world.api.set_status("e", sandbox::reservation_api::ReservationStatus::Confirmed);
    world.send(&failed("evt-e", "e"));
    world.api.script_for("f", [500, 500, 500].map(Scripted::<Reply>::status));
    let used_up = world.send(&failed("evt-f", "f"));
    world.sqs.send(&world.queue, "{}");
    world.released(&used_up).await;
    eventually("only the released event is left", || world.sqs.counts(&world.queue).total() == 1)
        .await;
    world.send(&approved("evt-c", "c"));
    eventually("one worker is busy", || worker.metric("worker_pool_active_gauge") == 1.0).await;
    eventually("the event is at the gate", || gate.entered().iter().any(|id| id == "c")).await;
    assert_eq!(worker.metric("worker_latency_seconds_count{type=\"payment.approved\"}"), 0.0);
    gate.open();
    eventually("the event is handled", || world.sqs.counts(&world.queue).total() == 1).await;

    assert_eq!(worker.outcomes("reservation.expired"), [2.0, 0.0, 1.0, 2.0]);
    assert_eq!(worker.outcomes("payment.approved"), [1.0, 1.0, 0.0, 0.0]);
    assert_eq!(worker.outcomes("payment.failed"), [0.0, 1.0, 1.0, 2.0]);
    assert_eq!(worker.outcomes("unknown"), [0.0, 1.0, 0.0, 0.0]);
    assert_eq!(worker.metric("worker_pool_active_gauge"), 0.0);
    assert_eq!(worker.metric("sqs_poll_errors_total"), 0.0);
    for (event_type, count) in
        [("reservation.expired", 2.0), ("payment.approved", 1.0), ("payment.failed", 0.0)]
    {
        assert_eq!(
            worker.metric(&format!("worker_latency_seconds_count{{type=\"{event_type}\"}}")),
            count
        );
        let all = format!("worker_latency_seconds_bucket{{type=\"{event_type}\",le=\"+Inf\"}}");
        assert_eq!(worker.metric(&all), count);
    }
    worker.finish(&world).await;
}

#[tokio::test]
async fn latency_is_measured_from_receipt_to_the_last_effect_with_waits() {
    let world = World::start().await;
    let worker = world.worker().await;
    world.api.script_for("a", [Scripted::<Reply>::status(503).header("Retry-After", "2")]);
    world.send(&expired("evt-a", "a"));
    world.emptied().await;
    let sum = worker.metric("worker_latency_seconds_sum{type=\"reservation.expired\"}");
    assert!((2.0..60.0).contains(&sum), "{sum}");
    let bucket =
        |le| format!("worker_latency_seconds_bucket{{type=\"reservation.expired\",le=\"{le}\"}}");
    assert_eq!((worker.metric(&bucket("1")), worker.metric(&bucket("60"))), (0.0, 1.0));
    worker.finish(&world).await;
}

#[tokio::test]
async fn hostile_events_add_no_series() {
    let world = World::start().await;
    let worker = world.worker().await;
    let names = |text: &str| -> Vec<String> {
        text.lines()
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.rsplit_once(' ').unwrap().0.to_owned())
            .collect()
    };
    let before = names(&metrics_text(&worker.metrics));
    for n in 0..1_000 {
        world.send(&event(&format!("evt-{n}"), &format!("type-{n}"), "r", json!({"qty": n})));
    }
    world.emptied().await;
    for n in 0..100 {
        world.send(&expired(&format!("evt-x{n}"), &format!("reservation-{n}")));
    }
    world.emptied().await;
    assert_eq!(worker.metric("worker_events_total{outcome=\"failed\",type=\"unknown\"}"), 1_000.0);
    assert_eq!(names(&metrics_text(&worker.metrics)), before);
    worker.finish(&world).await;
}

/// Panics in the first calls, then passes all calls on.
struct Panics {
    inventory: Arc<dyn Inventory>,
    left: AtomicUsize,
}

impl Panics {
    fn once(&self) {
        let spend = |left: usize| left.checked_sub(1);
        let left = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, spend);
        assert!(left.is_err(), "an intended panic");
    }
}

#[async_trait]
impl Inventory for Panics {
    async fn release_hold(
        &self,
        call: &CallContext<'_>,
        release: ReleaseHold<'_>,
    ) -> Result<(), CallError> {
        self.once();
        self.inventory.release_hold(call, release).await
    }

    async fn commit(&self, call: &CallContext<'_>, commit: Commit<'_>) -> Result<(), CallError> {
        self.once();
        self.inventory.commit(call, commit).await
    }
}

#[tokio::test]
async fn a_panic_in_a_handler_is_one_failed_attempt() {
    let world = World::start().await;
    let mut services = world.services();
    let inventory = Arc::clone(&services.inventory);
    services.inventory = Arc::new(Panics { inventory, left: AtomicUsize::new(3) });
    let patient = |settings: &mut AppSettings| settings.policy.retries_max = 3;
    let mut worker = world.worker_of(services, patient).await;
    for n in 0..6 {
        world.send(&expired(&format!("evt-{n}"), &format!("r{n}")));
    }
    tokio::select! {
        () = world.emptied() => {}
        task = worker.app.broken() => panic!("a task ended: {task}"),
    }
    assert_eq!(worker.metric("worker_pool_active_gauge"), 0.0);
    assert_eq!(worker.outcomes("reservation.expired"), [6.0, 0.0, 0.0, 3.0]);
    worker.finish(&world).await;
}
