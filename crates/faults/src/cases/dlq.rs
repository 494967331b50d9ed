//! `dlq redrive`, killed and disturbed. Judged from outside: each event that was in the dead-letter
//! queue is in the queue, or still there; and after another run it is in the queue, and takes
//! effect once.

use std::collections::BTreeMap;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use sandbox::sqs::{Action, AttributeValue, ErrorCode, Fault, Ledger, NewMessage};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::case::{Case, Seen, rounds};
use crate::events::{Event, crowd};
use crate::failed::{Failed, came, ensure};
use crate::worker::LIMIT;
use crate::world::{Setting, World};

/// Dead letters of a round: more than one receive brings.
const LETTERS: usize = 12;

/// Rounds at once. Each waits for a visibility timeout.
const AT_ONCE: usize = 24;

/// How long SQS hides what a killed run held, and some time more.
const HIDDEN_MAX: Duration = Duration::from_secs(90);

/// Copies of one standard queue that a kill may leave twice: a batch is sent before it is deleted,
/// and two batches are in hand.
const TWICE_MAX: usize = 20;

/// The largest message of SQS.
const BYTES_MAX: usize = 1_048_576;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "dlq-kill",
        injected: "kill -9 of `dlq redrive` after each send, and after each delete, on a standard queue; then it is run again",
        must_hold: "each event is in the queue or in the dead-letter queue; after the second run all are in the queue, and each takes effect once",
        is_short: false,
        run: |setting| Box::pin(kills(setting, false)),
    },
    Case {
        name: "dlq-kill-fifo",
        injected: "the same on FIFO queues, with two groups",
        must_hold: "the same; each event comes out once, its group in order",
        is_short: false,
        run: |setting| Box::pin(kills(setting, true)),
    },
    Case {
        name: "dlq-large",
        injected: "kill -9 of `dlq redrive` after each send of messages of 1 MiB, and of messages with ten attributes and no id of their own",
        must_hold: "the same; bodies and attributes come out whole, and the identity with them",
        is_short: false,
        run: |setting| Box::pin(large(setting)),
    },
    Case {
        name: "dlq-throttled",
        injected: "SQS throttles a third of all calls, loses a fifth of the answers to sends, and fails a fifth of the entries of deletes, while 300 are redriven",
        must_hold: "one run redrives all; each takes effect once",
        is_short: true,
        run: |setting| Box::pin(throttled(setting)),
    },
    Case {
        name: "dlq-consumers",
        injected: "two more runs on the same dead-letter queue, one of which is killed and one lists",
        must_hold: "no event is lost; each takes effect once",
        is_short: false,
        run: |setting| Box::pin(consumers(setting)),
    },
];

/// The moment of a kill.
#[derive(Clone, Copy, Debug)]
enum After {
    Sends(u64),
    Deletes(u64),
}

impl After {
    fn has_come(self, queue: &Ledger, dlq: &Ledger) -> bool {
        match self {
            Self::Sends(count) => queue.sent >= count,
            Self::Deletes(count) => dlq.deletes_effective >= count,
        }
    }
}

async fn world(setting: &Setting, is_fifo: bool) -> Result<World, Failed> {
    let mut world =
        if is_fifo { World::fifo(setting).await? } else { World::start(setting).await? };
    world.use_no_proxies();
    Ok(world)
}

/// Puts events into the dead-letter queue: half as the worker does, half as SQS does.
fn put(world: &World, events: &[Event]) -> Result<(), Failed> {
    for (n, event) in events.iter().enumerate() {
        let mut message =
            NewMessage::new(event.body()).attribute("own", format!("of {}", event.id));
        if n % 2 == 0 {
            message = message
                .attribute("dlq_reason", "rejected")
                .attribute("dlq_message_id", format!("original-{n}"));
        }
        if world.dlq.ends_with(".fifo") {
            message.group = Some(format!("group-{}", n % 2));
            message.deduplication_id = Some(event.id.clone());
        }
        send(world, message)?;
    }
    Ok(())
}

