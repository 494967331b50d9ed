//! State transitions of the in-flight table.

mod again;
mod claims;
mod ending;
mod groups;
mod keeper;
mod left;
mod limiter;
mod lost;
mod order;
mod overview;
mod retained;
mod suspects;
mod waiting;
mod wakes;

use std::sync::Arc;
use std::time::SystemTime;

use tokio::time::advance;

use super::capacity::{InFlightLimiter, Permit};
use super::*;
use crate::event::decode;
use crate::metrics::{HeldState, Metrics};
use crate::queue::{Message, MessageGroup, MessageId, ReceiptHandle};
use crate::telemetry::{EventStart, Tracing};

const VISIBILITY: Duration = Duration::from_secs(30);

struct World {
    table: Arc<InFlight>,
    ready: mpsc::Receiver<JobKey>,
    limiter: InFlightLimiter,
    metrics: Arc<Metrics>,
    serial: u32,
    /// Receive count of the messages admitted next.
    receive_count: u32,
    /// FIFO group of the messages admitted next.
    group: Option<&'static str>,
    /// Age of the messages admitted next.
    age: Option<Duration>,
    /// Visibility timeout of the messages admitted next.
    lease: Duration,
}

impl World {
    fn new() -> Self {
        Self::of(100, VISIBILITY)
    }

    /// Creates a world with room for `messages_max` messages.
    fn of(messages_max: usize, visibility: Duration) -> Self {
        let suspects = SuspectBounds { held_max: 6, tried_max: 2 };
        let (table, ready) = InFlight::new(messages_max, 8, suspects, visibility);
        let metrics = Arc::new(Metrics::new(&[]));
        Self {
            table: Arc::new(table),
            ready,
            limiter: InFlightLimiter::new(messages_max, 1 << 40),
            metrics,
            serial: 0,
            receive_count: 1,
            group: None,
            age: None,
            lease: VISIBILITY,
        }
    }

    /// Admits the event `id` of `reservation` as a separate message.
    async fn admit(&mut self, id: &str, reservation: &str) -> Admitted {
        self.serial += 1;
        self.admit_message(&format!("message-{}", self.serial), id, reservation, "show").await
    }

    async fn admit_message(
        &mut self,
        message_id: &str,
        id: &str,
        reservation: &str,
        show: &str,
    ) -> Admitted {
        let (job, original, receipt) = self.arrival(message_id, id, reservation, show).await;
        self.table.admission().event(job, original, receipt)
    }

    async fn arrival(
        &mut self,
        message_id: &str,
        id: &str,
        reservation: &str,
        show: &str,
    ) -> (Box<Job>, OriginalMessage, Receipt) {
        self.serial += 1;
        let message = Message {
            id: MessageId(message_id.into()),
            handle: ReceiptHandle(format!("handle-{}", self.serial).into()),
            body: format!(
                r#"{{"id":"{id}","type":"payment.approved","reservation_id":"{reservation}","event_id":"{show}","payload":{{}}}}"#
            ),
            receive_count: self.receive_count,
            sent_at: self.age.map(|age| SystemTime::now() - age),
            group: self.group.map(|name| MessageGroup::Ordered(name.into())),
            trace_header: None,
            source_arn: None,
            attributes: Vec::new(),
        };
        let now = Instant::now();
        let span = Tracing::disabled().start_event(EventStart {
            queue_name: "queue",
            message_id,
            parent: None,
            baggage: None,
            received_at: SystemTime::now(),
        });
        let event = decode(&message.body, "m").expect("an event");
        let held = self.metrics.held(HeldState::Buffered);
        let job = Box::new(Job::new(event, &message, now, span, held));
        let permit = self.limiter.reserve().await.take(message.body.len()).expect("room");
        let (receipt, original) = Receipt::split(message, now, now + self.lease, permit);
        (job, original, receipt)
    }

    /// Starts the next ready job.
    fn start(&mut self) -> Option<Box<Job>> {
        while let Ok(key) = self.ready.try_recv() {
            if let Some(job) = self.table.start(key) {
                return Some(job);
            }
        }
        None
    }

    fn start_id(&mut self) -> Option<String> {
        self.start().map(|job| job.event.id.as_str().to_owned())
    }

    /// Renews all due receipts with the same result.
    fn renew(&self, answer: impl Fn() -> Renewal) -> Renewed {
        let now = Instant::now();
        let due = self.table.renewals_due(now).due;
        let answers = due.into_iter().map(|due| (due.key, answer())).collect();
        self.table.renewed(answers, now)
    }
}

fn extended() -> Renewal {
    Renewal::Extended { called_at: Instant::now(), visibility: VISIBILITY }
}

#[tokio::test(start_paused = true)]
async fn a_job_starts_once_and_its_settlement_frees_its_permit() {
    let mut world = World::new();
    assert!(matches!(world.admit("e1", "r1").await, Admitted::Ready));
    assert_eq!(world.limiter.in_use(), 1);
    let job = world.start().expect("ready");
    assert!(world.table.start(job.key).is_none(), "a running job must not start again");
    let removed = world.table.take(&job);
    assert_eq!(removed.receipts.len(), 1);
    assert_eq!(world.table.held(), 0);
    drop(removed);
    assert_eq!(world.limiter.in_use(), 0);
}

