//! Tests that the account detects each kind of deviation. Each test injects one.
#![allow(clippy::unwrap_used)]

use std::path::PathBuf;

use sandbox::ledger::Service;
use sandbox::sqs::QueueSpec;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::events::Kind;
use crate::world::Setting;

const SOON: Duration = Duration::from_millis(50);

async fn world() -> World {
    let here = PathBuf::from(".");
    let setting = Setting { program: here.clone(), folder: here, is_short: true };
    World::start(&setting).await.unwrap()
}

/// Recreates the queue, which loses its messages.
fn lose_messages(world: &World) {
    world.sqs.create_queue("events", QueueSpec::default());
}

/// Sends the worker's request to the Reservation API.
async fn patch(world: &World, event: &Event, key: &str) {
    let base = world.api.base_url();
    let address = base.trim_start_matches("http://");
    let body = r#"{"status":"EXPIRED"}"#;
    let request = format!(
        "PATCH /internal/reservations/{} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nIdempotency-Key: {key}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        event.reservation,
        body.len()
    );
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream.read_to_string(&mut String::new()).await.unwrap();
}

async fn failure(world: &World) -> String {
    Account::settled(world, SOON).await.unwrap_err().0
}

#[tokio::test]
async fn unhandled_lost_and_incomplete_events_are_found() {
    let mut world = world().await;
    let event = Event::new("a", Kind::Expired);
    world.send(event.clone());
    assert!(failure(&world).await.contains("the queue is not empty"));
    lose_messages(&world);
    assert!(failure(&world).await.contains("had these effects: []"));
    patch(&world, &event, &event.keys()[0]).await;
    assert!(failure(&world).await.contains("had these effects: [Status(Expired)]"));
}

#[tokio::test]
async fn lost_poison_messages_and_unexpected_dead_letters_are_found() {
    let mut poisoned = world().await;
    poisoned.send_poison("no event");
    lose_messages(&poisoned);
    assert!(failure(&poisoned).await.contains("in the dead-letter queue are {}"));
    let clean = world().await;
    clean.sqs.send(&clean.dlq, "a letter");
    assert!(failure(&clean).await.contains("and should be {}"));
}

#[tokio::test]
async fn foreign_idempotency_keys_and_unexplained_calls_are_found() {
    let mut world = world().await;
    let event = Event::new("a", Kind::Expired);
    world
        .sent
        .push(Sent { expected: Expected::Judged, ..Sent::event(event.clone(), String::new()) });
    patch(&world, &event, &event.keys()[0]).await;
    assert!(Account::settled(&world, SOON).await.is_ok());
    patch(&world, &event, &event.keys()[0]).await;
    assert!(failure(&world).await.contains("nothing explains why"));
    // Waits until the response can no longer be in transit.
    tokio::time::sleep(ON_ITS_WAY * 2).await;
    world.harm.begin();
    let calls = world.ledger.calls();
    assert_eq!(
        world.harm.why(&calls[0], &calls[1], false),
        None,
        "a later fault explains no earlier call"
    );
    world.harm.killed();
    patch(&world, &event, &event.keys()[0]).await;
    let calls = world.ledger.calls();
    assert_eq!(world.harm.why(&calls[1], &calls[2], false), Some(Why::Killed));
    patch(&world, &event, "somebody's").await;
    assert!(
        failure(&world).await.contains("nothing explains why"),
        "the first deviation is reported"
    );
    let strange = world.ledger.calls().pop().unwrap();
    assert_eq!(
        (strange.service, strange.key.as_deref()),
        (Service::ReservationApi, Some("somebody's"))
    );
}
