//! Waiting for a service or a group, and for no longer than SQS allows.

use super::*;
use crate::metrics::Service;
use crate::outage::{Dependency, Waiting};

const HOUR: Duration = Duration::from_secs(3_600);

const FRESH: ParkedAs = ParkedAs { is_fresh: true, is_full: false, is_suspect: false };
const TRIED: ParkedAs = ParkedAs { is_fresh: false, is_full: false, is_suspect: false };
const FULL: ParkedAs = ParkedAs { is_fresh: true, is_full: true, is_suspect: false };

fn ids(jobs: &[Box<Job>]) -> Vec<&str> {
    jobs.iter().map(|job| job.event.id.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn parked_jobs_resume_in_order_up_to_the_given_number() {
    let mut world = World::new();
    for n in 1..=3 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
        let job = world.start().expect("ready");
        world.table.park(job, Dependency::Inventory, FRESH);
    }
    world.admit("later", "r1").await;
    assert!(world.start().is_none(), "a parked event keeps its turn");
    world.table.unpark(Dependency::ReservationApi, usize::MAX);
    assert!(world.start().is_none(), "they wait for the other service");
    world.table.unpark(Dependency::Inventory, 2);
    assert_eq!(world.table.parked(Dependency::Inventory).total(), 1);
    let first = world.start().expect("one");
    assert_eq!(first.event.id.as_str(), "e1");
    assert_eq!(world.start_id().as_deref(), Some("e2"));
    assert!(world.start().is_none());
    // A job that is parked again comes before later ones, unless it has failed.
    world.table.park(first, Dependency::Inventory, TRIED);
    world.table.unpark(Dependency::Inventory, 1);
    assert_eq!(world.start_id().as_deref(), Some("e3"));
    world.table.unpark(Dependency::Inventory, 1);
    assert_eq!(world.start_id().as_deref(), Some("e1"));
}

#[tokio::test(start_paused = true)]
async fn a_parked_job_that_is_lost_or_handed_back_is_removed() {
    let mut world = World::new();
    for n in 1..=2 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
        let job = world.start().expect("ready");
        world.table.park(job, Dependency::Inventory, FRESH);
        advance(Duration::from_secs(10)).await;
    }
    let renewed = world.renew(|| Renewal::Lost);
    assert_eq!(ids(&renewed.lost), ["e1"]);
    assert_eq!(world.table.parked(Dependency::Inventory).total(), 1);
    world.table.stop();
    world.table.unpark(Dependency::Inventory, usize::MAX);
    assert!(world.start().is_none(), "no job may be resumed during a drain");
    let idle = world.table.take_idle(Instant::now());
    assert_eq!((idle.len(), idle[0].1), (1, Duration::ZERO));
    assert_eq!(world.table.parked(Dependency::Inventory).total(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_group_runs_one_event_at_a_time_over_its_reservations() {
    let mut world = World::new();
    world.group = Some("g");
    world.admit("e1", "r1").await;
    world.admit("e2", "r2").await;
    world.group = Some("h");
    world.admit("other group", "r3").await;
    world.admit("same reservation", "r1").await;
    let first = world.start().expect("e1");
    let other = world.start().expect("the other group's first");
    assert_eq!(other.event.id.as_str(), "other group");
    assert!(world.start().is_none());
    drop(world.table.take(&other));
    assert!(world.start().is_none(), "only the head of its group, not of its reservation");
    drop(world.table.take(&first));
    let mut next = [world.start_id(), world.start_id()].map(Option::unwrap_or_default);
    next.sort();
    assert_eq!(next, ["e2", "same reservation"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_continues_only_after_its_dead_letter_is_settled() {
    let mut world = World::new();
    world.group = Some("g");
    world.admit("e1", "r1").await;
    world.admit("e2", "r2").await;
    let first = world.start().expect("e1");
    let removed = world.table.take(&first);
    assert!(world.start().is_none(), "the copy is not settled yet");
    drop(removed);
    assert_eq!(world.start_id().as_deref(), Some("e2"));
}

#[tokio::test(start_paused = true)]
async fn a_released_event_abandons_the_later_ones_of_its_group() {
    let mut world = World::new();
    world.group = Some("g");
    for n in 1..=3 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
    }
    world.group = Some("h");
    world.admit("other", "r4").await;
    let first = world.start().expect("e1");
    assert_eq!(world.table.release(&first, Duration::from_secs(30)).len(), 1);
    let abandoned = world.table.take_abandoned();
    assert_eq!(ids(&abandoned), ["e2", "e3"]);
    for job in &abandoned {
        assert_eq!(world.table.release(job, Duration::ZERO).len(), 1);
    }
    assert_eq!(world.start_id().as_deref(), Some("other"));
    assert!(world.start().is_none());
    assert!(world.table.take_abandoned().is_empty());
    assert_eq!(world.table.held(), 1);
}

#[tokio::test(start_paused = true)]
async fn poison_keeps_its_position_in_its_group() {
    let mut world = World::new();
    world.group = Some("g");
    world.admit("e1", "r1").await;
    let (_, poison, receipt) = world.arrival("m2", "poison", "r3", "show").await;
    let turn = world.table.admission().aside(poison, receipt).turn.expect("it is in a group");
    world.admit("e2", "r2").await;
    let first = world.start().expect("e1");
    drop(world.table.take(&first));
    assert!(world.start().is_none(), "the poison is not settled");
    // No copy could be sent: the message goes back, and so do the later ones.
    turn.abandon();
    assert_eq!(ids(&world.table.take_abandoned()), ["e2"]);
}

#[tokio::test(start_paused = true)]
async fn a_lost_lease_abandons_the_later_events_of_its_group() {
    let mut world = World::new();
    world.group = Some("g");
    world.admit("e1", "r1").await;
    advance(Duration::from_secs(10)).await;
    world.admit("e2", "r2").await;
    let first = world.start().expect("e1");
    advance(Duration::from_secs(5)).await;
    world.renew(|| Renewal::Lost);
    assert!(world.table.forget_lost(first).is_some());
    assert_eq!(ids(&world.table.take_abandoned()), ["e2"]);
}

#[tokio::test(start_paused = true)]
async fn abandoned_jobs_are_handed_out_on_a_stop() {
    let mut world = World::new();
    world.group = Some("g");
    world.admit("e1", "r1").await;
    world.admit("e2", "r2").await;
    let first = world.start().expect("e1");
    drop(world.table.release(&first, Duration::ZERO));
    world.table.stop();
    let idle = world.table.take_idle(Instant::now());
    assert_eq!(idle.len(), 1);
    assert_eq!(world.table.release(&idle[0].0, Duration::ZERO).len(), 1);
    assert_eq!(world.table.held(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_handed_back_before_the_longest_hold_time() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    let started_at = Instant::now();
    let job = world.start().expect("ready");
    world.table.park(job, Dependency::Inventory, FRESH);
    let renewals = loop {
        let next = world.table.next_renewal().expect("held");
        advance(next - Instant::now()).await;
        let renewals = world.table.renewals_due(Instant::now());
        if renewals.due.is_empty() {
            break renewals;
        }
        let now = Instant::now();
        let answers = renewals.due.into_iter().map(|due| {
            assert!(now + due.visibility <= started_at + 12 * HOUR);
            (due.key, Renewal::Extended { called_at: now, visibility: due.visibility })
        });
        world.table.renewed(answers.collect(), now);
    };
    let held_for = started_at.elapsed();
    assert_eq!(held_for, 12 * HOUR - Duration::from_secs(600));
    assert_eq!((renewals.overdue.len(), ids(&renewals.ended)), (1, vec!["e1"]));
    assert_eq!((world.table.held(), world.table.next_renewal()), (0, None));
}

#[tokio::test(start_paused = true)]
async fn a_running_message_is_handed_back_after_its_attempt() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    let job = world.start().expect("ready");
    let limit = Instant::now() + 12 * HOUR - Duration::from_secs(600);
    while Instant::now() < limit {
        let next = world.table.next_renewal().expect("held");
        advance(next - Instant::now()).await;
        if Instant::now() < limit {
            world.renew(extended);
        }
    }
    assert!(
        world.table.renewals_due(Instant::now()).overdue.is_empty(),
        "a running message must stay with its job"
    );
    assert!(job.lease.is_held());
    world.table.wait(job, Instant::now() + HOUR);
    advance(Duration::from_secs(1)).await;
    let renewals = world.table.renewals_due(Instant::now());
    assert_eq!((renewals.overdue.len(), renewals.ended.len()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn held_messages_are_counted_by_state() {
    let mut world = World::new();
    world.admit("e1", "r1").await;
    world.admit("e2", "r1").await;
    let counts = |world: &World| {
        let mut text = Vec::new();
        world.metrics.render(&mut text).expect("text");
        let text = String::from_utf8(text).expect("UTF-8");
        ["buffered", "running", "waiting"].map(|state| {
            let line = text.lines().find(|line| {
                line.starts_with("worker_messages_in_flight")
                    && line.contains(&format!("\"{state}\""))
            });
            line.and_then(|line| line.rsplit(' ').next()?.parse::<u32>().ok()).expect("a gauge")
        })
    };
    assert_eq!(counts(&world), [2, 0, 0]);
    let job = world.start().expect("e1");
    assert_eq!(counts(&world), [1, 1, 0]);
    world.table.wait(job, Instant::now());
    assert_eq!(counts(&world), [1, 0, 1]);
    world.table.wake_due(Instant::now());
    assert_eq!(counts(&world), [2, 0, 0]);
    let job = world.start().expect("e1");
    drop(world.table.take(&job));
    drop(job);
    assert_eq!(counts(&world), [1, 0, 0]);
}

#[tokio::test(start_paused = true)]
async fn fresh_jobs_are_probed_before_tried_ones() {
    let mut world = World::new();
    let mut probes = std::collections::BTreeSet::new();
    for n in 0..30 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
        let job = world.start().expect("ready");
        world.table.park(job, Dependency::Inventory, if n < 20 { TRIED } else { FRESH });
    }
    assert_eq!(
        world.table.parked(Dependency::Inventory),
        Waiting { fresh: 10, tried: 20, suspects: 0 }
    );
    for _ in 0..1_000 {
        world.table.unpark_any(Dependency::Inventory);
        let job = world.start().expect("one");
        probes.insert(job.event.id.as_str().to_owned());
        assert!(world.start().is_none());
        world.table.park(job, Dependency::Inventory, FRESH);
    }
    assert_eq!(probes.len(), 10, "each fresh job must be probed: {probes:?}");
}

#[tokio::test(start_paused = true)]
async fn jobs_at_the_concurrency_limit_are_buffered_unless_the_service_is_down() {
    let mut world = World::new();
    for n in 0..8 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
        let job = world.start().expect("ready");
        world.table.park(job, Dependency::Inventory, FULL);
    }
    let has_capacity = |world: &World| {
        let table = Arc::clone(&world.table);
        async move { tokio::time::timeout(HOUR, table.buffer_capacity(0)).await.is_ok() }
    };
    assert!(!has_capacity(&world).await, "eight may be buffered");
    world.table.set_away(Dependency::Inventory, true);
    assert!(has_capacity(&world).await);
    world.table.set_away(Dependency::Inventory, false);
    world.table.set_buffer_max(9);
    assert!(has_capacity(&world).await);
}

/// A pause or a call rate limit.
/// Other processes can take the jobs beyond what the service can soon take.
#[tokio::test(start_paused = true)]
async fn jobs_paced_by_a_limit_are_buffered_unless_they_are_suspects() {
    let mut world = World::new();
    let later = Instant::now() + 2 * HOUR;
    for n in 0..8 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
        let job = world.start().expect("ready");
        world.table.wait_in_turn(job, later);
    }
    world.admit("bad", "bad").await;
    let job = world.start().expect("ready");
    let suspect = world.metrics.suspect(Service::Reservation);
    assert!(world.table.wait_as_suspect(job, suspect, later).is_none());
    let has_capacity = |world: &World| {
        let table = Arc::clone(&world.table);
        async move { tokio::time::timeout(HOUR, table.buffer_capacity(0)).await.is_ok() }
    };
    assert!(has_capacity(&world).await, "jobs with their own retry times are not buffered");
    world.table.set_rationed(true);
    assert!(!has_capacity(&world).await, "eight may be buffered");
    world.table.set_buffer_max(9);
    assert!(has_capacity(&world).await, "a suspect is not buffered");
    assert_eq!(world.table.wake_due(later), None);
    while let Some(job) = world.start() {
        drop(world.table.take(&job));
    }
    world.table.set_buffer_max(1);
    assert!(has_capacity(&world).await, "no job waits any more");
}

#[tokio::test(start_paused = true)]
async fn the_buffer_limit_of_a_small_service_is_never_exceeded() {
    let mut world = World::new();
    world.table.set_buffer_max(6);
    for n in 0..2 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
    }
    let capacity = |world: &World, coming| {
        let table = Arc::clone(&world.table);
        async move { tokio::time::timeout(HOUR, table.buffer_capacity(coming)).await.ok() }
    };
    assert_eq!(capacity(&world, 0).await, Some(4));
    assert_eq!(capacity(&world, 1).await, Some(3), "one message is on its way");
    assert_eq!(capacity(&world, 2).await, None, "too few free places for a receive");
    world.table.set_buffer_max(8);
    assert_eq!(
        capacity(&world, 0).await,
        Some(crate::queue::BATCH_MAX),
        "limited only by the workers"
    );
}

/// Otherwise the poller would wait for room for ever.
#[tokio::test(start_paused = true)]
async fn a_job_that_has_waited_takes_no_room_of_the_buffer_any_more() {
    let mut world = World::new();
    world.table.set_rationed(true);
    for n in 0..20 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
        let job = world.start().expect("ready");
        world.table.park(job, Dependency::Inventory, FULL);
        world.table.unpark(Dependency::Inventory, 1);
        let job = world.start().expect("let go");
        world.table.wait_in_turn(job, Instant::now());
        world.table.wake_due(Instant::now());
        let job = world.start().expect("its time is up");
        drop(world.table.take(&job));
    }
    // Nor does one that is lost while it is ready, or waits.
    for n in 0..4 {
        world.admit(&format!("f{n}"), &format!("s{n}")).await;
    }
    for _ in 0..2 {
        let job = world.start().expect("ready");
        world.table.wait_in_turn(job, Instant::now() + HOUR);
    }
    assert_eq!(world.table.lock().buffered(), 4);
    advance(VISIBILITY / 2).await;
    assert_eq!(world.renew(|| Renewal::Lost).lost.len(), 4);
    assert_eq!(world.table.lock().buffered(), 0);
}
