//! "How answers are read", row by row: the whole worker completes, retries or dead-letters the
//! event.

use reservation_worker::event::Step;
use sandbox::inventory::Reply as RpcReply;
use sandbox::ledger::{Call, Effect};
use sandbox::reservation_api::Reply as HttpReply;
use sandbox::script::Scripted;
use sandbox::sqs::StoredMessage;
use serde_json::Value;
use tonic::Code;

use crate::support::{World, approved, expired, failed, key};

type Http = Scripted<HttpReply>;
type Rpc = Scripted<RpcReply>;

/// Returns the copy of the event of a reservation in the dead-letter queue.
fn dead_letter<'a>(dead_letters: &'a [StoredMessage], reservation: &str) -> &'a StoredMessage {
    let named = |body: &str| {
        let body: Value = serde_json::from_str(body).unwrap();
        body["reservation_id"] == reservation
    };
    let mut found = dead_letters.iter().filter(|dead_letter| named(&dead_letter.body));
    let dead_letter = found.next().unwrap_or_else(|| panic!("no dead letter for {reservation}"));
    assert!(found.next().is_none(), "two dead letters for {reservation}");
    dead_letter
}

fn reason(dead_letter: &StoredMessage) -> &str {
    dead_letter.attributes["dlq_reason"].string_value.as_deref().unwrap()
}

fn assert_keys(calls: &[Call], expected: &[String]) {
    let keys: Vec<_> = calls.iter().map(|call| call.key.clone().unwrap()).collect();
    assert_eq!(keys, expected, "{calls:?}");
}

/// Transient answers to a PATCH, of a proxy and of the API.
fn patch_transient() -> Vec<(&'static str, Http)> {
    let mut rows = vec![
        ("lost", Http::lost_reply()),
        ("hang-up", Http::hang_up()),
        ("301", Http::status(301).header("Location", "/elsewhere")),
        ("307", Http::status(307).header("Location", "/elsewhere")),
        ("200-proxy", Http::status(200).without_error_body()),
        ("400-proxy", Http::status(400).without_error_body()),
        ("404-proxy", Http::status(404).without_error_body()),
        ("405-proxy", Http::status(405).without_error_body()),
        ("421-proxy", Http::status(421).body("")),
    ];
    let statuses = [
        ("401", 401),
        ("408", 408),
        ("425", 425),
        ("429", 429),
        ("500", 500),
        ("501", 501),
        ("502", 502),
        ("503", 503),
        ("504", 504),
        ("599", 599),
    ];
    rows.extend(statuses.map(|(name, status)| (name, Http::status(status))));
    // The change is applied, although the status is an error.
    rows.push(("503-applied", Http::status(503).applying()));
    rows
}

