//! Messages that take more memory than their bodies: long attributes and thousands of seats.

use std::ops::RangeInclusive;
use std::time::Duration;

use sandbox::sqs::{Counts, NewMessage};
use serde_json::{Value, json};

use crate::account::{Account, Sent};
use crate::case::{Case, Seen};
use crate::events::{Event, Kind};
use crate::failed::{Failed, ensure};
use crate::worker::{LIMIT, Worker};
use crate::world::{Setting, World};

const SETTLED_MAX: Duration = Duration::from_secs(400);

/// `MAX_IN_FLIGHT_MB`.
const HELD_MB: usize = 64;

/// Memory beside the held messages: the process itself, and ten messages of each open receive, raw
/// and parsed.
const BESIDE_MB: u64 = 160;

const ATTRIBUTES: usize = 10;
const ATTRIBUTES_BYTES: usize = 500 << 10;

/// Seat names of five bytes: a body of 80 KB, and the same again after parsing.
const SEATS: usize = 9_900;

/// Interval between memory readings while messages come in.
const LOOK_EVERY: Duration = Duration::from_millis(50);

pub(super) const CASES: &[Case] = &[Case {
    name: "attributes-memory",
    injected: "MAX_IN_FLIGHT_MB=64, the services away; 800 messages with 500 KiB of attributes each, then 1,500 that name 9,900 seats each",
    must_hold: "what is held takes no more than was allowed, the process little more; once the services are back every event is handled",
    is_short: false,
    run: |setting| Box::pin(run(setting)),
}];

async fn run(setting: Setting) -> Result<Seen, Failed> {
    let share = if setting.is_short { 4 } else { 1 };
    let bytes = with_blocks(ATTRIBUTES_BYTES);
    let attributes = fill(&setting, 800 / share, bytes, with_attributes).await?;
    // The body, and parsed seats with four bytes each for their ends.
    let bytes = with_blocks(SEATS * (8 + 5 + 4));
    let seats = fill(&setting, 1_500 / share, bytes, with_seats).await?;
    Ok(Seen::Held(format!("attributes: {attributes}; seats: {seats}")))
}

/// Returns the least and the most memory that a message of this length takes: the allocator's
/// blocks are up to a quarter larger than what is in them.
const fn with_blocks(bytes: usize) -> RangeInclusive<usize> {
    bytes..=bytes + bytes / 4
}

fn with_attributes(event: &Event) -> NewMessage {
    let text = "x".repeat(ATTRIBUTES_BYTES / ATTRIBUTES);
    let add = |message: NewMessage, n| message.attribute(&format!("a{n}"), text.as_str());
    (0..ATTRIBUTES).fold(NewMessage::new(event.body()), add)
}

fn with_seats(event: &Event) -> NewMessage {
    let mut body: Value = serde_json::from_str(&event.body()).expect("it was just written");
    let seats: Vec<String> = (0..SEATS).map(|n| format!("A{n:04}")).collect();
    body["payload"] = json!({"qty": SEATS, "seat_ids": seats});
    NewMessage::new(body.to_string())
}

/// The peak values. In-flight counts of SQS are not used: a lost reply counts there but is not in
/// memory.
#[derive(Clone, Copy, Debug, Default)]
struct Peak {
    rss_kb: u64,
    /// Held messages by the worker's own metric.
    held: f64,
}

impl Peak {
    async fn look(&mut self, worker: &Worker) {
        self.rss_kb = self.rss_kb.max(worker.usage().map_or(0, |usage| usage.rss_kb));
        let held = worker.metric("worker_messages_in_flight", &[]).await;
        self.held = self.held.max(held.unwrap_or_default());
    }
}

/// Holds as many messages of `bytes` each as the limit allows, then lets all be handled.
async fn fill(
    setting: &Setting,
    events: usize,
    bytes: RangeInclusive<usize>,
    message: fn(&Event) -> NewMessage,
) -> Result<String, Failed> {
    let mut world = World::start(setting).await?;
    world.use_defaults();
    world.use_no_proxies();
    world.set("MAX_IN_FLIGHT", 10_000);
    world.set("MAX_IN_FLIGHT_MB", HELD_MB);
    world.api.go_down().await?;
    for n in 0..events {
        let event = Event::new(&format!("large_{n}"), Kind::Expired);
        let sent = world.sqs.send_message(&world.queue, message(&event));
        let message_id = sent.map_err(|why| Failed(format!("not sent: {why:?}")))?;
        world.sent.push(Sent::event(event, message_id));
    }
    let mut worker = world.started().await?;
    let most = f64::from(u32::try_from((HELD_MB << 20) / bytes.start()).unwrap_or(u32::MAX));
    // A receive reserves 1 MiB for each message, so the last MiB may stay unused.
    let full = (((HELD_MB - 1) << 20) / bytes.end() - 1).min(events);
    let fills = world.sqs.wait_until(&world.queue, |c: &Counts| c.in_flight >= full, SETTLED_MAX);
    let mut seen = Peak::default();
    let mut fills = std::pin::pin!(fills);
    let is_full = loop {
        seen.look(&worker).await;
        if let Ok(is_full) = tokio::time::timeout(LOOK_EVERY, &mut fills).await {
            break is_full;
        }
    };
    // Time for messages above the limit to come in.
    for _ in 0..60 {
        tokio::time::sleep(LOOK_EVERY).await;
        seen.look(&worker).await;
    }
    let Peak { rss_kb, held } = seen;
    ensure(is_full, || format!("only {held} are held, {full} would fit"))?;
    ensure(held <= most, || format!("{held} are held, and {most} fit into {HELD_MB} MiB"))?;
    let peak_mb = rss_kb / 1_024;
    let peak_max = u64::try_from(HELD_MB).unwrap_or(u64::MAX) + BESIDE_MB;
    ensure(peak_mb <= peak_max, || format!("the process takes {peak_mb} MiB"))?;
    world.api.come_back().await?;
    let account = Account::settled(&world, SETTLED_MAX).await?;
    worker.leave(LIMIT).await?;
    Ok(format!("{account}; at most {held} held, peak {peak_mb} MiB"))
}
