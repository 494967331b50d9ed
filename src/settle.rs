//! Settles messages: [`decide()`] maps the end of an attempt to a [`Verdict`], then the verdict is
//! carried out.
//!
//! - [`decide()`] is a pure table without queue and clock.
//! - [`Settler`] carries out a verdict: first the store, then the message. A crash between the two
//!   repeats a delivery, not an effect.
//! - [`batch`] batches deletes and visibility changes, and sends dead letters.
//! - [`account`] counts each message where it is settled.

pub mod account;
pub mod batch;
mod decide;
mod excess;
pub mod failures;
mod give_up;
mod lease_events;
mod no_event;
mod report;
mod settler;
#[cfg(test)]
pub(crate) mod tests;

pub use decide::{DeadLetterReason, EventHistory, RetryPolicy, Verdict, decide, release_delay};
pub use settler::Settler;
