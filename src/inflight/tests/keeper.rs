//! The lease keeper with a queue whose calls are slow, hang or fail.

use std::sync::Mutex;
use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::inflight::lease_keeper::{LeaseEvents, LeaseKeeper};
use crate::queue::{BatchAnswer, DeadLetter, Queue, QueueError};

/// Duration of each call, by its number.
type Course = fn(usize) -> Duration;

/// Longer than any timeout of a call.
const HANGS: Duration = Duration::from_secs(3_600);

/// A queue whose extensions take time.
struct Slow {
    course: Course,
    calls: AtomicUsize,
    open: AtomicUsize,
    open_max: AtomicUsize,
    asked: Mutex<Vec<Duration>>,
}

#[async_trait]
impl Queue for Slow {
    async fn receive(&self, _: usize, _: Duration) -> Result<Vec<Message>, QueueError> {
        Ok(Vec::new())
    }

    async fn delete(&self, handles: &[ReceiptHandle]) -> BatchAnswer {
        Ok(vec![Ok(()); handles.len()])
    }

    async fn extend(&self, changes: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        self.open_max.fetch_max(open, Ordering::Relaxed);
        self.asked.lock().expect("no panic").extend(changes.iter().map(|(_, time)| *time));
        let _closed = Closed(&self.open);
        sleep((self.course)(call)).await;
        Ok(vec![Ok(()); changes.len()])
    }

    async fn hand_back(&self, _: &[(ReceiptHandle, Duration)]) -> BatchAnswer {
        unreachable!("only leases are extended here")
    }

    async fn dead_letter(&self, _: &DeadLetter) -> Result<(), QueueError> {
        Ok(())
    }
}

struct Closed<'a>(&'a AtomicUsize);

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Events reported by the lease keeper.
#[derive(Default)]
struct Told {
    extended: AtomicUsize,
    lost: AtomicUsize,
    /// Jobs whose last receipt was lost.
    forgotten: AtomicUsize,
    overdue: AtomicUsize,
    /// For how long each released message is hidden.
    released: Mutex<Vec<Duration>>,
    /// Jobs whose messages end, with the time of the report.
    ending: Mutex<Vec<(Instant, Box<Job>)>>,
}

#[async_trait]
impl LeaseEvents for Told {
    fn extended(&self, ok: usize, _failed: usize, lost: usize) {
        self.extended.fetch_add(ok, Ordering::Relaxed);
        self.lost.fetch_add(lost, Ordering::Relaxed);
    }

    async fn release(&self, _: Receipt, after: Duration) {
        self.released.lock().expect("no panic").push(after);
    }

    async fn lost(&self, forgotten: LostJob) {
        self.lost.fetch_add(forgotten.receipts_lost, Ordering::Relaxed);
        self.forgotten.fetch_add(1, Ordering::Relaxed);
    }

    async fn overdue(&self, _: Box<Job>) {
        self.overdue.fetch_add(1, Ordering::Relaxed);
    }

    async fn ending(&self, job: Box<Job>) {
        self.ending.lock().expect("no panic").push((Instant::now(), job));
    }

    async fn renew_claims(&self, _: Vec<HeldClaim>) {}

    async fn hand_back(&self, _: Box<Job>) {}
}

/// A running lease keeper.
struct Kept {
    world: World,
    queue: Arc<Slow>,
    told: Arc<Told>,
    _keeper: JoinHandle<()>,
}

/// Holds `events` events for `visibility` each.
/// Extension calls take the time that `course` returns.
async fn held(events: usize, visibility: Duration, course: Course) -> Kept {
    let mut world = World::of(events + 20, visibility);
    for n in 0..events {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
    }
    let [calls, open, open_max] = <[AtomicUsize; 3]>::default();
    let queue = Arc::new(Slow { course, calls, open, open_max, asked: Mutex::default() });
    let told = Arc::new(Told::default());
    let keeper = LeaseKeeper {
        inflight: Arc::clone(&world.table),
        queue: Arc::clone(&queue) as Arc<dyn Queue>,
        events: Arc::clone(&told) as Arc<dyn LeaseEvents>,
    };
    let keeper = tokio::spawn(keeper.run(CancellationToken::new()));
    Kept { world, queue, told, _keeper: keeper }
}

impl Kept {
    fn lost(&self) -> usize {
        self.told.lost.load(Ordering::Relaxed)
    }
}

