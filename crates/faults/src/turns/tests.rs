//! Tests that the judgement finds each kind of deviation, and accepts what an injected fault
//! explains.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use super::*;
use crate::events::Kind;
use crate::world::Setting;

/// Offsets in ms from the beginning of a test.
type Span = (u64, u64);

fn at(began: Instant, ms: u64) -> Instant {
    began + Duration::from_millis(ms)
}

/// Returns the ledgers of three events, of which the first and the third came to one process.
fn ledgers<'a>(world: &'a World, events: &'a [Event], sent_ms: [u64; 3]) -> Ledgers<'a> {
    let told = |n: usize| Told {
        sent_at: at(world.began, sent_ms[n]),
        delivered: vec![at(world.began, 100)],
        deleted: None,
        queue: n % 2,
    };
    Ledgers { world, events: events.iter().enumerate().map(|(n, it)| (it, told(n))).collect() }
}

fn handlings(began: Instant, spans: &[(usize, Span)]) -> Vec<Handling> {
    let handling = |(event, (from, to)): &(usize, Span)| Handling {
        event: *event,
        from: at(began, *from),
        to: at(began, *to),
    };
    spans.iter().map(handling).collect()
}

async fn world() -> World {
    let here = PathBuf::from(".");
    let setting = Setting { program: here.clone(), folder: here, is_short: true };
    World::start(&setting).await.unwrap()
}

fn events() -> Vec<Event> {
    let kinds = Kind::ALL.into_iter().enumerate();
    kinds.map(|(n, kind)| Event::new(&n.to_string(), kind).about("rsv")).collect()
}

#[tokio::test]
async fn events_that_meet_are_found_unless_a_fault_explains_it() {
    let (mut world, events) = (world().await, events());
    let met = [(0, (1_000, 3_000)), (1, (2_000, 2_100))];
    let turns = [(0, (1_000, 2_000)), (1, (2_000, 2_100))];
    let judge = |world: &World, spans: &[(usize, Span)]| {
        let ledgers = ledgers(world, &events, [0, 10, 20]);
        ledgers.overlaps("rsv", &handlings(world.began, spans))
    };
    assert_eq!(judge(&world, &turns), Ok(0));
    assert!(judge(&world, &met).is_err_and(|failed| failed.0.contains("at once")));
    world.harm.strike_at(at(world.began, 4_000));
    assert!(judge(&world, &met).is_err(), "that was later");
    world.harm.strike_at(at(world.began, 1_500));
    assert_eq!(judge(&world, &met), Ok(1));
}

#[tokio::test]
async fn a_call_that_was_on_the_wire_until_its_message_was_deleted_is_no_part_of_a_turn() {
    let (mut world, events) = (world().await, events());
    world.harm.strike_at(at(world.began, 8_000));
    let mut ledgers = ledgers(&world, &events, [0, 10, 20]);
    let judge = |ledgers: &Ledgers<'_>| {
        let mut all = handlings(world.began, &[(0, (1_000, 1_010))]);
        ledgers.add(&mut all, 0, at(world.began, 8_050), at(world.began, 8_060));
        all.extend(handlings(world.began, &[(1, (2_000, 2_100))]));
        all.sort_by_key(|handling| handling.from);
        ledgers.overlaps("rsv", &all)
    };
    assert!(judge(&ledgers).is_err(), "the event may not have been done before");
    ledgers.events[0].1.deleted = Some(at(world.began, 1_100));
    assert_eq!(judge(&ledgers), Ok(0));
}

#[tokio::test]
async fn an_event_that_goes_before_one_that_waited_is_found() {
    let (mut world, events) = (world().await, events());
    let in_turn = |world: &World, sent_ms, [first, second, third]: [usize; 3]| {
        let spans = [(first, (1_000, 2_000)), (second, (2_000, 3_000)), (third, (3_000, 4_000))];
        ledgers(world, &events, sent_ms).order("rsv", &handlings(world.began, &spans))
    };
    assert_eq!(in_turn(&world, [0, 10, 20], [0, 1, 2]), (1, Vec::new()));
    assert_eq!(in_turn(&world, [0, 20, 10], [0, 1, 2]), (0, Vec::new()), "it has no ticket");
    // The second waited in the other process, and the third goes before it.
    let judge = |world: &World, sent_ms| in_turn(world, sent_ms, [0, 2, 1]);
    let (count, overtaken) = judge(&world, [0, 10, 20]);
    assert_eq!(count, 1);
    assert!(overtaken[0].contains("evt_2 went before evt_1"), "{overtaken:?}");
    for sent_ms in [[0, 20, 10], [0, 10, 12]] {
        assert_eq!(judge(&world, sent_ms), (1, Vec::new()), "sent later, or at the same time");
    }
    world.harm.strike_at(at(world.began, 1_500));
    assert_eq!(judge(&world, [0, 10, 20]), (0, Vec::new()), "a process was killed meanwhile");
}

#[tokio::test]
async fn calls_after_a_strike_are_another_turn() {
    let (mut world, events) = (world().await, events());
    let began = world.began;
    let calls = |world: &World| {
        let ledgers = ledgers(world, &events, [0, 10, 20]);
        let mut all = Vec::new();
        for (from, to) in [(1_000, 1_100), (1_200, 1_300), (3_000, 3_100)] {
            ledgers.add(&mut all, 0, at(began, from), at(began, to));
        }
        all.iter().map(|handling| handling.to).collect::<Vec<_>>()
    };
    assert_eq!(calls(&world), [at(began, 3_100)]);
    world.harm.strike_at(at(began, 2_000));
    assert_eq!(calls(&world), [at(began, 2_000), at(began, 3_100)], "it lasted until then");
    let delivered = vec![at(began, 100), at(began, 1_150)];
    let again = Told { sent_at: began, delivered, deleted: None, queue: 0 };
    let ledgers = Ledgers { world: &world, events: vec![(&events[0], again)] };
    let mut all = Vec::new();
    ledgers.add(&mut all, 0, at(began, 1_000), at(began, 1_100));
    ledgers.add(&mut all, 0, at(began, 1_200), at(began, 1_300));
    assert_eq!(all.len(), 2, "its message was delivered again");
}
