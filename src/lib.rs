//! Processes reservation and payment events from an Amazon SQS queue for two services.
//!
//! The worker applies each event to the Reservation API and the Inventory service, so that both
//! agree about each seat. Each event takes effect once and no event is lost. An outage needs no
//! manual cleanup.
//!
//! The modules follow a message: **poll, decode, dispatch, handle, settle.**
//!
//! ```text
//!  SQS ◀─ receive ─ poller ─▶ intake ─▶ inflight ═ ready ═▶ worker ─▶ handler
//!  ▲                          decode    table of   bounded  N tasks   ├─▶ Reservation API (HTTP)
//!  │                                    all held   channel            └─▶ Inventory (gRPC)
//!  │                                      │    ▲
//!  ├── extend ── lease keeper ◀───────────┘    └── wait ◀── settle ◀── attempt result
//!  └── delete, release, dead-letter ── batches ◀──────────────┘
//! ```
//!
//! [`app`] builds all parts, owns every task, and ends the tasks in order.

#[cfg(feature = "simulation")]
#[macro_use(fail_point)]
extern crate fail;

/// Stands where the simulation can break the engine on purpose: nothing, without the feature
/// `simulation`, which no image enables. `docs/adr/fail-points.md` has more.
#[cfg(not(feature = "simulation"))]
macro_rules! fail_point {
    ($($point:tt)*) => {};
}

pub mod check;
pub mod cli;
pub mod ops;
pub mod run;
mod signals;

pub mod app;
pub mod poller;

mod escaped;
pub mod event;
pub mod intake;

pub mod inflight;
pub mod scheduler;
pub mod worker;

pub mod client;
pub mod handler;
pub mod idempotency;
pub mod outage;

pub mod settle;

pub mod queue;

pub mod admin;
pub mod status;

mod clock;
pub mod config;
pub mod controls;
pub mod credentials;
pub mod health;
mod memory;
pub mod metrics;
pub mod retry;
pub mod telemetry;