#[tokio::test(start_paused = true)]
async fn all_leases_are_kept_with_calls_of_100_ms() {
    let kept = held(20_000, VISIBILITY, |_| Duration::from_millis(100)).await;
    sleep(VISIBILITY * 2).await;
    assert_eq!((kept.lost(), kept.world.table.held()), (0, 20_000));
    assert!(kept.told.extended.load(Ordering::Relaxed) >= 60_000);
    assert!(kept.queue.open_max.load(Ordering::Relaxed) <= 256);
}

#[tokio::test(start_paused = true)]
async fn hanging_calls_lose_no_lease_while_others_are_answered() {
    let third_hangs = |call| if call % 3 == 1 { HANGS } else { Duration::from_millis(10) };
    let kept = held(1_000, VISIBILITY, third_hangs).await;
    sleep(VISIBILITY * 3).await;
    assert_eq!((kept.lost(), kept.world.table.held()), (0, 1_000));
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_lease_cannot_be_extended_is_reported_once() {
    let kept = held(1, VISIBILITY, |_| HANGS).await;
    sleep(VISIBILITY * 2).await;
    let forgotten = kept.told.forgotten.load(Ordering::Relaxed);
    assert_eq!((kept.lost(), forgotten, kept.world.table.held()), (1, 1, 0));
}

/// Half of the shortest lease has time for one call that times out and one that succeeds.
#[tokio::test(start_paused = true)]
async fn calls_that_become_slow_lose_no_lease() {
    let becomes_slow = |call| Duration::from_millis(if call < 20 { 10 } else { 1_000 });
    let kept = held(10, Duration::from_secs(5), becomes_slow).await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!((kept.lost(), kept.world.table.held()), (0, 10));
}

/// The answer does not show when SQS began to count: it may have been at the request.
#[tokio::test(start_paused = true)]
async fn an_extended_lease_lasts_from_the_request() {
    let took = Duration::from_secs(4);
    let mut kept = held(1, VISIBILITY, |_| Duration::from_secs(4)).await;
    let job = kept.world.start().expect("ready");
    sleep(VISIBILITY / 2 + took + Duration::from_millis(1)).await;
    assert_eq!(kept.told.extended.load(Ordering::Relaxed), 1);
    let remaining = job.lease.remaining();
    assert!(remaining <= VISIBILITY - took, "{remaining:?}");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_arrives_during_an_extension_is_passed_on_after_it() {
    let took = Duration::from_millis(100);
    let mut kept = held(1, VISIBILITY, |_| Duration::from_millis(100)).await;
    let job = kept.world.start().expect("ready");
    sleep(VISIBILITY / 2 + took / 2).await;
    let after = Duration::from_secs(7);
    assert!(kept.world.table.release(&job, after).is_empty(), "an extension could overtake it");
    sleep(took).await;
    assert_eq!(*kept.told.released.lock().expect("no panic"), [after]);
}

#[tokio::test(start_paused = true)]
async fn leases_are_extended_to_at_most_twelve_hours_after_the_receipt() {
    let hour = Duration::from_secs(3_600);
    let kept = held(1, hour, |_| Duration::from_millis(10)).await;
    let began = Instant::now();
    while began.elapsed() < hour * 12 {
        let asked_before = kept.queue.asked.lock().expect("no panic").len();
        sleep(Duration::from_secs(60)).await;
        let asked = kept.queue.asked.lock().expect("no panic")[asked_before..].to_vec();
        for time in asked {
            let until = began.elapsed() + time;
            assert!(until <= hour * 12, "extended until {until:?} after the receipt");
        }
    }
    assert_eq!((kept.told.overdue.load(Ordering::Relaxed), kept.world.table.held()), (1, 0));
}

/// The keeper has no timer while nothing is held.
#[tokio::test(start_paused = true)]
async fn a_lease_that_begins_while_no_other_is_held_is_extended() {
    let mut kept = held(0, VISIBILITY, |_| Duration::from_millis(10)).await;
    sleep(VISIBILITY).await;
    kept.world.admit("e1", "r1").await;
    sleep(VISIBILITY * 2).await;
    assert_eq!((kept.lost(), kept.world.table.held()), (0, 1));
    assert!(kept.told.extended.load(Ordering::Relaxed) >= 2);
}

#[tokio::test(start_paused = true)]
async fn the_next_of_a_reservation_starts_once_the_first_may_be_held_no_longer() {
    let hour = Duration::from_secs(3_600);
    let mut kept = held(0, hour, |_| Duration::from_millis(10)).await;
    for id in ["e1", "e2"] {
        kept.world.admit(id, "r1").await;
        sleep(hour * 6).await;
    }
    assert_eq!(kept.told.overdue.load(Ordering::Relaxed), 1);
    assert_eq!(*kept.told.released.lock().expect("no panic"), [Duration::ZERO]);
    assert_eq!(kept.world.start_id().as_deref(), Some("e2"));
}

/// An outage may last longer than the retention period, and SQS does not report dropped messages.
#[tokio::test(start_paused = true)]
async fn jobs_whose_retention_ends_are_reported() {
    const DAY: Duration = Duration::from_secs(24 * 3_600);
    for (retention, age, earliest) in [
        (4 * DAY, 4 * DAY - Duration::from_secs(3_600), Duration::from_secs(3_540)),
        (Duration::from_secs(3_600), Duration::ZERO, Duration::from_secs(3_540)),
        (Duration::from_secs(60), Duration::ZERO, Duration::from_secs(54)),
    ] {
        let mut kept = held(0, VISIBILITY, |_| Duration::from_millis(10)).await;
        kept.world.limit(ReceivesMax::Limit(10), Some(retention));
        let began = Instant::now();
        kept.world.age = Some(age);
        kept.world.admit("idle", "r1").await;
        kept.world.admit("in hand", "r2").await;
        kept.world.age = None;
        kept.world.admit("of no known age", "r3").await;
        let parked = kept.world.start().expect("idle");
        let how = ParkedAs { is_fresh: true, is_full: false, is_suspect: false };
        kept.world.table.park(parked, crate::outage::Dependency::ReservationApi, how);
        let in_hand = kept.world.start().expect("in hand");
        sleep(retention - age).await;
        let ending: Vec<_> = std::mem::take(&mut *kept.told.ending.lock().expect("no panic"));
        let [(at, job)] = &ending[..] else { panic!("expected one ending job: {}", ending.len()) };
        assert_eq!(job.event.id.as_str(), "idle");
        let after = *at - began;
        let second = Duration::from_secs(1);
        assert!(earliest - second <= after && after <= earliest + second, "{after:?}");
        assert!(
            kept.world.table.is_ending(&in_hand, Instant::now()),
            "the running job must be marked as ending"
        );
        assert_eq!(kept.world.table.take(job).receipts.len(), 1);
    }
}

/// The queue's limits are read after its first messages arrive, and change while they are held.
#[tokio::test(start_paused = true)]
async fn a_retention_read_later_applies_to_held_jobs() {
    let hour = Duration::from_secs(3_600);
    let mut kept = held(0, hour, |_| Duration::from_millis(10)).await;
    let minutes = |n: u64| Duration::from_secs(n * 60);
    kept.world.age = Some(4 * 24 * hour - minutes(20));
    kept.world.admit("e1", "r1").await;
    kept.world
        .table
        .set_limits(QueueLimits { receives_max: Some(3), retention: Some(4 * 24 * hour) });
    sleep(minutes(20)).await;
    assert_eq!(kept.told.ending.lock().expect("no panic").len(), 1);
}

/// The retention may end at the same time as SQS's maximum hold.
#[tokio::test(start_paused = true)]
async fn a_job_at_the_longest_hold_time_leaves_the_table() {
    for end_s in (42_590..42_610).step_by(5) {
        let mut kept = held(0, VISIBILITY, |_| Duration::from_millis(10)).await;
        kept.world.limit(ReceivesMax::Limit(10), Some(Duration::from_secs(end_s + 60)));
        kept.world.age = Some(Duration::ZERO);
        kept.world.admit("e1", "r1").await;
        sleep(Duration::from_secs(12 * 3_600)).await;
        let ending = std::mem::take(&mut *kept.told.ending.lock().expect("no panic"));
        let overdue = kept.told.overdue.load(Ordering::Relaxed);
        assert_eq!(ending.len() + overdue, 1, "{end_s}");
        ending.iter().for_each(|(_, job)| drop(kept.world.table.take(job)));
        assert_eq!(kept.world.table.held(), 0, "{end_s}");
    }
}
