//! `dlq`: the real program and the queues of the stand-in. Each command and each exit code, on
//! standard and FIFO queues.

use std::process::Output;

use sandbox::sqs::{AttributeValue, Grant, NewMessage, QueueSpec};
use serde_json::{Value, json};

use sandbox::testing::program::{Env, Running, SECRET, env, run, stderr, stdout};
use sandbox::testing::world::{World, expired};

const POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/iam/operator-policy.json");

/// The environment of an operator: the queue's variables, and none of the services'.
pub(crate) fn operator(world: &World) -> Env {
    let mut variables = env(world);
    let is_of_queue = |name: &str| name.starts_with("AWS_") || name == "SQS_QUEUE_URL";
    variables.retain(|name, _| is_of_queue(name));
    variables
}

/// Puts a message into the dead-letter queue as the worker does.
pub(crate) fn put(world: &World, n: usize, reason: &str) -> String {
    put_message(world, NewMessage::new(expired(&event(n), &format!("rsv-{n}")).to_string()), reason)
}

pub(crate) fn event(n: usize) -> String {
    format!("evt-{n}")
}

fn put_message(world: &World, message: NewMessage, reason: &str) -> String {
    let is_fifo = world.dlq.ends_with(".fifo");
    let mut message = message
        .attribute("dlq_reason", reason)
        .attribute("dlq_error", "refused by a test")
        .attribute("dlq_event_type", "reservation.expired")
        .attribute("dlq_message_id", format!("original-{}", fastrand::u32(..)));
    if is_fifo {
        message.group.get_or_insert("g".to_owned());
        message.deduplication_id = Some(format!("{}", fastrand::u64(..)));
    }
    world.sqs.send_message(&world.dlq, message).unwrap()
}

pub(crate) async fn dlq(world: &World, arguments: &[&str]) -> Output {
    run(&[&["dlq"], arguments].concat(), &operator(world)).await
}

