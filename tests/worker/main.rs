//! The whole worker in this process, on real sockets: the embedded SQS and the stand-ins of both services at
//! free ports, the app's own clients, store and tasks between them. One module for each promise.
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
mod slow_store;
mod store;
mod support;
mod trace;
