//! The whole worker in this process, on real sockets: the embedded SQS and the stand-ins of both services at
//! free ports, the app's own clients, store and tasks between them. One module for each promise.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "it/worker/acquitted.rs"]
mod acquitted;
#[path = "it/worker/answers.rs"]
mod answers;
#[path = "it/collector.rs"]
mod collector;
#[path = "it/worker/conflict.rs"]
mod conflict;
#[path = "it/worker/deadlines.rs"]
mod deadlines;
#[path = "it/worker/drain.rs"]
mod drain;
#[path = "it/worker/duplicates.rs"]
mod duplicates;
#[path = "it/worker/events.rs"]
mod events;
#[path = "it/worker/fair.rs"]
mod fair;
#[path = "it/worker/fifo.rs"]
mod fifo;
#[path = "it/flaky.rs"]
mod flaky;
#[path = "it/worker/half_down.rs"]
mod half_down;
#[path = "it/worker/half_down_store.rs"]
mod half_down_store;
#[path = "it/worker/half_well.rs"]
mod half_well;
#[path = "it/worker/half_well_hour.rs"]
mod half_well_hour;
#[path = "it/worker/health.rs"]
mod health;
#[path = "it/worker/hold.rs"]
mod hold;
#[path = "it/worker/judge.rs"]
mod judge;
#[path = "it/worker/leave.rs"]
mod leave;
#[path = "it/worker/metrics.rs"]
mod metrics;
#[path = "it/worker/order.rs"]
mod order;
#[path = "it/worker/outage.rs"]
mod outage;
#[path = "it/worker/parked.rs"]
mod parked;
#[path = "it/paused.rs"]
mod paused;
#[path = "it/worker/pauses.rs"]
mod pauses;
#[path = "it/worker/poison.rs"]
mod poison;
#[path = "it/worker/producers.rs"]
mod producers;
#[path = "it/worker/receive.rs"]
mod receive;
#[path = "it/worker/retries.rs"]
mod retries;
#[path = "it/seams.rs"]
mod seams;
#[path = "it/worker/settle.rs"]
mod settle;
#[path = "it/worker/slow_store.rs"]
mod slow_store;
#[path = "it/worker/store.rs"]
mod store;
#[path = "it/support.rs"]
mod support;
#[path = "it/worker/trace.rs"]
mod trace;
#[path = "it/world.rs"]
mod world;
