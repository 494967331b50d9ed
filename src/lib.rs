//! A worker that makes two services agree about each seat: it takes events off an Amazon SQS queue
//! and sees to it that each takes effect, once, quickly; that nothing is lost; and that nobody has
//! to clean up after an outage.
//!
//! The modules stand in the order of a message's life: **poll, decode, dispatch, handle, settle.**
//!
//! ```text
//!  SQS ◀──── receive ──── poller ─▶ intake ─▶ inflight ═══ ready ═══▶ worker ─▶ handler
//!   ▲                               decode    the table    bounded     N of     │   │
//!   │                                         of all held  channel     them     │   └─▶ Reservation API (HTTP)
//!   │                                           │    ▲                          └─────▶ Inventory (gRPC)
//!   ├── extend ── lease keeper ◀────────────────┘    └── wait ◀── settle ◀── how it ended
//!   └── delete, release, dead-letter ── batches ◀────────────────────┘
//! ```
//!
//! [`app`] builds all of it, owns every task, and knows the order in which they end.

pub mod check;
pub mod cli;
pub mod run;
mod signals;

pub mod app;
pub mod poller;

pub mod event;
mod excerpt;
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
mod clock;
pub mod config;
pub mod credentials;
pub mod health;
pub mod metrics;
pub mod retry;
pub mod sabotage;
pub mod telemetry;
