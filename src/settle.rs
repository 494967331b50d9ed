//! What follows from the way an attempt ended: [`decide()`], a pure table; then it is carried out.
//!
//! - [`decide()`] knows no queue and no clock: outcome in, [`Verdict`] out.
//! - [`Settler`] carries a verdict out: the store first, then the message, so that a crash between
//!   the two repeats a delivery and not an effect.
//! - [`batch`] gathers deletes and visibility changes, and sends dead letters.
//! - [`ledger`] counts each message where it is settled.

pub mod batch;
mod carry;
mod decide;
mod excess;
mod give_up;
mod leases;
pub mod ledger;
mod no_event;
mod tell;

pub use carry::Settler;
pub use decide::{DeadLetterReason, Record, RetryPolicy, Verdict, decide, release_delay};
