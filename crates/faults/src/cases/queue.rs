//! Faults of SQS: throttling, errors, resets, latency, partly failed batches, a recreated queue and
//! revoked permissions.

use std::time::Duration;

use sandbox::sqs::{Action, ErrorCode, Fault, Grant, QueueSpec, Redrive};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::account::Account;
use crate::case::{Case, Seen};
use crate::events::crowd;
use crate::failed::{Failed, ensure};
use crate::proxy::{Course, Way};
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(120);
const EVENTS: usize = 300;

/// The actions that the worker calls.
const ACTIONS: [Action; 3] =
    [Action::ReceiveMessage, Action::DeleteMessageBatch, Action::ChangeMessageVisibilityBatch];

macro_rules! faulty {
    ($name:literal, $injected:literal, $harm:expr $(, says $says:literal)?) => {
        Case {
            name: $name,
            injected: $injected,
            must_hold: "each event takes effect once, no call is made again, nothing is set aside; the queue ends empty",
            is_short: false,
            run: |setting| Box::pin(faulty(setting, $harm, &[$($says)?])),
        }
    };
}

pub(super) const CASES: &[Case] = &[
    faulty!("sqs-throttled", "half of all calls to SQS are throttled", |world| {
        sometimes(world, 0.5, Fault::Error(ErrorCode::RequestThrottled));
    }),
    faulty!(
        "sqs-500",
        "a third of all calls to SQS fail with 500, the first ten receives and deletes with a bare 503",
        |world| {
            sometimes(world, 0.33, Fault::Error(ErrorCode::InternalError));
            let faults = world.sqs.faults(&world.queue);
            faults.fail_next(Action::DeleteMessageBatch, 10, Fault::Http(503));
            faults.fail_next(Action::ReceiveMessage, 10, Fault::Http(503));
        }
    ),
    faulty!(
        "sqs-resets",
        "a third of all connections to SQS are reset, after the call was carried out",
        |world| {
            sometimes(world, 0.33, Fault::ReplyLost);
        }
    ),
    faulty!(
        "sqs-slow",
        "every call to SQS takes 2 s more; the visibility timeout is 5 s",
        |world| {
            let faults = world.sqs.faults(&world.queue);
            for action in ACTIONS {
                faults.latency(action, Duration::from_secs(2), Duration::ZERO);
            }
        }
    ),
    faulty!(
        "sqs-partial",
        "half of all entries of batches fail, deletes and extensions",
        |world| {
            let faults = world.sqs.faults(&world.queue);
            faults.fail_delete_entries(0.5);
            faults.fail_visibility_entries(0.5);
        },
        says "Settling failed"
    ),
    faulty!(
        "sqs-handles",
        "20 batches of deletes are answered with ReceiptHandleIsInvalid",
        |world| {
            let faults = world.sqs.faults(&world.queue);
            let invalid = Fault::Error(ErrorCode::ReceiptHandleIsInvalid);
            faults.fail_next(Action::DeleteMessageBatch, 20, invalid);
        }
    ),
    faulty!(
        "sqs-over-limit",
        "20 receives are answered with OverLimit: too many messages in flight",
        |world| {
            let faults = world.sqs.faults(&world.queue);
            faults.fail_next(Action::ReceiveMessage, 20, Fault::Error(ErrorCode::OverLimit));
        }
    ),
    Case {
        name: "sqs-remade",
        injected: "the queue is deleted with 50 messages in hand, and made again 5 s later",
        must_hold: "what was in hand takes effect once; the worker goes on with the new queue by itself",
        is_short: false,
        run: |setting| Box::pin(remade(setting)),
    },
    Case {
        name: "sqs-denied",
        injected: "every right on the queue is taken away half-way, for 10 s",
        must_hold: "the worker does not exit, is not ready, and continues without a restart; each event takes effect once",
        is_short: false,
        run: |setting| Box::pin(denied(setting)),
    },
];

fn sometimes(world: &World, share: f64, fault: Fault) {
    let faults = world.sqs.faults(&world.queue);
    faults.seed(1);
    for action in ACTIONS {
        faults.fail_sometimes(action, share, fault);
    }
}

