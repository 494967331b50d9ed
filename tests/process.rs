//! The real program as a process of its own, between the stand-ins: its arguments, its configuration, its signals,
//! its side port, its log, and what a `kill -9` costs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "it/process/aws.rs"]
mod aws;
#[path = "it/process/commands.rs"]
mod commands;
#[path = "it/process/health.rs"]
mod health;
#[path = "it/process/https.rs"]
mod https;
#[path = "it/process/leaving.rs"]
mod leaving;
#[path = "it/process/log.rs"]
mod log;
#[path = "it/process/permissions.rs"]
mod permissions;
#[path = "it/process/program.rs"]
mod program;
#[path = "it/process/schema.rs"]
mod schema;
#[path = "it/process/signals.rs"]
mod signals;
#[path = "it/process/stdout.rs"]
mod stdout;
#[path = "it/process/store.rs"]
mod store;
#[path = "it/world.rs"]
mod world;
