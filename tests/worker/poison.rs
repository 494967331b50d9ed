//! Poison is dead-lettered soon and unchanged, and never holds up other events.

use std::time::{Instant, SystemTime};

use reservation_worker::queue::{DeadLetter, MessageId, Queue, QueueErrorKind};
use sandbox::reservation_api::Reply as HttpReply;
use sandbox::script::Scripted;
use sandbox::sqs::{Action, AttributeValue, ErrorCode, Fault, NewMessage, QueueSpec, Redrive};
use serde_json::json;

use crate::support::{World, event, eventually, expired, metrics_text, settings};

const TRACE_HEADER: &str = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1";

type Http = Scripted<HttpReply>;

/// Each reason, with bodies that lead to it.
fn bodies() -> Vec<(&'static str, String)> {
    let flat = |payload| event("evt-1", "reservation.expired", "a", payload).to_string();
    let sns = |message: String| {
        json!({"Type": "Notification", "MessageId": "m", "Message": message}).to_string()
    };
    let no = |field: &str| {
        let mut body = expired("evt-1", "a");
        body.as_object_mut().unwrap().remove(field);
        body.to_string()
    };
    vec![
        ("invalid_json", "not json".to_owned()),
        ("invalid_json", "{\"id\":".to_owned()),
        ("invalid_json", sns("not json".to_owned())),
        ("invalid_envelope", "[]".to_owned()),
        ("invalid_envelope", "\"text\"".to_owned()),
        ("invalid_event", "{}".to_owned()),
        ("nested_too_deep", sns(sns(sns(expired("evt-1", "a").to_string())))),
        ("unknown_type", event("evt-1", "reservation.created", "a", json!({})).to_string()),
        ("invalid_event", flat(json!({"qty": 2.5}))),
        ("invalid_event", flat(json!({"qty": 0}))),
        ("invalid_event", flat(json!({"qty": -1}))),
        ("invalid_event", flat(json!({"qty": 3, "seat_ids": ["A-1", "A-2"]}))),
        ("invalid_event", flat(json!({"qty": "2"}))),
        ("invalid_event", no("reservation_id")),
    ]
}

