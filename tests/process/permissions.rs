//! The worker with exactly the permissions of `deploy/iam/policy.json`: they suffice. If one is
//! missing, the log names it (and `check`, if it can test it), other work continues, and no event
//! is lost.

use std::time::Duration;

use sandbox::inventory::Reply;
use sandbox::script::{Faults, Scripted};
use sandbox::sqs::{Action, ErrorCode, Fault, Grant};
use serde_json::Value;
use tokio::time::sleep;
use tonic::Code;

use sandbox::testing::program::{Env, Running, env, run, stdout};
use sandbox::testing::world::{World, eventually, expired};

const POLICY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/iam/policy.json");

/// Returns the value, or the values of a list.
fn all(value: &Value) -> Vec<&str> {
    let several = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    several.iter().map(|value| value.as_str().unwrap()).collect()
}

/// Returns what the policy allows, for the stand-in's region, account and queues.
fn policy() -> Vec<Grant> {
    let policy: Value = serde_json::from_str(&std::fs::read_to_string(POLICY).unwrap()).unwrap();
    let mut grants = Vec::new();
    for statement in policy["Statement"].as_array().unwrap() {
        assert_eq!(statement["Effect"], "Allow");
        for resource in all(&statement["Resource"]) {
            let resource = resource
                .replace("REGION", "us-east-1")
                .replace("ACCOUNT", "000000000000")
                .replace(":QUEUE", ":events")
                .replace(":DLQ", ":dlq");
            let grant = |action: &str| Grant { action: action.into(), resource: resource.clone() };
            grants.extend(all(&statement["Action"]).into_iter().map(grant));
        }
    }
    grants
}

/// Returns what the policy allows except for one action on one queue, which it must contain.
fn without(action: &str, queue: &str) -> Vec<Grant> {
    let mut grants = policy();
    let before = grants.len();
    grants.retain(|grant| grant.action != action || !grant.resource.ends_with(queue));
    assert_eq!(
        grants.len(),
        before - 1,
        "the policy does not have {action} on {queue} exactly once"
    );
    grants
}

fn variables(world: &World) -> Env {
    let mut variables = env(world);
    variables.insert("SQS_VISIBILITY_TIMEOUT", "5".to_owned());
    variables
}

/// Counts the lines of a log or report that name a missing permission.
fn naming(text: &str, what: &str) -> usize {
    text.lines().filter(|line| line.contains(&format!("the role must be allowed {what}"))).count()
}

async fn says(worker: &Running, what: &str) {
    eventually(what, || naming(&worker.log(), what) > 0).await;
}

/// All events have had their effects once, and the poison is in the dead-letter queue.
async fn all_is_settled(world: &World) {
    world.emptied().await;
    assert_eq!(world.ledger.totals().effects, 4, "two steps for each of two reservations");
    assert_eq!(world.dead_letters().len(), 1);
}

fn send(world: &World) {
    world.send(&expired("evt-1", "a"));
    world.send(&expired("evt-2", "b"));
    world.sqs.send(&world.queue, "poison");
}

#[tokio::test]
async fn the_permissions_of_the_policy_suffice() {
    let world = World::start().await;
    world.sqs.authorize(policy());
    // One service is down for a while, so that messages are held and extended.
    world
        .inventory
        .set_faults(Faults::none().with(1.0, Scripted::<Reply>::code(Code::Unavailable)));
    send(&world);
    let mut worker = Running::started(&variables(&world)).await;
    let extended = || {
        let entries = world.sqs.ledger(&world.queue).entries;
        entries.iter().any(|entry| entry.action == Action::ChangeMessageVisibilityBatch)
    };
    eventually("visibility is extended", extended).await;
    world.inventory.set_faults(Faults::none());
    all_is_settled(&world).await;
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
    let log = worker.log();
    assert!(!log.contains("denied") && !log.contains("must be allowed"), "{log}");
    let report = run(&["check"], &variables(&world)).await;
    let said = stdout(&report);
    assert_eq!(report.status.code(), Some(0), "{said}");
    assert!(said.contains("poison goes to"), "{said}");
}

#[tokio::test]
async fn without_receive_permission_no_message_is_received() {
    let world = World::start().await;
    world.sqs.authorize(without("sqs:ReceiveMessage", "events"));
    send(&world);
    let worker = Running::started(&variables(&world)).await;
    says(&worker, "sqs:ReceiveMessage on the queue").await;
    worker.answers("/readyz", 503).await;
    assert_eq!(world.sqs.counts(&world.queue).total(), 3);
    world.sqs.authorize(policy());
    all_is_settled(&world).await;
    worker.answers("/readyz", 200).await;
}

#[tokio::test]
async fn without_delete_permission_handled_messages_are_held_until_it_is_granted() {
    let world = World::start().await;
    world.sqs.authorize(without("sqs:DeleteMessage", "events"));
    send(&world);
    let worker = Running::started(&variables(&world)).await;
    says(&worker, "sqs:DeleteMessage on the queue").await;
    worker.answers("/readyz", 503).await;
    // Longer than a lease.
    sleep(Duration::from_secs(7)).await;
    assert_eq!(world.sqs.counts(&world.queue).total(), 3, "messages are missing");
    assert!(world.sqs.ledger(&world.queue).delivered <= 3, "a message was received again");
    world.sqs.authorize(policy());
    all_is_settled(&world).await;
    assert_eq!(world.ledger.totals().calls, 4);
    assert_eq!(world.sqs.ledger(&world.queue).delivered, 3);
    worker.answers("/readyz", 200).await;
}

