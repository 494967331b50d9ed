//! An account that finds nothing wrong whatever happens would prove nothing: each thing that it must find is put there.
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

/// Makes the queue anew: whatever was in it is gone.
fn lose_messages(world: &World) {
    world.sqs.create_queue("events", QueueSpec::default());
}

/// What a worker would ask of the Reservation API.
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
async fn it_finds_what_is_left_lost_and_half_done() {
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
async fn it_finds_poison_that_is_gone_and_letters_that_should_not_be_there() {
    let mut poisoned = world().await;
    poisoned.send_poison("no event");
    lose_messages(&poisoned);
    assert!(failure(&poisoned).await.contains("in the dead-letter queue are {}"));
    let clean = world().await;
    clean.sqs.send(&clean.dlq, "a letter");
    assert!(failure(&clean).await.contains("and should be {}"));
}

#[tokio::test]
async fn it_finds_keys_that_are_not_the_events_own_and_calls_that_nothing_explains() {
    let mut world = world().await;
    let event = Event::new("a", Kind::Expired);
    world
        .sent
        .push(Sent { expected: Expected::Judged, ..Sent::event(event.clone(), String::new()) });
    patch(&world, &event, &event.keys()[0]).await;
    assert!(Account::settled(&world, SOON).await.is_ok());
    patch(&world, &event, &event.keys()[0]).await;
    assert!(failure(&world).await.contains("nothing explains why"));
    // Past what an answer may still have been on its way.
    tokio::time::sleep(ON_ITS_WAY * 2).await;
    world.harm.begin();
    let calls = world.ledger.calls();
    assert_eq!(world.harm.why(&calls[0], &calls[1], false), None, "harm that came later");
    world.harm.killed();
    patch(&world, &event, &event.keys()[0]).await;
    let calls = world.ledger.calls();
    assert_eq!(world.harm.why(&calls[1], &calls[2], false), Some(Why::Killed));
    patch(&world, &event, "somebody's").await;
    assert!(failure(&world).await.contains("nothing explains why"), "the first is still there");
    let strange = world.ledger.calls().pop().unwrap();
    assert_eq!(
        (strange.service, strange.key.as_deref()),
        (Service::ReservationApi, Some("somebody's"))
    );
}
