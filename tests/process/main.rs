//! The real program as a process of its own, between the stand-ins: its arguments, its configuration, its signals,
//! its side port, its log, and what a `kill -9` costs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod aws;
mod commands;
mod health;
mod https;
mod leaving;
mod log;
mod permissions;
mod signals;
mod stdout;
mod store;