/// Events are sent one by one: failures of several reservations would open the circuit breaker.
#[tokio::test]
async fn a_patch_that_fails_transiently_is_retried_with_its_key_and_applied_once() {
    let world = World::start().await;
    let worker = world.worker().await;
    for (name, reply) in patch_transient() {
        world.api.script_for(name, [reply]);
        world.send(&expired(&format!("evt-{name}"), name));
        world.emptied().await;
    }
    for (name, _) in patch_transient() {
        assert_eq!(world.methods(name), ["PATCH", "PATCH", "ReleaseHold"], "{name}");
        let id = format!("evt-{name}");
        let (patch, release) =
            (key(&id, Step::ReservationStatus), key(&id, Step::InventoryRelease));
        assert_keys(&world.ledger.calls_for(name), &[patch.clone(), patch, release]);
        assert_eq!(world.ledger.effects_for(name).len(), 2, "{name}");
    }
    assert_eq!(world.api.script_left(), 0);
    assert_eq!(world.ledger.calls_for("elsewhere"), [], "a redirect was followed");
    let [success, failed, dropped, retried] = worker.outcomes("reservation.expired");
    let rows = u32::try_from(patch_transient().len()).unwrap();
    // A kept-alive connection that closes without an answer is no failed attempt: the call is sent
    // again at once.
    let retries = f64::from(rows) - 1.0;
    assert_eq!([success, failed, dropped, retried], [rows.into(), 0.0, 0.0, retries]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_2xx_answer_with_json_or_without_body_completes_the_step() {
    let world = World::start().await;
    let worker = world.worker().await;
    let rows = [
        ("200", Http::status(200).body("[]").applying()),
        ("201", Http::status(201).applying()),
        ("202", Http::status(202).body("").applying()),
        ("204", Http::status(204).body("").applying()),
        ("cut", Http::cut_short()),
    ];
    for (name, reply) in &rows {
        world.api.script_for(name, [reply.clone()]);
        world.send(&expired(&format!("evt-{name}"), name));
    }
    world.emptied().await;
    for (name, _) in rows {
        assert_eq!(world.methods(name), ["PATCH", "ReleaseHold"], "{name}");
    }
    worker.finish(&world).await;
}

/// Lets both services succeed once: refusals without a success between them count as "refuses all".
async fn succeed_once(world: &World, after: &str) {
    world.send(&expired(&format!("evt-good-{after}"), &format!("good-{after}")));
    world.emptied().await;
}

#[tokio::test]
async fn a_patch_that_is_rejected_permanently_is_dead_lettered_without_an_rpc() {
    let world = World::start().await;
    let worker = world.worker().await;
    let rows = [
        (400, "rejected"),
        (402, "rejected"),
        (403, "forbidden"),
        (404, "rejected"),
        (405, "rejected"),
        (410, "rejected"),
        (422, "rejected"),
    ];
    let mut sent = Vec::new();
    for (status, _) in rows {
        let name = status.to_string();
        world.api.script_for(&name, [Http::status(status)]);
        let body = approved(&format!("evt-{name}"), &name);
        sent.push((world.send(&body), body.to_string()));
        world.emptied().await;
        succeed_once(&world, &name).await;
    }
    let dead_letters = world.dead_letters();
    assert_eq!(dead_letters.len(), rows.len());
    for ((status, why), (message_id, body)) in rows.into_iter().zip(sent) {
        let name = status.to_string();
        assert_eq!(world.methods(&name), ["PATCH"], "{name}");
        let dead_letter = dead_letter(&dead_letters, &name);
        assert_eq!((reason(dead_letter), &dead_letter.body), (why, &body), "{name}");
        let text =
            |attribute: &str| dead_letter.attributes[attribute].string_value.clone().unwrap();
        assert_eq!(text("dlq_message_id"), message_id);
        assert_eq!(text("dlq_event_type"), "payment.approved");
        assert_eq!(text("dlq_receive_count"), "1");
        assert!(text("dlq_error").contains(&name), "{}", text("dlq_error"));
    }
    assert_eq!(worker.outcomes("payment.approved"), [0.0, 7.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

fn rpc_transient() -> Vec<(&'static str, Rpc)> {
    let codes = [
        ("unavailable", Code::Unavailable),
        ("deadline", Code::DeadlineExceeded),
        ("cancelled", Code::Cancelled),
        ("unauthenticated", Code::Unauthenticated),
        ("unimplemented", Code::Unimplemented),
        ("internal", Code::Internal),
        ("unknown", Code::Unknown),
        ("aborted", Code::Aborted),
        ("exhausted", Code::ResourceExhausted),
    ];
    let mut rows: Vec<_> = codes.map(|(name, code)| (name, Rpc::code(code))).into();
    rows.push(("unavailable-applied", Rpc::code(Code::Unavailable).applying()));
    rows
}

/// Events are sent one by one, as above.
#[tokio::test]
async fn an_rpc_that_fails_transiently_is_retried_with_its_key_without_the_patch() {
    let world = World::start().await;
    let worker = world.worker().await;
    for (name, reply) in rpc_transient() {
        for (kind, event) in [("release", failed as fn(&str, &str) -> Value), ("commit", approved)]
        {
            let reservation = format!("{kind}-{name}");
            world.inventory.script_for(&reservation, [reply.clone()]);
            world.send(&event(&format!("evt-{reservation}"), &reservation));
            world.emptied().await;
        }
    }
    for (name, _) in rpc_transient() {
        for (kind, method, step, effect) in [
            ("release", "ReleaseHold", Step::InventoryRelease, Effect::SeatsReleased),
            ("commit", "CommitReservation", Step::InventoryCommit, Effect::SeatsCommitted),
        ] {
            let reservation = format!("{kind}-{name}");
            assert_eq!(world.methods(&reservation), ["PATCH", method, method], "{reservation}");
            let id = format!("evt-{reservation}");
            let (patch, rpc) = (key(&id, Step::ReservationStatus), key(&id, step));
            assert_keys(&world.ledger.calls_for(&reservation), &[patch, rpc.clone(), rpc]);
            let effects = world.ledger.effects_for(&reservation);
            assert_eq!(effects.iter().filter(|e| **e == effect).count(), 1, "{reservation}");
        }
    }
    assert_eq!(world.inventory.script_left(), 0);
    worker.finish(&world).await;
}

/// Events are sent one by one: a closed connection fails all calls on it.
#[tokio::test]
async fn an_rpc_whose_reply_is_lost_is_retried_with_its_key() {
    let world = World::start().await;
    let worker = world.worker().await;
    for (name, reply) in [("lost", Rpc::lost_reply()), ("hang-up", Rpc::hang_up())] {
        world.inventory.script_for(name, [reply]);
        world.send(&failed(&format!("evt-{name}"), name));
        world.emptied().await;
        assert_eq!(world.methods(name), ["PATCH", "ReleaseHold", "ReleaseHold"], "{name}");
        assert_eq!(world.ledger.effects_for(name).len(), 2, "{name}");
    }
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_release_of_a_hold_that_does_not_exist_completes_the_step() {
    let world = World::start().await;
    let worker = world.worker().await;
    let rows = [
        ("success", Rpc::status_value(1)),
        ("already-released", Rpc::status_value(2)),
        ("not-found", Rpc::status_value(3)),
        ("not-found-code", Rpc::code(Code::NotFound)),
    ];
    for (name, reply) in &rows {
        world.inventory.script_for(name, [reply.clone()]);
        world.send(&expired(&format!("evt-{name}"), name));
    }
    world.emptied().await;
    for (name, _) in rows {
        assert_eq!(world.methods(name), ["PATCH", "ReleaseHold"], "{name}");
    }
    assert_eq!(world.dead_letters(), []);
    worker.finish(&world).await;
}

#[tokio::test]
async fn an_rpc_that_is_rejected_permanently_is_dead_lettered() {
    let world = World::start().await;
    let worker = world.worker().await;
    let release: [(&str, Rpc, &str); 10] = [
        ("release-invalid", Rpc::code(Code::InvalidArgument), "rejected"),
        ("release-precondition", Rpc::code(Code::FailedPrecondition), "rejected"),
        ("release-exists", Rpc::code(Code::AlreadyExists), "rejected"),
        ("release-range", Rpc::code(Code::OutOfRange), "rejected"),
        ("release-data-loss", Rpc::code(Code::DataLoss), "rejected"),
        ("release-denied", Rpc::code(Code::PermissionDenied), "forbidden"),
        ("release-unspecified", Rpc::status_value(0), "rejected"),
        ("release-failed", Rpc::status_value(4), "rejected"),
        ("release-99", Rpc::status_value(99), "rejected"),
        ("release-minus", Rpc::status_value(-1), "rejected"),
    ];
    let commit: [(&str, Rpc, &str); 12] = [
        ("commit-invalid", Rpc::code(Code::InvalidArgument), "rejected"),
        ("commit-precondition", Rpc::code(Code::FailedPrecondition), "rejected"),
        ("commit-not-found", Rpc::code(Code::NotFound), "rejected"),
        ("commit-exists", Rpc::code(Code::AlreadyExists), "rejected"),
        ("commit-range", Rpc::code(Code::OutOfRange), "rejected"),
        ("commit-data-loss", Rpc::code(Code::DataLoss), "rejected"),
        ("commit-denied", Rpc::code(Code::PermissionDenied), "forbidden"),
        ("commit-unspecified", Rpc::status_value(0), "rejected"),
        ("commit-99", Rpc::status_value(99), "rejected"),
        ("commit-payment", Rpc::status_value(2), "money_without_seat"),
        ("commit-expired", Rpc::status_value(3), "money_without_seat"),
        ("commit-conflict", Rpc::status_value(4), "money_without_seat"),
    ];
    for (name, reply, _) in release.iter().chain(&commit) {
        world.inventory.script_for(name, [reply.clone()]);
        let id = format!("evt-{name}");
        let event =
            if name.starts_with("commit") { approved(&id, name) } else { failed(&id, name) };
        world.send(&event);
        world.emptied().await;
        succeed_once(&world, name).await;
    }
    let dead_letters = world.dead_letters();
    assert_eq!(dead_letters.len(), release.len() + commit.len());
    for (name, _, why) in release.iter().chain(&commit) {
        assert_eq!(world.ledger.calls_for(name).len(), 2, "{name}");
        assert_eq!(reason(dead_letter(&dead_letters, name)), *why, "{name}");
    }
    assert_eq!(worker.metric("worker_money_without_seat_total"), 3.0);
    worker.finish(&world).await;
}
