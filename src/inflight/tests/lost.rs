//! Lost leases and claims and their consequences; jobs that stop being suspects.

use super::*;
use crate::metrics::Service;
use crate::outage::Dependency;

const PARKED: ParkedAs = ParkedAs { is_fresh: false, is_full: false, is_suspect: false };

fn ids(jobs: &[Box<Job>]) -> Vec<&str> {
    jobs.iter().map(|job| job.event.id.as_str()).collect()
}

/// Two events of one group. The first is received ten seconds before the second, and is running.
async fn two_of_a_group() -> (World, Box<Job>) {
    let mut world = World::new();
    world.group = Some("g");
    world.admit("e1", "r1").await;
    advance(Duration::from_secs(10)).await;
    world.admit("e2", "r2").await;
    let head = world.start().expect("the first");
    (world, head)
}

/// SQS delivers the head again, and the later messages must not be handled before it.
#[tokio::test(start_paused = true)]
async fn a_waiting_head_with_a_lost_lease_abandons_its_group() {
    let (mut world, head) = two_of_a_group().await;
    world.table.wait(head, Instant::now() + Duration::from_secs(600));
    advance(Duration::from_secs(5)).await;
    assert_eq!(ids(&world.renew(|| Renewal::Lost).lost), ["e1"]);
    assert_eq!(world.start_id(), None);
    assert_eq!(ids(&world.table.take_abandoned()), ["e2"]);
}

#[tokio::test(start_paused = true)]
async fn a_running_head_with_a_lost_lease_abandons_its_group() {
    let (mut world, head) = two_of_a_group().await;
    advance(Duration::from_secs(5)).await;
    assert_eq!(world.renew(|| Renewal::Lost).receipts_lost, 1);
    assert!(world.table.forget_lost(head).is_some());
    assert_eq!(world.start_id(), None);
    assert_eq!(ids(&world.table.take_abandoned()), ["e2"]);
}

/// The table has room for six suspects.
#[tokio::test(start_paused = true)]
async fn a_job_that_is_parked_for_an_outage_is_no_suspect() {
    let mut world = World::new();
    for n in 0..20 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
        let job = world.start().expect("ready");
        let guard = world.metrics.suspect(Service::Reservation);
        let excess = world.table.wait_as_suspect(job, guard, Instant::now());
        assert!(excess.is_none(), "{n} jobs before it must not be suspects");
        world.table.wake_due(Instant::now());
        let job = world.start().expect("the wait must be over");
        world.table.park(job, Dependency::ReservationApi, PARKED);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_renewal_does_not_affect_a_newer_claim() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    let lease = world.start().expect("ready").lease;
    let until = || Instant::now() + VISIBILITY;
    lease.claim_asked();
    lease.claimed(until());
    let older = lease.renewable().expect("claimed");
    lease.claim_asked();
    lease.claimed(until());
    lease.renewal_refused(older);
    assert!(lease.is_claimed(), "the answer belongs to the previous claim");
    let newer = lease.renewable().expect("claimed");
    lease.renewal_refused(newer);
    assert!(!lease.is_claimed() && !lease.may_be_claimed());
}

#[tokio::test(start_paused = true)]
async fn running_jobs_are_removed_at_the_end_of_a_drain() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    world.admit("e2", "r1").await;
    let _cut_off = world.start().expect("e1");
    world.table.stop();
    assert_eq!(world.table.take_all().len(), 2);
    assert_eq!((world.table.held(), world.table.next_renewal()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn one_that_is_lost_while_it_waits_for_its_turn_holds_up_nobody() {
    let mut world = World::new();
    for id in ["e1", "e2", "e3"] {
        world.admit(id, "r1").await;
    }
    let first = world.start().expect("e1");
    advance(VISIBILITY / 2).await;
    let due = world.table.renewals_due(Instant::now()).due;
    let answer = |due: DueRenewal| {
        let is_second = &*due.handle.0 == "handle-4";
        (due.key, if is_second { Renewal::Lost } else { extended() })
    };
    let answers = due.into_iter().map(answer).collect();
    assert_eq!(world.table.renewed(answers, Instant::now()).lost.len(), 1);
    drop(world.table.take(&first));
    assert_eq!(world.start_id().as_deref(), Some("e3"));
}

#[tokio::test(start_paused = true)]
async fn once_extensions_have_ended_a_release_waits_for_none() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    let job = world.start().expect("ready");
    advance(VISIBILITY / 2).await;
    assert_eq!(world.table.renewals_due(Instant::now()).due.len(), 1);
    assert!(world.table.end_extensions().is_empty());
    assert_eq!(world.table.release(&job, Duration::ZERO).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_job_that_has_left_is_extended() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    let job = world.start().expect("ready");
    drop(world.table.release(&job, Duration::ZERO));
    assert_eq!(world.table.next_renewal(), None);
    assert!(matches!(world.admit("e1", "r1").await, Admitted::Ready), "it comes again");
    let job = world.start().expect("ready");
    advance(VISIBILITY).await;
    assert!(world.table.forget_lost(job).is_some());
    assert_eq!(world.table.next_renewal(), None);
}