async fn faulty(setting: Setting, harm: fn(&World), says: &[&str]) -> Result<Seen, Failed> {
    let mut world = World::start(&setting).await?;
    harm(&world);
    let mut worker = world.started().await?;
    world.send_all(crowd("badly", EVENTS));
    let account = Account::settled(&world, SETTLED_MAX).await?;
    for said in says {
        worker.says(said).await?;
    }
    let faults = world.sqs.ledger(&world.queue).faults;
    let errors = worker.metric("sqs_poll_errors_total", &[]).await.unwrap_or_default();
    world.sqs.faults(&world.queue).clear();
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!("{account}; {faults} faults, {errors} receives failed")))
}

async fn remade(setting: Setting) -> Result<Seen, Failed> {
    let mut world = World::start(&setting).await?;
    let mut worker = world.started().await?;
    world.to_api.set(Way::ToServer, Course::Hold);
    world.send_all(crowd("old", 50));
    let all = |counts: &sandbox::sqs::Counts| counts.in_flight == 50;
    ensure(world.sqs.wait_until(&world.queue, all, SETTLED_MAX).await, || {
        "they are not received".to_owned()
    })?;
    delete_queue(&world).await?;
    worker.says("Polling fails").await?;
    world.to_api.set(Way::ToServer, Course::Pass);
    let done = |ledger: &sandbox::ledger::Ledger| ledger.totals().effects == 100;
    ensure(world.ledger.wait_until(done, SETTLED_MAX).await, || {
        format!("what was in hand is not done: {:?}", world.ledger.totals())
    })?;
    // The duration is part of the fault; there is no condition to wait for.
    tokio::time::sleep(Duration::from_secs(5)).await;
    let redrive = Some(Redrive { dlq: "dlq".to_owned(), max_receive_count: 100 });
    world.sqs.create_queue("events", QueueSpec { redrive, ..QueueSpec::default() });
    world.send_all(crowd("new", 50));
    let account = Account::settled(&world, SETTLED_MAX).await?;
    worker.says("Polling works again").await?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(format!("{account} (the new queue's)")))
}

/// Deletes the queue with an API call, as an operator would.
async fn delete_queue(world: &World) -> Result<(), Failed> {
    let endpoint = world.sqs.endpoint_url();
    let address = endpoint.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).await?;
    let body = serde_json::json!({"QueueUrl": world.queue}).to_string();
    let request = format!(
        "POST / HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/x-amz-json-1.0\r\nX-Amz-Target: AmazonSQS.DeleteQueue\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    ensure(answer.starts_with("HTTP/1.1 200"), || format!("DeleteQueue: {answer}"))
}

async fn denied(setting: Setting) -> Result<Seen, Failed> {
    let mut world = World::start(&setting).await?;
    let mut worker = world.started().await?;
    world.send_all(crowd("allowed", 100));
    Account::settled(&world, SETTLED_MAX).await?;
    world.to_api.set(Way::ToServer, Course::Hold);
    world.send_all(crowd("in_hand", 50));
    worker.counts("worker_messages_in_flight", &["state=\"running\""], 20.0).await?;
    world.sqs.authorize(Vec::new());
    world.to_api.set(Way::ToServer, Course::Pass);
    worker.says("An action of the queue fails").await?;
    crate::failed::eventually("it is not ready", SETTLED_MAX, async || {
        worker.get("/readyz").await.is_some_and(|(status, _)| status == 503)
    })
    .await?;
    world.send_all(crowd("denied", 100));
    // The duration is part of the fault; there is no condition to wait for.
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.sqs.authorize(rights());
    let account = Account::settled(&world, SETTLED_MAX).await?;
    worker.says("The action of the queue works again").await?;
    worker.leave(SETTLED_MAX).await?;
    Ok(Seen::Held(account.to_string()))
}

/// Returns the permissions that the worker needs.
fn rights() -> Vec<Grant> {
    let names =
        ["ReceiveMessage", "DeleteMessage", "ChangeMessageVisibility", "GetQueueAttributes"];
    let grant = |name: &str| Grant {
        action: format!("sqs:{name}"),
        resource: "arn:aws:sqs:us-east-1:000000000000:events".to_owned(),
    };
    names.map(grant).to_vec()
}
