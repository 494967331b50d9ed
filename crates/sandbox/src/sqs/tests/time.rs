//! Tests of rules of seconds to days with paused time and without a socket, and of limits.

use super::super::action::Action;
use super::super::queue::IN_FLIGHT_MAX;
use super::super::{receive, send, settings, wire, world};
use super::*;

const HOUR: Duration = Duration::from_secs(3600);

fn shared(spec: QueueSpec) -> world::Shared {
    let shared = world::Shared::new("http://here".to_owned());
    let now = shared.now();
    shared.lock().insert("q", settings::Settings::new(spec), now);
    shared
}

fn asking(max: i64, wait_s: i64) -> wire::ReceiveMessage {
    wire::ReceiveMessage {
        queue_url: Some("q".to_owned()),
        max_number_of_messages: Some(max),
        wait_time_seconds: Some(wait_s),
        ..wire::ReceiveMessage::default()
    }
}

/// Returns the bodies and handles of all visible messages.
async fn take(shared: &world::Shared, max: i64) -> Vec<(String, String)> {
    let deliveries = receive::receive(shared, &asking(max, 0)).await.unwrap();
    let part =
        |d: &super::super::queue::Delivery| (d.content.body.clone(), d.receipt_handle.to_string());
    deliveries.iter().map(part).collect()
}

fn change(shared: &world::Shared, handle: &str, timeout_s: u32) -> Result<(), SqsError> {
    let now = shared.now();
    let mut world = shared.lock();
    let queue = world.queue(Some("q"), now)?;
    queue.change_visibility(Action::ChangeMessageVisibility, handle, timeout_s, now)
}

fn fifo(body: &str, group: &str, id: &str) -> NewMessage {
    NewMessage {
        group: Some(group.to_owned()),
        deduplication_id: Some(id.to_owned()),
        ..NewMessage::new(body)
    }
}

#[tokio::test(start_paused = true)]
async fn visibility_is_limited_to_twelve_hours_from_the_receive() {
    let shared = shared(QueueSpec::default());
    send::send_new(&shared, "q", NewMessage::new("x")).unwrap();
    let handle = take(&shared, 1).await.remove(0).1;
    change(&shared, &handle, 43_200).unwrap();
    tokio::time::advance(11 * HOUR).await;
    change(&shared, &handle, 3600).unwrap();
    let error = change(&shared, &handle, 3601).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidParameterValue);
    assert!(error.message.contains("beyond the limit [43200 seconds]"));
    tokio::time::advance(HOUR).await;
    let error = change(&shared, &handle, 1).unwrap_err();
    assert_eq!(error.code, ErrorCode::MessageNotInflight);
    // A new receive starts a new count.
    let handle = take(&shared, 1).await.remove(0).1;
    change(&shared, &handle, 43_200).unwrap();
}