#[tokio::test(start_paused = true)]
async fn events_of_a_reservation_run_one_by_one_in_order_of_receipt() {
    let mut world = World::new();
    assert!(matches!(world.admit("e1", "r1").await, Admitted::Ready));
    assert!(matches!(world.admit("e2", "r1").await, Admitted::InLane));
    assert!(matches!(world.admit("e3", "r1").await, Admitted::InLane));
    assert!(matches!(world.admit("other", "r2").await, Admitted::Ready));
    let first = world.start().expect("e1");
    assert_eq!(world.start_id().as_deref(), Some("other"), "other reservations must not wait");
    assert!(world.start().is_none());
    // A job in backoff keeps its turn.
    world.table.wait(first, Instant::now() + Duration::from_secs(5));
    assert!(world.start().is_none());
    advance(Duration::from_secs(5)).await;
    world.table.wake_due(Instant::now());
    let first = world.start().expect("e1 again");
    assert_eq!(first.event.id.as_str(), "e1");
    // Any kind of settlement frees the reservation.
    drop(world.table.release(&first, Duration::ZERO));
    let second = world.start().expect("e2");
    assert_eq!(second.event.id.as_str(), "e2");
    drop(world.table.take(&second));
    assert_eq!(world.start_id().as_deref(), Some("e3"));
}

