//! Message groups: on a standard queue, where they do not order messages, and on a FIFO queue whose
//! first message always fails.

use std::time::{Duration, Instant};

use sandbox::reservation_api::Reply;
use sandbox::script::{Rule, Scripted};

use crate::account::{Account, Expected, original_id};
use crate::case::{Case, Seen};
use crate::events::{Event, Kind, crowd};
use crate::failed::{Failed, ensure, eventually};
use crate::progress::{Fates, Progress};
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(240);

/// For 60 events of 100 ms each: one after another they would take 6 s.
const TENANT_WITHIN: Duration = Duration::from_secs(3);

const SLOW: Duration = Duration::from_millis(100);

/// Good events of the tenant beside 20 bad ones. They are done while the bad ones wait for their
/// retries.
const GOOD: usize = 80;
const GOOD_WITHIN: Duration = Duration::from_secs(5);
const BAD: f64 = 20.0;

const RECEIVES_MAX: u32 = 3;

const BEHIND: usize = 7;

pub(super) const CASES: &[Case] = &[
    Case {
        name: "fair-queue",
        injected: "60 events of one MessageGroupId on a standard queue, the API takes 100 ms; then 100, of which 20 are always answered 500; a message has three receives",
        must_hold: "the 60 are done at once, and not one after another; the 80 good ones are done within 5 s, each received once; none is dead-lettered",
        is_short: true,
        run: |setting| Box::pin(fair_queue(setting)),
    },
    Case {
        name: "fifo-bad-head",
        injected: "eight events of one group on a FIFO queue, the first always answered 500; a message has three receives; the worker is stopped and another one starts",
        must_hold: "the first is dead-lettered with its reason; the seven behind it are done in their order, in the delivery in which that happens",
        is_short: true,
        run: |setting| Box::pin(fifo_bad_head(setting)),
    },
];

async fn fair_queue(setting: Setting) -> Result<Seen, Failed> {
    let mut world = World::redriving(&setting, RECEIVES_MAX).await?;
    world.set("MAX_RETRIES", 2);
    let mut worker = world.started().await?;
    world.api.set_rules([Rule::all(Scripted::<Reply>::normal().delayed(SLOW))]);
    let began = Instant::now();
    for event in crowd("tenant", 60) {
        world.send_in("tenant", event, Expected::Applied);
    }
    Account::settled(&world, SETTLED_MAX).await?;
    let took = began.elapsed();
    ensure(took <= TENANT_WITHIN, || format!("60 events of a tenant took {took:?}"))?;

    let bad = Rule::of(|id| id.starts_with("rsv_bad"), Scripted::<Reply>::status(500));
    world.api.set_rules([bad]);
    let sent_before = world.sent.len();
    for (number, event) in crowd("good", GOOD).into_iter().enumerate() {
        if number % 4 == 0 {
            let bad = Event::new(&format!("bad_{number}"), Kind::Expired);
            world.send_in("tenant", bad, Expected::Judged);
        }
        world.send_in("tenant", event, Expected::Applied);
    }
    eventually("the good ones are done", SETTLED_MAX, async || {
        let progress = Progress::good(&world);
        progress.done() == progress.sent()
    })
    .await?;
    let progress = Progress::good(&world);
    progress.all_within(GOOD_WITHIN)?;
    eventually("the bad ones are handed back", SETTLED_MAX, async || {
        let failed = worker.metric("worker_events_total", &["outcome=\"failed\""]).await;
        failed.is_some_and(|failed| failed >= BAD)
    })
    .await?;
    for sent in &world.sent[sent_before..] {
        let receives = deliveries(&world, &sent.message_id);
        let is_good = sent.expected == Expected::Applied;
        ensure(!is_good || receives == 1, || format!("{sent:?} was received {receives} times"))?;
    }
    worker.leave(SETTLED_MAX).await?;
    let account = Account::judge(&world)?;
    Ok(Seen::Held(format!(
        "60 in {took:.1?}; then {progress}; bad: {}; {account}",
        Fates::of(&world)?
    )))
}

async fn fifo_bad_head(setting: Setting) -> Result<Seen, Failed> {
    let receives_max = if setting.is_short { 1 } else { RECEIVES_MAX };
    let mut world = World::fifo_redriving(&setting, receives_max).await?;
    world.set("MAX_RETRIES", 2);
    let bad = Rule::of(|id| id.starts_with("rsv_bad"), Scripted::<Reply>::status(500));
    world.api.set_rules([bad]);
    let mut worker = world.started().await?;
    world.send_in("group", Event::new("bad", Kind::Expired), Expected::DeadLettered);
    for event in crowd("behind", BEHIND) {
        world.send_in("group", event, Expected::Applied);
    }
    if !setting.is_short {
        worker.says("Retries used up").await?;
        worker.leave(SETTLED_MAX).await?;
        worker = world.started().await?;
    }
    let account = Account::settled(&world, SETTLED_MAX).await?;
    let letters = world.sqs.peek_all(&world.dlq);
    let reason = letters[0].attributes.get("dlq_reason").and_then(|it| it.string_value.as_deref());
    ensure(reason == Some("retries_used_up"), || format!("set aside for {reason:?}"))?;
    let mut receives = Vec::new();
    for sent in &world.sent {
        receives.push(deliveries(&world, &sent.message_id));
    }
    // One delivery for each process that received the group.
    let most = if setting.is_short { 1 } else { 2 };
    ensure(receives.iter().all(|count| *count <= most), || format!("received {receives:?} times"))?;
    in_order(&world)?;
    worker.leave(SETTLED_MAX).await?;
    let set_aside = original_id(&letters[0]) == world.sent[0].message_id;
    ensure(set_aside, || "another one was set aside".to_owned())?;
    Ok(Seen::Held(format!("{account}; received {receives:?} times")))
}

/// Returns how often a message was delivered.
fn deliveries(world: &World, message_id: &str) -> usize {
    let entries = world.sqs.ledger(&world.queue).entries;
    let is_delivery = |entry: &&sandbox::sqs::Entry| {
        entry.message_id.as_deref() == Some(message_id)
            && matches!(entry.outcome, sandbox::sqs::Outcome::Delivered { .. })
    };
    entries.iter().filter(is_delivery).count()
}

/// Checks that events were called for in sending order.
fn in_order(world: &World) -> Result<(), Failed> {
    let calls = world.ledger.calls();
    let events = world.sent.iter().filter_map(|sent| sent.event.as_ref());
    let first_call = |event: &Event| {
        let of_it = calls.iter().find(|call| call.reservation_id == event.reservation);
        of_it.map(|call| call.sequence)
    };
    let first_calls: Vec<_> = events.map(first_call).collect();
    ensure(first_calls.is_sorted() && first_calls.iter().all(Option::is_some), || {
        format!("not in their order: {first_calls:?}")
    })
}