fn send(world: &World, message: NewMessage) -> Result<String, Failed> {
    let sent = world.sqs.send_message(&world.dlq, message);
    sent.map_err(|why| Failed(format!("not sent: {why}")))
}

fn start(setting: &Setting, world: &World, arguments: &[&str]) -> Result<Child, Failed> {
    let mut command = Command::new(&setting.program);
    command.arg("dlq").args(arguments).env_clear().envs(&world.variables);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    Ok(command.spawn()?)
}

async fn end(mut child: Child) -> Result<ExitStatus, Failed> {
    let ended = timeout(4 * LIMIT, child.wait()).await;
    Ok(ended.map_err(|_| Failed("`dlq` did not end".to_owned()))??)
}

const REDRIVE: [&str; 5] = ["redrive", "--all", "--yes", "--rate", "100"];

async fn redrive(setting: &Setting, world: &World) -> Result<(), Failed> {
    let status = end(start(setting, world, &REDRIVE)?).await?;
    ensure(status.success(), || format!("`dlq redrive` ended with {status}"))
}

/// Starts a redrive and kills it at this moment. Returns false if it ended before.
async fn kill(setting: &Setting, world: &World, after: After) -> Result<bool, Failed> {
    let mut child = start(setting, world, &REDRIVE)?;
    let watched = match after {
        After::Sends(_) => &world.queue,
        After::Deletes(_) => &world.dlq,
    };
    let has_come =
        |_: &_| after.has_come(&world.sqs.ledger(&world.queue), &world.sqs.ledger(&world.dlq));
    came(world.sqs.wait_until(watched, has_come, LIMIT).await, "the moment of the kill")?;
    let was_alive = child.try_wait()?.is_none();
    child.kill().await?;
    Ok(was_alive)
}

/// Returns how often each body is in a queue.
fn bodies(world: &World, queue: &str) -> BTreeMap<String, usize> {
    let mut count = BTreeMap::new();
    for message in world.sqs.peek_all(queue) {
        *count.entry(message.body).or_default() += 1;
    }
    count
}

/// Each event is in the queue or in the dead-letter queue.
fn none_is_lost(world: &World, events: &[Event]) -> Result<(), Failed> {
    let (there, dead) = (bodies(world, &world.queue), bodies(world, &world.dlq));
    let is_lost = |event: &&Event| {
        let body = event.body();
        !there.contains_key(&body) && !dead.contains_key(&body)
    };
    let lost: Vec<&Event> = events.iter().filter(is_lost).collect();
    ensure(lost.is_empty(), || format!("lost: {lost:?}"))
}

/// Each event is in the queue, at most so many are there twice, and no other message is.
fn all_came_out(world: &World, events: &[Event], twice_max: usize) -> Result<usize, Failed> {
    let there = bodies(world, &world.queue);
    let missing: Vec<&Event> = events.iter().filter(|e| !there.contains_key(&e.body())).collect();
    ensure(missing.is_empty(), || format!("not in the queue: {missing:?}"))?;
    ensure(there.len() == events.len(), || format!("{} bodies in the queue", there.len()))?;
    let twice = there.values().sum::<usize>() - events.len();
    ensure(twice <= twice_max, || format!("{twice} are in the queue twice"))?;
    let left = world.sqs.counts(&world.dlq).total();
    ensure(left == 0, || format!("{left} are left in the dead-letter queue"))?;
    Ok(twice)
}

/// A worker handles the queue: each event takes effect once.
async fn takes_effect_once(world: &World, events: &[Event]) -> Result<(), Failed> {
    let mut worker = world.started().await?;
    let is_empty = world.sqs.wait_until(&world.queue, |counts| counts.total() == 0, LIMIT).await;
    came(is_empty, "the worker has handled the queue")?;
    worker.leave(LIMIT).await?;
    let effects = world.ledger.totals().effects;
    let expected = u64::try_from(2 * events.len()).unwrap_or(u64::MAX);
    ensure(effects == expected, || format!("{effects} effects of {} events", events.len()))?;
    let dead = world.sqs.counts(&world.dlq).total();
    ensure(dead == 0, || format!("{dead} were dead-lettered again"))
}

