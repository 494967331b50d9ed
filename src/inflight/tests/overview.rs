//! What operators see of the table.

use super::*;
use crate::metrics::Service;
use crate::outage::Dependency;

const SECOND: Duration = Duration::from_secs(1);

fn states(overview: &Overview) -> Vec<(EventState, usize, u64)> {
    overview
        .states
        .iter()
        .map(|count| (count.state, count.events, count.oldest.as_secs()))
        .collect()
}

#[tokio::test(start_paused = true)]
async fn each_event_is_counted_where_it_is() {
    let mut world = World::new();
    for id in ["running", "backoff", "away", "full"] {
        world.admit(id, id).await;
    }
    advance(SECOND).await;
    let _running = world.start().expect("running");
    let backoff = world.start().expect("backoff");
    world.table.wait(backoff, Instant::now() + 60 * SECOND);
    let away = ParkedAs { is_fresh: true, is_full: false, is_suspect: false };
    let job = world.start().expect("away");
    world.table.park(job, Dependency::Inventory, away);
    let job = world.start().expect("full");
    let full = ParkedAs { is_full: true, ..away };
    world.table.park(job, Dependency::ReservationApi, full);
    world.admit("buffered", "buffered").await;
    world.admit("in lane", "running").await;
    let overview = world.table.overview(20, clock_now());
    let expected = [
        (EventState::Running, 1, 1),
        (EventState::Buffered, 1, 0),
        (EventState::InLane, 1, 0),
        (EventState::Backoff, 1, 1),
        (EventState::Full(Dependency::ReservationApi), 1, 1),
        (EventState::Away(Dependency::Inventory), 1, 1),
    ];
    assert_eq!(states(&overview), expected);
    let held = world.table.held_event(&"away".parse_id(), clock_now()).expect("held");
    assert_eq!(held.state, EventState::Away(Dependency::Inventory));
    assert_eq!(world.table.held_event(&"gone".parse_id(), clock_now()), None);
}

#[tokio::test(start_paused = true)]
async fn the_oldest_events_come_first_and_are_bounded() {
    let mut world = World::new();
    for n in 0..30 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
        advance(SECOND).await;
    }
    let overview = world.table.overview(20, clock_now());
    assert_eq!(states(&overview), [(EventState::Buffered, 30, 30)]);
    let ids: Vec<_> =
        overview.oldest.iter().map(|held| held.event_id.as_str().to_owned()).collect();
    assert_eq!(ids, (0..20).map(|n| format!("e{n}")).collect::<Vec<_>>());
    assert_eq!(overview.oldest[0].age, 30 * SECOND);
    assert_eq!(overview.oldest[0].reservation_id.as_ref().map(|id| id.as_str()), Some("r0"));
}

#[tokio::test(start_paused = true)]
async fn a_suspect_and_a_turn_elsewhere_are_told_apart() {
    let mut world = World::new();
    for id in ["suspect", "turn"] {
        world.admit(id, id).await;
    }
    let mut job = world.start().expect("suspect");
    job.attempt = 1;
    let guard = world.metrics.suspect(Service::Inventory);
    assert!(world.table.wait_as_suspect(job, guard, Instant::now() + SECOND).is_none());
    let mut job = world.start().expect("turn");
    job.turn = Some(TurnWait { since: Instant::now(), asked: 1 });
    world.table.wait(job, Instant::now() + SECOND);
    let overview = world.table.overview(20, clock_now());
    assert_eq!(states(&overview), [(EventState::Turn, 1, 0), (EventState::Backoff, 1, 0)]);
}

fn clock_now() -> Instant {
    crate::clock::now()
}

trait ParseId {
    fn parse_id(&self) -> crate::event::EventId;
}

impl ParseId for str {
    fn parse_id(&self) -> crate::event::EventId {
        crate::event::EventId::new(self).expect("an id")
    }
}