#[tokio::test(start_paused = true)]
async fn deduplication_lasts_five_minutes() {
    let shared = shared(QueueSpec { fifo: true, ..QueueSpec::default() });
    let first = send::send_new(&shared, "q", fifo("x", "g", "same")).unwrap();
    tokio::time::advance(Duration::from_secs(299)).await;
    assert_eq!(send::send_new(&shared, "q", fifo("x", "g", "same")).unwrap(), first);
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_ne!(send::send_new(&shared, "q", fifo("x", "g", "same")).unwrap(), first);
    let now = shared.now();
    let mut world = shared.lock();
    let queue = world.queue(Some("q"), now).unwrap();
    assert_eq!((queue.ledger.sent, queue.ledger.deduplicated), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn deduplication_by_group_is_a_queue_attribute() {
    let shared = shared(QueueSpec { fifo: true, ..QueueSpec::default() });
    let scope = [("DeduplicationScope".to_owned(), "messageGroup".to_owned())];
    let now = shared.now();
    shared.lock().reconfigure(Some("q"), &scope.into(), now).unwrap();
    let first = send::send_new(&shared, "q", fifo("x", "a", "same")).unwrap();
    assert_ne!(send::send_new(&shared, "q", fifo("x", "b", "same")).unwrap(), first);
    assert_eq!(send::send_new(&shared, "q", fifo("x", "a", "same")).unwrap(), first);
}

#[tokio::test(start_paused = true)]
async fn messages_are_removed_after_their_retention() {
    let shared = shared(QueueSpec { retention_s: 60, ..QueueSpec::default() });
    send::send_new(&shared, "q", NewMessage::new("old")).unwrap();
    tokio::time::advance(Duration::from_secs(30)).await;
    send::send_new(&shared, "q", NewMessage::new("new")).unwrap();
    tokio::time::advance(Duration::from_secs(30)).await;
    let bodies: Vec<_> = take(&shared, 10).await.into_iter().map(|(body, _)| body).collect();
    assert_eq!(bodies, ["new"]);
}

#[tokio::test(start_paused = true)]
async fn the_in_flight_limit_is_an_error_only_for_short_polls() {
    let shared = shared(QueueSpec { visibility_timeout_s: 100, ..QueueSpec::default() });
    for _ in 0..=IN_FLIGHT_MAX {
        send::send_new(&shared, "q", NewMessage::new("x")).unwrap();
    }
    for _ in 0..IN_FLIGHT_MAX / 10 {
        assert_eq!(take(&shared, 10).await.len(), 10);
    }
    let error = receive::receive(&shared, &asking(10, 0)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::OverLimit);
    assert!(receive::receive(&shared, &asking(10, 5)).await.unwrap().is_empty());
    // The long poll returns messages when some become visible again.
    tokio::time::advance(Duration::from_secs(90)).await;
    let woken = receive::receive(&shared, &asking(10, 20)).await;
    assert_eq!(woken.unwrap().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_receive_notices_an_earlier_timer() {
    let shared = shared(QueueSpec::default());
    send::send_new(&shared, "q", NewMessage::new("x")).unwrap();
    let handle = take(&shared, 1).await.remove(0).1;
    let started = tokio::time::Instant::now();
    let input = asking(1, 20);
    let (received, ()) = tokio::join!(biased; receive::receive(&shared, &input), async {
        change(&shared, &handle, 2).unwrap();
    });
    assert_eq!(received.unwrap().len(), 1);
    assert_eq!(started.elapsed().as_secs(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_returned_message_comes_after_waiting_ones() {
    let shared = shared(QueueSpec::default());
    for body in ["a", "b"] {
        send::send_new(&shared, "q", NewMessage::new(body)).unwrap();
        tokio::time::advance(Duration::from_millis(1)).await;
    }
    let (body, handle) = take(&shared, 1).await.remove(0);
    assert_eq!(body, "a");
    change(&shared, &handle, 0).unwrap();
    let bodies: Vec<_> = take(&shared, 10).await.into_iter().map(|(body, _)| body).collect();
    assert_eq!(bodies, ["b", "a"]);
}

#[tokio::test(start_paused = true)]
async fn a_group_stays_locked_until_all_its_messages_are_returned() {
    let shared = shared(QueueSpec { fifo: true, ..QueueSpec::default() });
    for body in ["1", "2"] {
        send::send_new(&shared, "q", fifo(body, "g", body)).unwrap();
    }
    let taken = take(&shared, 10).await;
    change(&shared, &taken[0].1, 0).unwrap();
    assert!(take(&shared, 10).await.is_empty());
    change(&shared, &taken[1].1, 0).unwrap();
    let bodies: Vec<_> = take(&shared, 10).await.into_iter().map(|(body, _)| body).collect();
    assert_eq!(bodies, ["1", "2"]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_receive_takes_no_message() {
    let shared = shared(QueueSpec::default());
    let input = asking(1, 20);
    tokio::select! {
        biased;
        _ = receive::receive(&shared, &input) => panic!("there is nothing to receive"),
        () = std::future::ready(()) => {}
    }
    send::send_new(&shared, "q", NewMessage::new("x")).unwrap();
    assert_eq!(take(&shared, 1).await.len(), 1);
}
