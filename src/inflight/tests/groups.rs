//! FIFO groups, the redrive policy, and the share of the in-flight limit per reservation.

use super::*;
use crate::inflight::redrive::ReceivesMax;
use crate::outage::Dependency;

/// Admits three events of a group, received for the second time.
async fn group(max: ReceivesMax) -> World {
    let mut world = World::new();
    world.limit(max, None);
    (world.group, world.receive_count) = (Some("g"), 2);
    for n in 1..=3 {
        world.admit(&format!("e{n}"), &format!("r{n}")).await;
    }
    world
}

#[tokio::test(start_paused = true)]
async fn only_a_head_in_its_last_receive_is_dead_lettered() {
    for (max, rounds, fate) in [
        (ReceivesMax::Limit(2), 0, GroupFate::LastReceive),
        (ReceivesMax::Limit(3), 0, GroupFate::Wait),
        (ReceivesMax::Limit(3), 1, GroupFate::LastReceive),
        (ReceivesMax::Unknown, 9, GroupFate::Wait),
        (ReceivesMax::Unlimited, 9, GroupFate::Wait),
    ] {
        let mut world = group(max).await;
        let mut head = world.start().expect("e1");
        head.rounds = rounds;
        assert_eq!(world.table.group_fate(&head), fate, "{max:?} {rounds}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_is_released_if_no_event_waits_for_it_or_the_limit_is_near() {
    let mut world = World::new();
    world.limit(ReceivesMax::Limit(3), None);
    world.admit("no group", "r0").await;
    let alone = world.start().expect("no group");
    assert_eq!(world.table.group_fate(&alone), GroupFate::Release);
    world.group = Some("g");
    world.admit("e1", "r1").await;
    let head = world.start().expect("e1");
    assert_eq!(
        world.table.group_fate(&head),
        GroupFate::Release,
        "no later event waits for the head"
    );
    world.admit("e2", "r2").await;
    assert_eq!(world.table.group_fate(&head), GroupFate::Wait);
    for n in 0..48 {
        world.admit(&format!("f{n}"), &format!("s{n}")).await;
    }
    assert_eq!(
        world.table.group_fate(&head),
        GroupFate::Release,
        "more than half of the limit is used"
    );
}

#[tokio::test(start_paused = true)]
async fn a_head_without_receives_left_does_not_hand_back_its_group() {
    for (max, next) in [(ReceivesMax::Limit(2), Some("e2")), (ReceivesMax::Limit(3), None)] {
        let mut world = group(max).await;
        let head = world.start().expect("e1");
        assert_eq!(world.table.release(&head, Duration::from_secs(30)).len(), 1);
        assert_eq!(world.start_id().as_deref(), next);
        assert_eq!(world.table.take_abandoned().is_empty(), next.is_some());

        let mut world = group(max).await;
        let head = world.start().expect("e1");
        let removed = world.table.take(&head);
        removed.turn.expect("it is in a group").abandon();
        assert_eq!(world.start_id().as_deref(), next, "after a failed copy");

        let mut world = group(max).await;
        let head = world.start().expect("e1");
        advance(Duration::from_secs(15)).await;
        let (due, now) = (world.table.renewals_due(Instant::now()).due, Instant::now());
        let answer = |due: DueRenewal| {
            let is_head = &*due.handle.0 == "handle-2";
            (due.key, if is_head { Renewal::Lost } else { extended() })
        };
        world.table.renewed(due.into_iter().map(answer).collect(), now);
        assert!(world.table.forget_lost(head).is_some());
        assert_eq!(world.start_id().as_deref(), next, "after a lost lease");
    }
}

/// Offers `count` further events of a reservation.
/// Returns for how long each is handed back; `None` if it is held.
async fn offer(world: &mut World, reservation: &str, count: usize) -> Vec<Option<Duration>> {
    let mut offered = Vec::new();
    for _ in 0..count {
        let id = format!("more-{}", world.serial);
        offered.push(match world.admit(&id, reservation).await {
            Admitted::Deferred { after, .. } => Some(after),
            Admitted::Ready | Admitted::InLane => None,
            other @ (Admitted::Joined { .. } | Admitted::IdReused(..)) => panic!("{other:?}"),
        });
    }
    offered
}

#[tokio::test(start_paused = true)]
async fn a_reservation_uses_at_most_half_of_the_free_messages() {
    let mut world = World::new();
    let held = |offered: &[Option<Duration>]| offered.iter().filter(|it| it.is_none()).count();
    assert_eq!(held(&offer(&mut world, "hot", 80).await), 50);
    // The second reservation finds half of the room and leaves half of that; the rest is for
    // others.
    assert_eq!(held(&offer(&mut world, "hot too", 80).await), 25);
    assert_eq!(held(&offer(&mut world, "cold", 5).await), 5);
    for n in 0..20 {
        assert_eq!(held(&offer(&mut world, &format!("r{n}"), 1).await), 1);
    }
    assert_eq!(world.table.held(), 100);
}

/// In a room of 64 MiB, 64 messages of 1 MiB would fill it.
#[tokio::test(start_paused = true)]
async fn a_reservation_uses_at_most_half_of_the_free_bytes() {
    let mut world = World::new();
    world.limiter = InFlightLimiter::new(100, 64 << 20);
    let mut held = 0;
    for n in 0..40 {
        let (job, original, mut receipt) =
            world.arrival(&format!("m{n}"), &format!("e{n}"), "hot", "show").await;
        receipt.permit.grow((1 << 20) - 1_024);
        let admitted = world.table.admission().event(job, original, receipt);
        held += usize::from(!matches!(admitted, Admitted::Deferred { .. }));
    }
    assert_eq!(held, 32);
    assert!(matches!(world.admit("e", "cold").await, Admitted::Ready));
}

#[tokio::test(start_paused = true)]
async fn a_deferred_event_is_hidden_until_its_turn_is_near() {
    let mut world = World::new();
    offer(&mut world, "hot", 50).await;
    // Ten per second for five seconds.
    for _ in 0..9 {
        advance(Duration::from_millis(100)).await;
        let job = world.start().expect("the next of the lane");
        drop(world.table.take(&job));
    }
    let offered = offer(&mut world, "hot", 40).await;
    let after: Vec<_> = offered.iter().flatten().map(Duration::as_millis).collect();
    assert_eq!((offered.len() - after.len(), after.len()), (9, 31));
    assert_eq!((after[0], after[30]), (5_000, 8_000));
    // A lane without progress is checked again after a quarter of an hour.
    advance(Duration::from_secs(24 * 3_600)).await;
    world.limit(ReceivesMax::Unlimited, None);
    world.receive_count = 2;
    assert_eq!(offer(&mut world, "hot", 1).await, [Some(Duration::from_secs(900))]);
}

#[tokio::test(start_paused = true)]
async fn an_event_without_a_spare_receive_is_not_deferred() {
    for (max, receives, goes_back) in [
        (ReceivesMax::Unknown, 1, true),
        (ReceivesMax::Unknown, 2, false),
        (ReceivesMax::Limit(3), 1, true),
        (ReceivesMax::Limit(3), 2, false),
        (ReceivesMax::Limit(2), 1, false),
        (ReceivesMax::Unlimited, 1_000, true),
    ] {
        let mut world = World::new();
        offer(&mut world, "hot", 50).await;
        world.limit(max, None);
        world.receive_count = receives;
        let offered = offer(&mut world, "hot", 1).await;
        assert_eq!(offered[0].is_some(), goes_back, "{max:?} {receives}");
    }
    // Handing back would close a FIFO group for as long.
    let mut world = World::new();
    world.group = Some("g");
    assert_eq!(offer(&mut world, "hot", 60).await, [None; 60]);
}

/// An outage uses up no receives.
#[tokio::test(start_paused = true)]
async fn no_event_is_deferred_during_an_outage_of_its_service() {
    let mut world = World::new();
    offer(&mut world, "hot", 50).await;
    let head = world.start().expect("the first");
    let how = ParkedAs { is_fresh: true, is_full: false, is_suspect: false };
    world.table.park(head, Dependency::ReservationApi, how);
    assert_eq!(offer(&mut world, "hot", 10).await, [None; 10]);
    world.table.unpark(Dependency::ReservationApi, 1);
    assert!(offer(&mut world, "hot", 1).await[0].is_some());
}

/// Another process may have the reservation for as long as an outage lasts.
#[tokio::test(start_paused = true)]
async fn an_event_whose_turn_is_elsewhere_keeps_one_more_receive() {
    for (max, receives, goes_back) in [
        (ReceivesMax::Unknown, 1, false),
        (ReceivesMax::Limit(3), 1, false),
        (ReceivesMax::Limit(4), 1, true),
        (ReceivesMax::Limit(4), 2, false),
        (ReceivesMax::Unlimited, 1_000, true),
    ] {
        let mut world = World::new();
        world.limit(max, None);
        offer(&mut world, "hot", 50).await;
        let mut head = world.start().expect("the first");
        head.turn = Some(TurnWait { since: Instant::now(), asked: 1 });
        world.table.wait(head, Instant::now());
        world.receive_count = receives;
        let offered = offer(&mut world, "hot", 1).await;
        assert_eq!(offered[0].is_some(), goes_back, "{max:?} {receives}");
        world.table.wake_due(Instant::now());
        let mut head = world.start().expect("it asks again");
        let offered = offer(&mut world, "hot", 1).await;
        assert_eq!(offered[0].is_some(), goes_back, "{max:?} {receives}, while it asks");
        // Its turn has come, and it fails: the lane waits for its own event.
        head.turn = None;
        world.table.wait(head, Instant::now() + Duration::from_secs(1));
        world.receive_count = 1;
        assert!(offer(&mut world, "hot", 1).await[0].is_some(), "{max:?} {receives}, in its turn");
    }
}

/// A head that waits for room does not stop hand-backs, unless its service is down.
#[tokio::test(start_paused = true)]
async fn a_backlog_is_deferred_while_its_head_waits_for_the_concurrency_limit() {
    for is_suspect in [true, false] {
        let mut world = World::new();
        offer(&mut world, "hot", 50).await;
        let head = world.start().expect("the first");
        let how = ParkedAs { is_fresh: !is_suspect, is_full: true, is_suspect };
        world.table.park(head, Dependency::ReservationApi, how);
        assert!(offer(&mut world, "hot", 1).await[0].is_some(), "suspect: {is_suspect}");
        world.table.set_away(Dependency::ReservationApi, true);
        assert_eq!(offer(&mut world, "hot", 10).await, [None; 10], "suspect: {is_suspect}");
    }
}

#[tokio::test(start_paused = true)]
async fn copies_of_an_event_use_at_most_half_of_the_free_messages() {
    let mut world = World::new();
    let mut joined = 0;
    for n in 0..200 {
        match world.admit_message(&format!("m{n}"), "e1", "r1", "show").await {
            Admitted::Ready | Admitted::Joined { .. } => joined += 1,
            Admitted::Deferred { .. } => {}
            other @ (Admitted::InLane | Admitted::IdReused(..)) => panic!("{other:?}"),
        }
    }
    assert_eq!(joined, 50);
    assert!(world.limiter.free() > 0);
}
