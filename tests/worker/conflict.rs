//! "After 409 or 412", cell by cell, with the state that the stand-ins hold.

use sandbox::inventory::HoldState;
use sandbox::reservation_api::ReservationStatus::{self, Cancelled, Confirmed, Expired};
use sandbox::script::Scripted;
use serde_json::Value;
use tonic::Code;

use crate::support::{World, approved, expired, failed};

type Event = fn(&str, &str) -> Value;

/// The outcome of a cell.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Then {
    /// The step counts as done.
    GoesOn(&'static str),
    Superseded,
    MoneyWithoutSeat,
}

const CELLS: [(&str, Event, ReservationStatus, Then); 9] = [
    ("expired", expired, Expired, Then::GoesOn("ReleaseHold")),
    ("expired", expired, Confirmed, Then::Superseded),
    ("expired", expired, Cancelled, Then::GoesOn("ReleaseHold")),
    ("failed", failed, Cancelled, Then::GoesOn("ReleaseHold")),
    ("failed", failed, Confirmed, Then::Superseded),
    ("failed", failed, Expired, Then::GoesOn("ReleaseHold")),
    ("approved", approved, Confirmed, Then::GoesOn("CommitReservation")),
    ("approved", approved, Expired, Then::MoneyWithoutSeat),
    ("approved", approved, Cancelled, Then::MoneyWithoutSeat),
];

#[tokio::test]
async fn each_event_type_and_status_after_a_conflict_has_its_outcome() {
    let world = World::start().await;
    let worker = world.worker().await;
    let name =
        |event: &str, found: ReservationStatus, answer: u16| format!("{event}-{found}-{answer}");
    for (event, make, found, _) in CELLS {
        for answer in [409, 412] {
            let reservation = name(event, found, answer);
            world.api.set_status(&reservation, found);
            world.api.script_for(
                &reservation,
                [Scripted::<sandbox::reservation_api::Reply>::status(answer)],
            );
            world.send(&make(&format!("evt-{reservation}"), &reservation));
        }
    }
    world.emptied().await;
    let dead_letters = world.dead_letters();
    for (event, _, found, then) in CELLS {
        for answer in [409, 412] {
            let reservation = name(event, found, answer);
            let methods = world.methods(&reservation);
            match then {
                Then::GoesOn(rpc) => assert_eq!(methods, ["PATCH", "GET", rpc], "{reservation}"),
                Then::Superseded | Then::MoneyWithoutSeat => {
                    assert_eq!(methods, ["PATCH", "GET"], "{reservation}");
                }
            }
            let copies =
                dead_letters.iter().filter(|dead_letter| dead_letter.body.contains(&reservation));
            let reasons: Vec<_> =
                copies.map(|l| l.attributes["dlq_reason"].string_value.clone().unwrap()).collect();
            let expected: &[&str] =
                if then == Then::MoneyWithoutSeat { &["money_without_seat"] } else { &[] };
            assert_eq!(reasons, expected, "{reservation}");
        }
    }
    assert_eq!(worker.outcomes("reservation.expired"), [4.0, 0.0, 2.0, 0.0]);
    assert_eq!(worker.outcomes("payment.failed"), [4.0, 0.0, 2.0, 0.0]);
    assert_eq!(worker.outcomes("payment.approved"), [2.0, 4.0, 0.0, 0.0]);
    assert_eq!(worker.metric("worker_superseded_total"), 4.0);
    assert_eq!(worker.metric("worker_money_without_seat_total"), 4.0);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_conflict_with_a_pending_or_unknown_status_is_retried() {
    let world = World::start().await;
    let worker = world.worker().await;
    let status = Scripted::<sandbox::reservation_api::Reply>::status;
    for (event, make) in [("expired", expired as Event), ("failed", failed), ("approved", approved)]
    {
        // The first answer is 409 with PENDING, the second 412 with an unknown status, then the
        // PATCH succeeds.
        let strange = status(200).body(r#"{"status":"ON_HOLD"}"#);
        world.api.script_for(event, [status(409), Scripted::normal(), status(412), strange]);
        world.send(&make(&format!("evt-{event}"), event));
    }
    world.emptied().await;
    for (event, rpc) in
        [("expired", "ReleaseHold"), ("failed", "ReleaseHold"), ("approved", "CommitReservation")]
    {
        assert_eq!(world.methods(event), ["PATCH", "GET", "PATCH", "GET", "PATCH", rpc], "{event}");
    }
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_get_that_fails_or_has_no_status_is_retried() {
    let world = World::start().await;
    let worker = world.worker().await;
    let status = Scripted::<sandbox::reservation_api::Reply>::status;
    for (name, answer) in [
        ("503", status(503)),
        ("garbage", status(200).body("<html>")),
        ("none", status(200).body("{}")),
    ] {
        world.api.set_status(name, Confirmed);
        world.api.script_for(name, [Scripted::normal(), answer]);
        world.send(&expired(&format!("evt-{name}"), name));
    }
    world.emptied().await;
    for name in ["503", "garbage", "none"] {
        assert_eq!(world.methods(name), ["PATCH", "GET", "PATCH", "GET"], "{name}");
    }
    assert_eq!(worker.outcomes("reservation.expired"), [0.0, 0.0, 3.0, 3.0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_step_that_a_conflict_shows_as_done_is_not_retried() {
    let world = World::start().await;
    let worker = world.worker().await;
    world.api.set_status("a", Cancelled);
    world
        .inventory
        .script_for("a", [Scripted::<sandbox::inventory::Reply>::code(Code::Unavailable)]);
    world.send(&expired("evt-a", "a"));
    world.emptied().await;
    assert_eq!(world.methods("a"), ["PATCH", "GET", "ReleaseHold", "ReleaseHold"]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn an_expiry_after_the_payment_does_not_release_the_seats() {
    let world = World::start().await;
    let worker = world.worker().await;
    world.send(&approved("evt-1", "a"));
    world.emptied().await;
    world.send(&expired("evt-2", "a"));
    world.send(&failed("evt-3", "a"));
    world.emptied().await;
    assert_eq!(world.inventory.hold("a"), Some(HoldState::Committed));
    assert_eq!(world.api.status("a"), Some(Confirmed));
    assert!(!world.methods("a").contains(&"ReleaseHold"));
    // A superseded event counts as handled: its copy makes no calls.
    let calls = world.ledger.totals().calls;
    world.send(&expired("evt-2", "a"));
    world.emptied().await;
    assert_eq!(world.ledger.totals().calls, calls);
    assert_eq!(worker.outcomes("reservation.expired"), [0.0, 0.0, 2.0, 0.0]);
    worker.finish(&world).await;
}