#[tokio::test]
async fn poison_is_copied_unchanged_with_its_reason_and_deleted() {
    let world = World::start().await;
    let worker = world.worker().await;
    let mut sent = Vec::new();
    for (reason, body) in bodies() {
        let mut message = NewMessage::new(&body).attribute("own", "kept");
        message.trace_header = Some(TRACE_HEADER.to_owned());
        message.attributes.insert("bytes".to_owned(), AttributeValue::binary(&[0, 255]));
        sent.push((reason, world.send_message(message), body));
    }
    world.send(&expired("evt-good", "good"));
    world.emptied().await;
    let dead_letters = world.dead_letters();
    assert_eq!(dead_letters.len(), sent.len());
    for (reason, message_id, body) in sent {
        let text = |of: &sandbox::sqs::StoredMessage, name: &str| {
            of.attributes[name].string_value.clone().unwrap()
        };
        let mut copies = dead_letters
            .iter()
            .filter(|dead_letter| text(dead_letter, "dlq_message_id") == message_id);
        let copy = copies.next().unwrap_or_else(|| panic!("no copy of {body}"));
        assert_eq!(text(copy, "dlq_reason"), reason, "{body}");
        assert_eq!(copy.body, body);
        assert_eq!(text(copy, "own"), "kept");
        assert_eq!(copy.trace_header.as_deref(), Some(TRACE_HEADER));
        assert_eq!(copy.attributes["bytes"], AttributeValue::binary(&[0, 255]));
        assert!(!text(copy, "dlq_error").is_empty());
        assert_eq!(copies.count(), 0, "{body}");
    }
    for (reason, _) in bodies() {
        let series = format!("worker_dead_letters_total{{reason=\"{reason}\"}}");
        let of_it = bodies().iter().filter(|(other, _)| *other == reason).count();
        assert_eq!(worker.metric(&series), f64::from(u32::try_from(of_it).unwrap()), "{reason}");
    }
    assert_eq!(world.methods("a"), [""; 0], "poison led to calls");
    assert_eq!(world.methods("good"), ["PATCH", "ReleaseHold"]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn without_a_dead_letter_queue_poison_is_hidden_for_hours() {
    let world = World::with(QueueSpec::default()).await;
    let worker = world.worker().await;
    let id = world.sqs.send(&world.queue, "not json");
    world.send(&expired("evt-1", "a"));
    // The longest time that SQS allows, less the time for which it may have been held.
    assert_eq!(world.released(&id).await, 11 * 3_600);
    eventually("the other event is handled", || world.methods("a").len() == 2).await;
    eventually("only the poison is left", || world.sqs.counts(&world.queue).total() == 1).await;
    assert_eq!(world.sqs.peek_all(&world.queue)[0].body, "not json");
    let text = metrics_text(&worker.metrics);
    let is_send = |line: &&str| line.starts_with("worker_calls_total{method=\"SendMessage\"");
    let sends: Vec<&str> = text.lines().filter(is_send).collect();
    assert!(!sends.is_empty() && sends.iter().all(|line| line.ends_with(" 0")), "{sends:?}");
    worker.finish(&world).await;
}

/// SQS drops a message without notice at the end of its retention, even while it is in flight.
#[tokio::test]
async fn a_held_event_is_dead_lettered_before_its_retention_ends() {
    let redrive = Some(Redrive { dlq: "dlq".to_owned(), max_receive_count: 100 });
    let world = World::with(QueueSpec { retention_s: 10, redrive, ..QueueSpec::default() }).await;
    world.api.script_for("a", vec![Http::status(503); 1_000]);
    let worker = world.worker().await;
    let sent_at = Instant::now();
    let id = world.send(&expired("evt-1", "a"));
    eventually("the event is copied", || !world.dead_letters().is_empty()).await;
    let after = sent_at.elapsed();
    assert!((8_500..10_000).contains(&after.as_millis()), "{after:?}");
    let dead_letter = &world.dead_letters()[0];
    let attribute = |name: &str| dead_letter.attributes[name].string_value.as_deref();
    assert_eq!(attribute("dlq_message_id"), Some(id.as_str()));
    assert_eq!(attribute("dlq_reason"), Some("retention_ends"));
    world.emptied().await;
    worker.finish(&world).await;
}

/// Operators change redrive policies while workers run.
#[tokio::test]
async fn copies_go_to_the_queue_of_the_current_redrive_policy() {
    let world = World::with(QueueSpec::default()).await;
    let other = world.sqs.create_queue("other", QueueSpec::default());
    let queue = world.sqs_queue(&settings()).await;
    let dead_letter = DeadLetter {
        body: "not json".to_owned(),
        message_id: MessageId("m".into()),
        source_id: MessageId("m".into()),
        group: None,
        trace_header: None,
        reason: "invalid_json",
        error: "why".to_owned(),
        event_type: "unknown",
        receive_count: 1,
        at: SystemTime::now(),
        attributes: Vec::new(),
        shortened: 0,
    };
    let sent = queue.dead_letter(&dead_letter).await.map_err(|why| why.kind);
    assert_eq!(sent, Err(QueueErrorKind::NoDeadLetterQueue));
    let policy = |name: &str| {
        let arn = format!("arn:aws:sqs:us-east-1:000000000000:{name}");
        json!({"deadLetterTargetArn": arn, "maxReceiveCount": 7}).to_string()
    };
    for (name, url) in [("dlq", &world.dlq), ("other", &other)] {
        world.sqs.set_attribute(&world.queue, "RedrivePolicy", &policy(name));
        assert_eq!(queue.limits().await.unwrap().receives_max, Some(7));
        queue.dead_letter(&dead_letter).await.unwrap();
        assert_eq!(world.sqs.counts(url).total(), 1, "{name}");
    }
    world.sqs.set_attribute(&world.queue, "RedrivePolicy", "");
    assert_eq!(queue.limits().await.unwrap().receives_max, None);
    let sent = queue.dead_letter(&dead_letter).await.map_err(|why| why.kind);
    assert_eq!(sent, Err(QueueErrorKind::NoDeadLetterQueue));
    assert_eq!((world.sqs.counts(&world.dlq).total(), world.sqs.counts(&other).total()), (1, 1));
}

#[tokio::test]
async fn while_copies_fail_one_poison_message_is_held_and_others_are_released() {
    let world = World::start().await;
    let refused = Fault::Error(ErrorCode::AccessDenied);
    world.sqs.faults(&world.dlq).fail_sometimes(Action::SendMessage, 1.0, refused);
    let worker = world.worker().await;
    let first = world.sqs.send(&world.queue, "not json");
    let held = || worker.metric("worker_messages_in_flight{state=\"settling\"}") == 1.0;
    eventually("the first is held", held).await;
    let failing = || worker.metric("worker_queue_action_failing{action=\"dead_letter\"}") == 1.0;
    eventually("copies are known to fail", failing).await;
    let second = world.sqs.send(&world.queue, "not json either");
    assert_eq!(world.released(&second).await, 30);
    assert_eq!((world.sqs.counts(&world.queue).total(), world.dead_letters().len()), (2, 0));
    // Copies are retried, so that a repair is noticed.
    world.sqs.faults(&world.dlq).clear();
    eventually("the first is copied", || world.dead_letters().len() == 1).await;
    assert_eq!(world.hidden_for(&first), [0; 0]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_copy_that_fails_is_sent_again() {
    let world = World::start().await;
    let worker = world.worker().await;
    let faults = world.sqs.faults(&world.dlq);
    for (number, fault) in
        [Fault::Error(ErrorCode::RequestThrottled), Fault::Http(503), Fault::Reset]
            .into_iter()
            .enumerate()
    {
        faults.fail_next(Action::SendMessage, 2, fault);
        world.sqs.send(&world.queue, format!("poison {number}"));
        world.emptied().await;
        assert_eq!(world.dead_letters().len(), number + 1);
    }
    // SQS accepted the copy and the answer is lost: a second copy names the same original.
    faults.fail_next(Action::SendMessage, 1, Fault::ReplyLost);
    let id = world.sqs.send(&world.queue, "poison");
    world.emptied().await;
    let dead_letters = world.dead_letters();
    let of_it = dead_letters
        .iter()
        .filter(|l| l.attributes["dlq_message_id"].string_value.as_ref() == Some(&id));
    assert_eq!(of_it.count(), 2);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_flood_of_poison_does_not_hold_up_good_events() {
    let world = World::start().await;
    let worker = world.worker_with(|settings| settings.concurrency = 2).await;
    for n in 0..200 {
        world.sqs.send(&world.queue, format!("poison {n}"));
        if n % 10 == 0 {
            world.send(&expired(&format!("evt-{n}"), &format!("good-{n}")));
        }
    }
    world.emptied().await;
    assert_eq!(world.dead_letters().len(), 200);
    assert_eq!(worker.outcomes("unknown"), [0.0, 200.0, 0.0, 0.0]);
    assert_eq!(worker.outcomes("reservation.expired"), [20.0, 0.0, 0.0, 0.0]);
    worker.finish(&world).await;
}

/// The largest message that the queue accepts, attributes included.
const MESSAGE_BYTES_MAX: usize = 1_048_576;

#[tokio::test]
async fn a_copy_that_is_too_large_is_sent_with_fewer_attributes() {
    let world = World::start().await;
    let worker = world.worker().await;
    // The bytes left for attributes, the number of `dlq_` attributes, and whether the message's own
    // is kept.
    let cases = [(0, 0, false), (60, 1, false), (100, 2, false), (200, 5, false), (5_000, 7, true)];
    for (left, ours, own) in cases {
        let body = "x".repeat(MESSAGE_BYTES_MAX - left);
        let mut message = NewMessage::new(&body);
        if left > 10 {
            message = message.attribute("own", "v");
        }
        world.send_message(message);
        world.emptied().await;
        let dead_letters = world.dead_letters();
        let dead_letter =
            dead_letters.iter().find(|dead_letter| dead_letter.body.len() == body.len()).unwrap();
        let names = dead_letter.attributes.keys().filter(|name| name.starts_with("dlq_"));
        assert_eq!(names.count(), ours, "{left}");
        assert_eq!(dead_letter.attributes.contains_key("own"), own, "{left}");
        assert_eq!(dead_letter.attributes.contains_key("dlq_error"), ours == 7, "{left}");
        assert_eq!(dead_letter.attributes.contains_key("dlq_message_id"), ours > 0, "{left}");
    }
    // A dead-letter queue with a smaller limit.
    world.sqs.set_attribute(&world.dlq, "MaximumMessageSize", "1024");
    world.send_message(NewMessage::new("x".repeat(1024)));
    world.emptied().await;
    let dead_letters = world.dead_letters();
    let dead_letter =
        dead_letters.iter().find(|dead_letter| dead_letter.body.len() == 1024).unwrap();
    assert!(dead_letter.attributes.is_empty());
    worker.finish(&world).await;
}

#[tokio::test]
async fn whether_the_dead_letter_queue_is_the_source_queue_is_asked_until_answered() {
    let world = World::start().await;
    // The URL of the source queue, with another account's number.
    let url = world.queue.replace("000000000000", "111111111111");
    let faults = world.sqs.faults(&world.queue);
    for (fault, is_known) in [
        (Fault::Http(503), false),
        (Fault::Reset, false),
        (Fault::Error(ErrorCode::RequestThrottled), false),
        (Fault::Error(ErrorCode::AccessDenied), true),
    ] {
        let queue = world.sqs_queue_to(&settings(), Some(url.clone())).await;
        faults.fail_sometimes(Action::GetQueueAttributes, 1.0, fault);
        assert_eq!(queue.dead_letter_url().await.unwrap().as_ref(), Some(&url), "{fault:?}");
        faults.clear();
        let found = queue.dead_letter_url().await.unwrap();
        assert_eq!(found, is_known.then(|| url.clone()), "{fault:?}");
    }
}