/// Waits until SQS shows what the killed run held.
async fn is_shown(world: &World) -> Result<(), Failed> {
    let shown = world.sqs.wait_until(&world.dlq, |counts| counts.in_flight == 0, HIDDEN_MAX).await;
    came(shown, "SQS shows what the killed run held")
}

async fn kills(setting: Setting, is_fifo: bool) -> Result<Seen, Failed> {
    let letters = u64::try_from(LETTERS).unwrap_or(u64::MAX);
    let moments: Vec<After> =
        (1..=letters).map(After::Sends).chain((1..=letters).map(After::Deletes)).collect();
    let moments = if setting.is_short { moments[..4].to_vec() } else { moments };
    let results = rounds(moments.len(), AT_ONCE, |n| {
        let (setting, moment) = (setting.clone(), moments[n]);
        async move {
            let round = kill_round(&setting, is_fifo, moment).await;
            round.map_err(|failed| failed.at(format!("killed after {moment:?}")))
        }
    })
    .await?;
    let killed = results.iter().filter(|(was_alive, _)| *was_alive).count();
    let twice: usize = results.iter().map(|(_, twice)| twice).sum();
    ensure(killed > results.len() / 2, || format!("only {killed} kills came in time"))?;
    Ok(Seen::Held(format!(
        "{} rounds of {LETTERS}, {killed} killed before their end; sent again by the second run: {twice}",
        results.len()
    )))
}

async fn kill_round(
    setting: &Setting,
    is_fifo: bool,
    moment: After,
) -> Result<(bool, usize), Failed> {
    let world = world(setting, is_fifo).await?;
    let events = crowd("dead", LETTERS);
    put(&world, &events)?;
    let was_alive = kill(setting, &world, moment).await?;
    none_is_lost(&world, &events)?;
    is_shown(&world).await?;
    redrive(setting, &world).await?;
    let twice = all_came_out(&world, &events, if is_fifo { 0 } else { TWICE_MAX })?;
    if is_fifo {
        in_order(&world, &events)?;
    }
    takes_effect_once(&world, &events).await?;
    Ok((was_alive, twice))
}

/// The events of each group are in the queue in their order.
fn in_order(world: &World, events: &[Event]) -> Result<(), Failed> {
    for parity in 0..2 {
        let group = format!("group-{parity}");
        let there = world.sqs.peek_all(&world.queue).into_iter();
        let there = there.filter(|message| message.group.as_ref() == Some(&group));
        let there: Vec<String> = there.map(|message| message.body).collect();
        let expected: Vec<String> =
            events.iter().skip(parity).step_by(2).map(Event::body).collect();
        ensure(there == expected, || format!("{group} is not in order"))?;
    }
    Ok(())
}

async fn large(setting: Setting) -> Result<Seen, Failed> {
    let count = if setting.is_short { 2 } else { 6 };
    let moments: Vec<u64> = (1..=count).collect();
    rounds(moments.len(), 3, |n| {
        let (setting, moment) = (setting.clone(), moments[n]);
        async move { large_round(&setting, moment).await.map_err(|why| why.at(moment)) }
    })
    .await?;
    Ok(Seen::Held(format!("{count} rounds of six messages of 1 MiB and six without an id")))
}

