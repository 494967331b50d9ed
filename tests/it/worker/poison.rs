//! Poison is set aside quickly and whole, and never stops the others.

use sandbox::sqs::{Action, AttributeValue, ErrorCode, Fault, NewMessage, QueueSpec};
use serde_json::json;

use crate::support::{World, event, eventually, expired};

/// Each reason, with bodies that have it.
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
        ("invalid_event", flat(json!({}))),
        ("invalid_event", flat(json!({"qty": 0}))),
        ("invalid_event", flat(json!({"qty": -1}))),
        ("invalid_event", flat(json!({"qty": 3, "seat_ids": ["A-1", "A-2"]}))),
        ("invalid_event", flat(json!({"qty": "2"}))),
        ("invalid_event", flat(json!({"seat_ids": []}))),
        ("invalid_event", no("id")),
        ("invalid_event", no("reservation_id")),
        ("invalid_event", no("event_id")),
    ]
}

#[tokio::test]
async fn every_kind_of_poison_is_copied_whole_with_its_reason_and_deleted() {
    let world = World::start().await;
    let worker = world.worker().await;
    let mut sent = Vec::new();
    for (reason, body) in bodies() {
        let mut message = NewMessage::new(&body).attribute("own", "kept");
        message.attributes.insert("bytes".to_owned(), AttributeValue::binary(&[0, 255]));
        sent.push((reason, world.send_message(message), body));
    }
    world.send(&expired("evt-good", "good"));
    world.emptied().await;
    let letters = world.dead_letters();
    assert_eq!(letters.len(), sent.len());
    for (reason, message_id, body) in sent {
        let text = |of: &sandbox::sqs::StoredMessage, name: &str| {
            of.attributes[name].string_value.clone().unwrap()
        };
        let mut copies =
            letters.iter().filter(|letter| text(letter, "dlq_message_id") == message_id);
        let copy = copies.next().unwrap_or_else(|| panic!("no copy of {body}"));
        assert_eq!(text(copy, "dlq_reason"), reason, "{body}");
        assert_eq!(copy.body, body);
        assert_eq!(text(copy, "own"), "kept");
        assert_eq!(copy.attributes["bytes"], AttributeValue::binary(&[0, 255]));
        assert!(!text(copy, "dlq_error").is_empty());
        assert_eq!(copies.count(), 0, "{body}");
    }
    for (reason, _) in bodies() {
        let series = format!("worker_dead_letters_total{{reason=\"{reason}\"}}");
        let of_it = bodies().iter().filter(|(other, _)| *other == reason).count();
        assert_eq!(worker.metric(&series), f64::from(u32::try_from(of_it).unwrap()), "{reason}");
    }
    assert_eq!(world.methods("a"), [""; 0], "poison calls nobody");
    assert_eq!(world.methods("good"), ["PATCH", "ReleaseHold"]);
    worker.finish(&world).await;
}

#[tokio::test]
async fn where_no_dead_letter_queue_is_known_poison_is_kept_and_spaced_out() {
    let world = World::with(QueueSpec::default()).await;
    let worker = world.worker().await;
    let id = world.sqs.send(&world.queue, "not json");
    world.send(&expired("evt-1", "a"));
    // As long as SQS allows, less what it may have been held for.
    assert_eq!(world.released(&id).await, 11 * 3_600);
    eventually("others go on", || world.methods("a").len() == 2).await;
    eventually("only the poison is left", || world.sqs.counts(&world.queue).total() == 1).await;
    assert_eq!(world.sqs.peek_all(&world.queue)[0].body, "not json");
    worker.finish(&world).await;
}

#[tokio::test]
async fn poison_is_kept_while_it_cannot_be_copied() {
    let world = World::start().await;
    let refused = Fault::Error(ErrorCode::AccessDenied);
    world.sqs.faults(&world.dlq).fail_sometimes(Action::SendMessage, 1.0, refused);
    let worker = world.worker().await;
    let id = world.sqs.send(&world.queue, "not json");
    assert_eq!(world.released(&id).await, 30);
    assert_eq!((world.sqs.counts(&world.queue).total(), world.dead_letters().len()), (1, 0));
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_copy_that_could_not_be_sent_at_once_is_sent_again() {
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
    // SQS has it, and the answer is lost: a second copy names the same original.
    faults.fail_next(Action::SendMessage, 1, Fault::ReplyLost);
    let id = world.sqs.send(&world.queue, "poison");
    world.emptied().await;
    let letters = world.dead_letters();
    let of_it = letters
        .iter()
        .filter(|l| l.attributes["dlq_message_id"].string_value.as_ref() == Some(&id));
    assert_eq!(of_it.count(), 2);
    worker.finish(&world).await;
}

#[tokio::test]
async fn a_flood_of_poison_does_not_stop_good_events() {
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
