//! The real program in its own process, between the stand-ins: arguments, configuration, signals,
//! admin port, log, and the effect of `kill -9`.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod aws;
mod commands;
mod ctl;
mod dlq;
mod dlq_disturbed;
mod dlq_measured;
mod dlq_shared;
mod dlq_terminal;
mod health;
mod https;
mod leaving;
mod log;
mod memory;
mod operate;
mod permissions;
mod secrets;
mod signals;
mod stdout;
mod store;
mod terminal;