async fn large_round(setting: &Setting, moment: u64) -> Result<(), Failed> {
    let world = world(setting, false).await?;
    let mut events: Vec<Event> = crowd("large", 6)
        .into_iter()
        .map(|event| {
            let beside = event.clone().padded(1).body().len() - 1;
            event.padded(BYTES_MAX - beside)
        })
        .collect();
    for event in &events {
        send(&world, NewMessage::new(event.body()))?;
    }
    let mut originals = BTreeMap::new();
    for event in crowd("nameless", 6) {
        let body = event.body().replace(&format!("\"id\":\"{}\",", event.id), "");
        let names = (0..10).map(|n| format!("own{n}"));
        let message = names.fold(NewMessage::new(&body), |m, name| m.attribute(&name, &body));
        originals.insert(body, send(&world, message)?);
    }
    kill(setting, &world, After::Sends(moment)).await?;
    is_shown(&world).await?;
    redrive(setting, &world).await?;
    let there = world.sqs.peek_all(&world.queue);
    for (body, original) in &originals {
        let found = there.iter().find(|message| message.body == *body);
        let found = found.ok_or_else(|| Failed(format!("not in the queue: {body}")))?;
        let own = found.attributes.iter().filter(|(name, _)| name.starts_with("own"));
        let is_whole = own.clone().count() == 9
            && own.clone().all(|(_, value)| *value == AttributeValue::string(body.as_str()))
            && found.attributes.get("redrive_of")
                == Some(&AttributeValue::string(original.as_str()));
        ensure(is_whole, || format!("not whole: {:?}", found.attributes.keys()))?;
    }
    let found = bodies(&world, &world.queue);
    events.retain(|event| !found.contains_key(&event.body()));
    ensure(events.is_empty(), || format!("{} large ones are not in the queue", events.len()))?;
    let mut worker = world.started().await?;
    let is_empty = world.sqs.wait_until(&world.queue, |counts| counts.total() == 0, LIMIT).await;
    came(is_empty, "the worker has handled the queue")?;
    worker.leave(LIMIT).await?;
    let effects = world.ledger.totals().effects;
    ensure(effects == 24, || format!("{effects} effects of 12 events"))
}

async fn throttled(setting: Setting) -> Result<Seen, Failed> {
    let world = world(&setting, false).await?;
    let events = crowd("dead", if setting.is_short { 60 } else { 300 });
    put(&world, &events)?;
    let throttle = Fault::Error(ErrorCode::RequestThrottled);
    let faults = world.sqs.faults(&world.dlq);
    for action in
        [Action::ReceiveMessage, Action::DeleteMessageBatch, Action::ChangeMessageVisibilityBatch]
    {
        faults.fail_sometimes(action, 0.33, throttle);
    }
    faults.fail_delete_entries(0.2);
    world.sqs.faults(&world.queue).fail_sometimes(Action::SendMessage, 0.2, Fault::ReplyLost);
    redrive(&setting, &world).await?;
    world.sqs.faults(&world.queue).clear();
    faults.clear();
    let twice = all_came_out(&world, &events, events.len())?;
    ensure(twice > 0, || "no answer was lost".to_owned())?;
    takes_effect_once(&world, &events).await?;
    Ok(Seen::Held(format!("{} redriven, {twice} sends repeated", events.len())))
}

async fn consumers(setting: Setting) -> Result<Seen, Failed> {
    let world = world(&setting, false).await?;
    let events = crowd("dead", 300);
    put(&world, &events)?;
    let mut killed = start(&setting, &world, &REDRIVE)?;
    let listing = start(&setting, &world, &["list", "--limit", "50"])?;
    let redriving = start(&setting, &world, &REDRIVE)?;
    let has_come = |_: &_| world.sqs.ledger(&world.queue).sent >= 100;
    came(world.sqs.wait_until(&world.queue, has_come, LIMIT).await, "a hundred are sent")?;
    killed.kill().await?;
    none_is_lost(&world, &events)?;
    let (listed, redriven) = (end(listing).await?, end(redriving).await?);
    ensure(listed.success(), || format!("`dlq list` ended with {listed}"))?;
    // 1: the others held some to the end.
    let is_fine = matches!(redriven.code(), Some(0 | 1));
    ensure(is_fine, || format!("`dlq redrive` ended with {redriven}"))?;
    none_is_lost(&world, &events)?;
    is_shown(&world).await?;
    redrive(&setting, &world).await?;
    let twice = all_came_out(&world, &events, 10 * TWICE_MAX)?;
    takes_effect_once(&world, &events).await?;
    Ok(Seen::Held(format!("{} events, {twice} sent twice", events.len())))
}