#[tokio::test]
async fn without_visibility_permission_few_messages_are_received_and_applied_once() {
    let world = World::start().await;
    world.sqs.authorize(without("sqs:ChangeMessageVisibility", "events"));
    world
        .inventory
        .set_faults(Faults::none().with(1.0, Scripted::<Reply>::code(Code::Unavailable)));
    send(&world);
    let worker = Running::started(&variables(&world)).await;
    says(&worker, "sqs:ChangeMessageVisibility on the queue").await;
    worker.answers("/readyz", 503).await;
    sleep(Duration::from_secs(12)).await;
    // Each once before the failure is known, then one at a time, each for an hour.
    assert!(world.sqs.ledger(&world.queue).delivered <= 5);
    world.inventory.set_faults(Faults::none());
    world.sqs.authorize(policy());
    all_is_settled(&world).await;
    worker.answers("/readyz", 200).await;
}

/// Returns the lines of `check` about permissions.
fn asked(report: &str) -> Vec<&str> {
    report.lines().filter(|line| line.contains(" permission ")).map(str::trim).collect()
}

#[tokio::test]
async fn check_tests_each_permission_and_names_those_it_cannot_test() {
    let world = World::start().await;
    world.sqs.authorize(policy());
    let before = world.sqs.counts(&world.queue);
    let report = stdout(&run(&["check"], &variables(&world)).await);
    let lines = asked(&report);
    assert_eq!(lines.len(), 5, "{report}");
    for (what, word, said) in [
        ("sqs:ReceiveMessage on the queue", "?", "cannot be asked"),
        ("sqs:ChangeMessageVisibility on the queue", "ok", "allowed"),
        ("sqs:DeleteMessage on the queue", "ok", "allowed"),
        ("sqs:SendMessage on the dead-letter queue", "?", "cannot be asked"),
        ("sqs:GetQueueAttributes on the queue", "ok", "allowed"),
    ] {
        let found = lines.iter().find(|line| line.contains(what)).expect(what);
        assert!(found.starts_with(word) && found.contains(said), "{found}");
    }
    for (action, queue, what) in [
        ("sqs:ChangeMessageVisibility", "events", "sqs:ChangeMessageVisibility on the queue"),
        ("sqs:DeleteMessage", "events", "sqs:DeleteMessage on the queue"),
        ("sqs:SendMessage", "dlq", "sqs:SendMessage on the dead-letter queue"),
        ("sqs:GetQueueAttributes", "events", "sqs:GetQueueAttributes on the queue"),
    ] {
        world.sqs.authorize(without(action, queue));
        let done = run(&["check"], &variables(&world)).await;
        let report = stdout(&done);
        assert_eq!(done.status.code(), Some(1), "{report}");
        let denied = format!("{what}: denied");
        let found = asked(&report).into_iter().find(|line| line.contains(&denied));
        assert!(found.is_some_and(|line| line.starts_with("FAIL")), "{report}");
    }
    assert_eq!(world.sqs.counts(&world.queue), before);
    assert!(world.dead_letters().is_empty(), "check sent a message");
}

#[tokio::test]
async fn without_permission_to_find_the_dead_letter_queue_only_poison_waits() {
    for (action, queue, what) in [
        ("sqs:GetQueueAttributes", "events", "sqs:GetQueueAttributes on the queue"),
        ("sqs:GetQueueUrl", "dlq", "sqs:GetQueueUrl on the dead-letter queue"),
    ] {
        let world = World::start().await;
        world.sqs.authorize(without(action, queue));
        let report = run(&["check"], &variables(&world)).await;
        assert_eq!(naming(&stdout(&report), what), 1, "{}", stdout(&report));
        send(&world);
        let worker = Running::started(&variables(&world)).await;
        says(&worker, what).await;
        only_poison_waits(&world).await;
    }
}

#[tokio::test]
async fn without_send_permission_only_poison_waits() {
    let world = World::start().await;
    world.sqs.authorize(without("sqs:SendMessage", "dlq"));
    send(&world);
    let worker = Running::started(&variables(&world)).await;
    says(&worker, "sqs:SendMessage on the dead-letter queue").await;
    only_poison_waits(&world).await;
    // The poison is hidden for half a minute and dead-lettered then.
    world.sqs.authorize(policy());
    all_is_settled(&world).await;
}

/// The good events are settled, and the poison is still in the queue.
async fn only_poison_waits(world: &World) {
    let settled = || world.sqs.counts(&world.queue).total() == 1;
    eventually("the good events are settled", settled).await;
    assert_eq!(world.ledger.totals().effects, 4);
    assert!(world.dead_letters().is_empty());
    assert_eq!(world.sqs.peek_all(&world.queue)[0].body, "poison");
}

#[tokio::test]
async fn missing_kms_permissions_are_named() {
    let refused = Fault::Error(ErrorCode::KmsAccessDenied);
    let world = World::start().await;
    world.sqs.faults(&world.queue).fail_next(Action::ReceiveMessage, 1, refused);
    world.sqs.faults(&world.dlq).fail_sometimes(Action::SendMessage, 1.0, refused);
    send(&world);
    let worker = Running::started(&variables(&world)).await;
    says(&worker, "kms:Decrypt on the queue's key").await;
    says(&worker, "kms:GenerateDataKey and kms:Decrypt on the dead-letter queue's key").await;
    only_poison_waits(&world).await;
}