/// Runs a command that must end with this exit code, and returns the objects that it writes.
pub(crate) async fn objects(world: &World, arguments: &[&str], code: i32) -> Vec<Value> {
    let output = dlq(world, &[arguments, &["--json"]].concat()).await;
    assert_eq!(output.status.code(), Some(code), "{arguments:?}\n{}", stderr(&output));
    stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub(crate) fn ids(bodies: &[sandbox::sqs::StoredMessage]) -> Vec<String> {
    let id = |text: &str| {
        serde_json::from_str::<Value>(text).unwrap()["id"].as_str().unwrap().to_owned()
    };
    bodies.iter().map(|message| id(&message.body)).collect()
}

pub(crate) fn all_visible(world: &World, queue: &str, count: usize) {
    let counts = world.sqs.counts(queue);
    assert_eq!((counts.visible, counts.in_flight), (count, 0));
}

#[tokio::test]
async fn list_and_show_tell_what_is_there_and_leave_it() {
    let world = World::start().await;
    let first = put(&world, 1, "rejected");
    put(&world, 2, "unknown_type");
    world.sqs.send(&world.dlq, expired("evt-3", "rsv-3").to_string());
    let output = dlq(&world, &["list"]).await;
    let text = stdout(&output);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    for words in [&*first, "evt-2", "rsv-3", "(moved by SQS)", "3 of 3 messages match."] {
        assert!(text.contains(words), "{words} is missing in\n{text}");
    }
    all_visible(&world, &world.dlq, 3);
    let found = objects(&world, &["list", "--origin", "sqs"], 0).await;
    assert_eq!((&found[0]["id"], &found[0]["reason"]), (&json!("evt-3"), &Value::Null));
    assert_eq!(found[1]["summary"]["matching"], 1);
    let shown = objects(&world, &["show", &first], 0).await;
    assert_eq!(shown[0]["body"], expired("evt-1", "rsv-1").to_string());
    assert_eq!(shown[0]["attributes"]["dlq_reason"]["string_value"], "rejected");
    let page = stdout(&dlq(&world, &["show", &first]).await);
    assert!(
        page.contains("reason         rejected") && page.contains("\"id\":\"evt-1\""),
        "{page}"
    );
    all_visible(&world, &world.dlq, 3);
}

#[tokio::test]
async fn each_filter_is_understood() {
    let world = World::start().await;
    let first = put(&world, 1, "rejected");
    put(&world, 2, "unknown_type");
    for (filter, count) in [
        (&["--reason", "rejected,forbidden"][..], 1),
        (&["--type", "reservation.hold.expired"], 2),
        (&["--reservation", "rsv-2"], 1),
        (&["--event", "evt-1", "--event", "evt-2"], 2),
        (&["--message-id", &first], 1),
        (&["--older-than", "1h"], 0),
        (&["--newer-than", "1h"], 2),
        (&["--origin", "worker"], 2),
        (&["--event", "evt-1", "--reason", "unknown_type"], 0),
    ] {
        let found = objects(&world, &[&["list"], filter].concat(), 0).await;
        assert_eq!(found.last().unwrap()["summary"]["matching"], count, "{filter:?}");
    }
}

#[tokio::test]
async fn what_is_redriven_is_handled_by_the_worker_and_everything_is_whole() {
    let world = World::start().await;
    let mut whole =
        NewMessage::new(expired("evt-1", "rsv-1").to_string()).attribute("own", "value");
    whole.attributes.insert("blob".to_owned(), AttributeValue::binary(&[0, 255]));
    whole.trace_header = Some("Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1".to_owned());
    whole.group = Some("tenant".to_owned());
    put_message(&world, whole, "rejected");
    put(&world, 2, "money_without_seat");
    let done = objects(&world, &["redrive", "--all", "--yes", "--rate", "500"], 0).await;
    assert_eq!((&done[0]["result"], &done[0]["id"]), (&json!("redriven"), &json!("evt-1")));
    assert_eq!(done[1]["summary"]["redriven"], 1);
    assert_eq!(done[1]["summary"]["left_money_without_seat"], 1);
    let sent = &world.sqs.peek_all(&world.queue)[0];
    let names: Vec<&str> = sent.attributes.keys().map(String::as_str).collect();
    assert_eq!(names, ["blob", "own", "redrive_count", "redrive_of"]);
    assert_eq!(sent.attributes["blob"], AttributeValue::binary(&[0, 255]));
    assert_eq!(sent.group.as_deref(), Some("tenant"));
    assert!(
        sent.trace_header.as_deref().is_some_and(|header| header.starts_with("Root=1-5759e988"))
    );
    all_visible(&world, &world.dlq, 1);
    let worker = Running::started(&env(&world)).await;
    world.emptied().await;
    assert_eq!(world.ledger.totals().effects, 2);
    drop(worker);
    let named = ["redrive", "--reason", "money_without_seat", "--yes"];
    assert_eq!(objects(&world, &named, 0).await[1]["summary"]["redriven"], 1);
}

#[tokio::test]
async fn an_event_without_an_id_keeps_its_identity() {
    let world = World::start().await;
    let mut event = expired("unused", "rsv-1");
    event.as_object_mut().unwrap().remove("id");
    // Ten attributes leave no room; as SQS moves a message, with its id.
    let names = (0..10).map(|n| format!("own{n}"));
    let message = names.fold(NewMessage::new(event.to_string()), |m, name| m.attribute(&name, "v"));
    let original = world.sqs.send_message(&world.dlq, message).unwrap();
    let output = dlq(&world, &["redrive", "--all", "--yes"]).await;
    assert!(stderr(&output).contains("the attribute own9 is left out"), "{}", stderr(&output));
    let sent = &world.sqs.peek_all(&world.queue)[0];
    assert_eq!(sent.attributes["redrive_of"], AttributeValue::string(original));
    assert_eq!(sent.attributes.len(), 10);
}

#[tokio::test]
async fn the_largest_body_is_redriven_without_a_byte_of_change() {
    let world = World::start().await;
    let mut event = expired("evt-1", "rsv-1");
    let length = event.to_string().len() + r#","fill":"""#.len();
    event["fill"] = json!("x".repeat(1_048_576 - length));
    let largest = event.to_string();
    assert_eq!(largest.len(), 1_048_576);
    world.sqs.send(&world.dlq, largest.clone());
    let output = dlq(&world, &["redrive", "--all", "--yes"]).await;
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let sent = &world.sqs.peek_all(&world.queue)[0];
    assert!(sent.body == largest && sent.attributes.is_empty());
}

#[tokio::test]
async fn a_fifo_group_goes_back_in_order() {
    let world = World::fifo().await;
    for n in 0..25 {
        put(&world, n, "retries_used_up");
    }
    let listed = dlq(&world, &["list"]).await;
    assert!(stderr(&listed).contains("are behind others of their message groups"));
    let done = objects(&world, &["redrive", "--all", "--yes", "--rate", "500"], 0).await;
    assert_eq!(done.last().unwrap()["summary"]["redriven"], 25);
    let expected: Vec<String> = (0..25).map(event).collect();
    assert_eq!(ids(&world.sqs.peek_all(&world.queue)), expected);
    assert_eq!(world.sqs.counts(&world.dlq).total(), 0);
}

#[tokio::test]
async fn discard_keeps_a_copy_on_the_disk_or_none_if_that_is_wanted() {
    let world = World::start().await;
    put(&world, 1, "unknown_type");
    put(&world, 2, "unknown_type");
    put(&world, 3, "rejected");
    let file = std::env::temp_dir().join(format!(
        "discarded-{}-{}",
        std::process::id(),
        fastrand::u32(..)
    ));
    let path = file.to_str().unwrap();
    let first = ["discard", "--event", "evt-1", "--export", path, "--yes"];
    assert_eq!(objects(&world, &first, 0).await[1]["summary"]["discarded"], 1);
    // A full disk or a crash may have cut the last line.
    let mut torn = std::fs::OpenOptions::new().append(true).open(path).unwrap();
    std::io::Write::write_all(&mut torn, b"{\"message_id\":\"cut").unwrap();
    let second = ["discard", "--reason", "unknown_type", "--export", path, "--yes"];
    assert_eq!(objects(&world, &second, 0).await[1]["summary"]["discarded"], 1);
    let copies = std::fs::read_to_string(&file).unwrap();
    let copies: Vec<Value> =
        copies.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let bodies: Vec<_> = copies.iter().map(|copy| copy["body"].clone()).collect();
    assert_eq!(bodies, [1, 2].map(|n| json!(expired(&event(n), &format!("rsv-{n}")).to_string())));
    let output = dlq(&world, &["export", path]).await;
    assert_eq!(output.status.code(), Some(2), "the file exists: {}", stderr(&output));
    let exported = dlq(&world, &["export", "-"]).await;
    assert_eq!((exported.status.code(), stdout(&exported).lines().count()), (Some(0), 1));
    let third = ["discard", "--all", "--without-copy", "--yes"];
    assert_eq!(objects(&world, &third, 0).await[1]["summary"]["discarded"], 1);
    assert_eq!(world.sqs.counts(&world.dlq).total(), 0);
    std::fs::remove_file(file).unwrap();
}

#[tokio::test]
async fn nothing_is_discarded_if_the_copy_cannot_be_written() {
    let world = World::start().await;
    put(&world, 1, "unknown_type");
    for path in ["/dev/full", "/nowhere/at/all"] {
        let output = dlq(&world, &["discard", "--all", "--export", path, "--yes"]).await;
        assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
        all_visible(&world, &world.dlq, 1);
    }
}

#[tokio::test]
async fn wrong_arguments_and_variables_are_named_and_nothing_is_called() {
    let world = World::start().await;
    put(&world, 1, "rejected");
    for (arguments, words) in [
        (&["redrive", "--yes"][..], "needs a condition"),
        (&["redrive", "--all"], "--yes"),
        (&["discard", "--all", "--yes"], "--without-copy"),
        (&["discard", "--all", "--yes", "--export", "-"], "--export is \"-\": must be a file"),
        (&["redrive", "--all", "--yes", "--rate", "501"], "--rate"),
        (&["list", "--reason", "rejectd"], "--reason"),
        (&["list", "--type", "payment"], "--type"),
        (&["list", "--older-than", "2"], "--older-than"),
        (&["list", "--limit", "0"], "--limit"),
    ] {
        let output = dlq(&world, arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(stderr(&output).contains(words), "{arguments:?}: {}", stderr(&output));
    }
    let mut variables = operator(&world);
    variables.insert("SQS_QUEUE_URL", "nonsense".to_owned());
    variables.insert("SQS_DLQ_URL", "nonsense too".to_owned());
    let output = run(&["dlq", "list"], &variables).await;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("SQS_QUEUE_URL") && said.contains("SQS_DLQ_URL"), "{said}");
    assert!(!said.contains("INVENTORY") && !said.contains(SECRET), "{said}");
    assert_eq!(world.sqs.ledger(&world.dlq).receives, 0);
    let lonely = World::with(QueueSpec::default()).await;
    let output = dlq(&lonely, &["list"]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("no dead-letter queue is known"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_message_that_the_queue_refuses_stays_and_the_exit_code_is_1() {
    let world = World::start().await;
    put(&world, 1, "rejected");
    put(&world, 2, "rejected");
    world.sqs.set_attribute(&world.queue, "MaximumMessageSize", "1024");
    let long = NewMessage::new(expired("evt-3", &"r".repeat(1_000)).to_string());
    put_message(&world, long, "rejected");
    let done = objects(&world, &["redrive", "--all", "--yes"], 1).await;
    assert_eq!(done.last().unwrap()["summary"]["redriven"], 2);
    assert_eq!(done.last().unwrap()["summary"]["failed"], 1);
    assert_eq!(ids(&world.dead_letters()), ["evt-3"]);
}

/// What the operator's policy allows, for the stand-in's queues.
fn policy() -> Vec<Grant> {
    let policy: Value = serde_json::from_str(&std::fs::read_to_string(POLICY).unwrap()).unwrap();
    let mut grants = Vec::new();
    for statement in policy["Statement"].as_array().unwrap() {
        let resource = statement["Resource"].as_str().unwrap();
        let resource = resource.replace("REGION", "us-east-1").replace("ACCOUNT", "000000000000");
        let resource = resource.replace(":QUEUE", ":events").replace(":DLQ", ":dlq");
        for action in statement["Action"].as_array().into_iter().flatten() {
            let action = action.as_str().unwrap().to_owned();
            grants.push(Grant { action, resource: resource.clone() });
        }
    }
    grants
}

#[tokio::test]
async fn the_operators_policy_suffices_and_what_is_missing_is_named() {
    let world = World::start().await;
    put(&world, 1, "rejected");
    let redrive = ["redrive", "--all", "--yes"];
    for (action, queue, words) in [
        ("sqs:SendMessage", "events", "sqs:SendMessage on the queue"),
        ("sqs:ReceiveMessage", "dlq", "sqs:ReceiveMessage on the dead-letter queue"),
        ("sqs:GetQueueAttributes", "events", "sqs:GetQueueAttributes on the queue"),
        ("sqs:GetQueueUrl", "dlq", "sqs:GetQueueUrl on the dead-letter queue"),
    ] {
        let mut grants = policy();
        grants.retain(|grant| grant.action != action || !grant.resource.ends_with(queue));
        world.sqs.authorize(grants);
        let output = dlq(&world, &redrive).await;
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(&format!("the role must be allowed {words}")), "{said}");
        assert!(world.sqs.peek_all(&world.queue).is_empty());
        all_visible(&world, &world.dlq, 1);
    }
    world.sqs.authorize(policy());
    assert_eq!(objects(&world, &redrive, 0).await[1]["summary"]["redriven"], 1);
    put(&world, 2, "rejected");
    let mut grants = policy();
    grants.retain(|grant| grant.action != "sqs:ChangeMessageVisibility");
    world.sqs.authorize(grants);
    let output = dlq(&world, &["list"]).await;
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let words = "the role must be allowed sqs:ChangeMessageVisibility on the dead-letter queue";
    assert_eq!(said.matches(words).count(), 1, "{said}");
}