#[tokio::test(start_paused = true)]
async fn a_copy_joins_its_event_and_is_settled_with_it() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    let Admitted::Joined { replaced: false, .. } = world.admit("e1", "r1").await else {
        panic!("expected a joined copy");
    };
    let job = world.start().expect("one of them");
    assert!(world.start().is_none(), "only one job must start");
    assert_eq!(world.table.take(&job).receipts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_job_starts_before_all_messages_of_its_receive_are_admitted() {
    let mut world = World::new();
    let (first, original, receipt) = world.arrival("m1", "e1", "r1", "show").await;
    let second = world.arrival("m2", "e2", "r2", "show").await;
    let table = Arc::clone(&world.table);
    let mut admission = table.admission();
    assert!(matches!(admission.event(first, original, receipt), Admitted::Ready));
    assert!(world.ready.try_recv().is_err());
    assert!(matches!(admission.event(second.0, second.1, second.2), Admitted::Ready));
    assert!(world.ready.try_recv().is_err());
    drop(admission);
    assert!(world.start().is_some() && world.start().is_some());
}

#[tokio::test(start_paused = true)]
async fn an_event_with_a_reused_id_does_not_join() {
    let mut world = World::new();
    world.admit_message("m1", "e1", "r1", "show").await;
    let admitted = world.admit_message("m2", "e1", "r1", "another show").await;
    let Admitted::IdReused(_, removed, _) = admitted else { panic!("{admitted:?}") };
    assert_eq!(&*removed.receipts[0].message_id.0, "m2");
    let job = world.start().expect("the first");
    assert_eq!(world.table.take(&job).receipts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_extended_at_half_time_while_the_job_is_held() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    let job = world.start().expect("ready");
    for _ in 0..100 {
        let next = world.table.next_renewal().expect("held");
        assert_eq!(next - Instant::now(), VISIBILITY / 2);
        assert!(world.table.renewals_due(Instant::now()).due.is_empty(), "too early");
        advance(VISIBILITY / 2).await;
        assert_eq!(world.renew(extended).receipts_lost, 0);
        assert!(job.lease.is_held());
    }
    drop(world.table.take(&job));
    assert_eq!(world.table.next_renewal(), None, "an extension is due after the settlement");
}

#[tokio::test(start_paused = true)]
async fn extensions_due_at_about_the_same_time_share_a_batch_of_ten() {
    let mut world = World::new();
    for n in 0..12 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
        advance(Duration::from_millis(100)).await;
    }
    advance(VISIBILITY / 2).await;
    assert_eq!(world.table.renewals_due(Instant::now()).due.len(), 10);
    assert_eq!(world.table.renewals_due(Instant::now()).due.len(), 2);
    assert!(world.table.renewals_due(Instant::now()).due.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_failed_extension_is_retried_while_the_lease_lasts() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    let job = world.start().expect("ready");
    advance(VISIBILITY / 2).await;
    let retry_at = Instant::now() + Duration::from_secs(1);
    assert_eq!(world.renew(|| Renewal::RetryAt(retry_at)).receipts_lost, 0);
    assert_eq!(world.table.next_renewal(), Some(retry_at));
    assert!(job.lease.is_held());
    // No time is left.
    advance(VISIBILITY / 2).await;
    let renewed = world.renew(|| Renewal::RetryAt(Instant::now() + Duration::from_secs(1)));
    assert_eq!(renewed.receipts_lost, 1);
    assert!(!job.lease.is_held());
    let forgotten = world.table.forget_lost(job).expect("lost");
    assert_eq!(forgotten.receipts_lost, 0, "the loss was counted twice");
    assert_eq!((world.table.held(), world.limiter.in_use()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_at_its_time_without_any_call() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    let job = world.start().expect("ready");
    advance(VISIBILITY - Duration::from_millis(1)).await;
    assert!(job.lease.is_held());
    advance(Duration::from_millis(1)).await;
    assert!(!job.lease.is_held(), "the lease must end by itself");
    assert_eq!(world.table.forget_lost(job).expect("lost").receipts_lost, 1);
}

#[tokio::test(start_paused = true)]
async fn an_idle_job_with_a_lost_lease_frees_its_reservation() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    advance(Duration::from_secs(4)).await;
    world.admit("e2", "r1").await;
    let first = world.start().expect("e1");
    world.table.wait(first, Instant::now() + Duration::from_secs(600));
    advance(Duration::from_secs(11)).await;
    let renewed = world.renew(|| Renewal::Lost);
    assert_eq!((renewed.lost.len(), renewed.receipts_lost), (1, 1));
    assert_eq!(world.start_id().as_deref(), Some("e2"));
    assert_eq!(world.table.wake_due(Instant::now()), None, "the timer of the lost job is left");
}

#[tokio::test(start_paused = true)]
async fn a_job_keeps_its_lease_while_one_receipt_is_valid() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    advance(Duration::from_secs(10)).await;
    world.admit("e1", "r1").await;
    let job = world.start().expect("ready");
    advance(Duration::from_secs(5)).await;
    assert_eq!(world.renew(|| Renewal::Lost).receipts_lost, 1);
    assert!(job.lease.is_held(), "the copy's receipt must keep the lease");
    assert_eq!(world.table.take(&job).receipts.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_job_continues_when_it_is_received_again() {
    let mut world = World::new();
    world.admit_message("m1", "e1", "r1", "show").await;
    let job = world.start().expect("ready");
    advance(VISIBILITY / 2).await;
    world.renew(|| Renewal::Lost);
    assert!(!job.lease.is_held());
    world.admit_message("m1", "e1", "r1", "show").await;
    assert!(world.table.forget_lost(job).is_none(), "the job has a new receipt");
    assert_eq!(world.start_id().as_deref(), Some("e1"));
}

#[tokio::test(start_paused = true)]
async fn a_release_waits_for_an_extension_in_progress() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    let job = world.start().expect("ready");
    advance(VISIBILITY / 2).await;
    let due = world.table.renewals_due(Instant::now()).due;
    let after = Duration::from_secs(7);
    assert!(world.table.release(&job, after).is_empty(), "the release must wait for the extension");
    assert_eq!(world.limiter.in_use(), 1);
    let answers = due.into_iter().map(|due| (due.key, extended())).collect();
    let renewed = world.table.renewed(answers, Instant::now());
    assert_eq!(renewed.released.len(), 1);
    assert_eq!(renewed.released[0].1, after);
    assert_eq!((renewed.receipts_lost, world.table.next_renewal()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_late_answer_does_not_extend_a_deleted_message() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    let job = world.start().expect("ready");
    advance(VISIBILITY / 2).await;
    let due = world.table.renewals_due(Instant::now()).due;
    assert_eq!(world.table.take(&job).receipts.len(), 1);
    let answers = due.into_iter().map(|due| (due.key, extended())).collect();
    let renewed = world.table.renewed(answers, Instant::now());
    assert_eq!((renewed.released.len(), renewed.receipts_lost), (0, 0));
    assert_eq!(world.table.next_renewal(), None);
}

#[tokio::test(start_paused = true)]
async fn a_stop_hands_out_every_idle_job_once_and_starts_none() {
    let mut world = World::new();
    for (id, reservation) in [("ready", "r1"), ("lane", "r1"), ("waits", "r2"), ("runs", "r3")] {
        world.admit(id, reservation).await;
    }
    // In order of receipt. "ready" becomes ready again after a wait of zero.
    let ready = world.start().expect("ready");
    let waits = world.start().expect("waits");
    let runs = world.start().expect("runs");
    world.table.wait(ready, Instant::now());
    world.table.wake_due(Instant::now());
    world.table.wait(waits, Instant::now() + Duration::from_secs(9));
    world.table.stop();
    assert!(world.table.wake_due(Instant::now() + Duration::from_secs(60)).is_none());
    let idle = world.table.take_idle(Instant::now());
    let idle_ids: Vec<_> =
        idle.iter().map(|(job, rest)| (job.event.id.as_str(), rest.as_secs())).collect();
    assert_eq!(idle_ids, [("ready", 0), ("lane", 0), ("waits", 9)]);
    assert!(world.table.take_idle(Instant::now()).is_empty(), "jobs were handed out twice");
    for (job, after) in idle {
        assert_eq!(world.table.release(&job, after).len(), 1);
    }
    assert!(world.start().is_none(), "the key of a removed job started one");
    // A job put aside after the stop is found by the next `take_idle`, and sets no timer.
    world.table.wait(runs, Instant::now() + Duration::from_secs(3));
    assert_eq!(world.table.wake_due(Instant::now() + Duration::from_secs(60)), None);
    assert_eq!(world.table.take_idle(Instant::now()).len(), 1);
}
