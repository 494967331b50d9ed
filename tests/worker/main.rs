//! The whole worker in this process, on real sockets: its own clients, store and tasks against the
//! embedded SQS and stand-ins of both services on free ports. One module per property.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod acquitted;
mod answers;
mod collector;
mod conflict;
mod deadlines;
mod drain;
mod duplicates;
mod events;
mod fair;
mod fifo;
mod flaky;
mod half_down;
mod half_down_store;
mod half_well;
mod half_well_hour;
mod health;
mod hold;
mod judge;
mod late;
mod leave;
mod metrics;
mod order;
mod outage;
mod parked;
mod paused;
mod pauses;
mod poison;
mod producers;
mod receive;
mod retries;
mod seams;
mod settle;
mod shared_order;
mod slow_store;
mod store;
mod support;
mod trace;
