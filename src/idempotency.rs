//! Which events were handled, and which steps of the others: the store's contract.
//!
//! An event is *claimed* before its first step. A claim is fenced by its [`Token`]: only its owner
//! records steps, completes or releases it. A completed event is *handled*, and a further delivery
//! of it does nothing. A released one is not, but the steps that it finished stay known, so that
//! the next delivery starts after them.

pub mod memory;

use async_trait::async_trait;

use crate::event::{ContentHash, EventId, Step, StepSet};

/// The right to handle one event, until it is completed or released.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u64);

/// The answer to a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody handles the event now: it is ours, with the steps that were finished earlier.
    Ours(Token, StepSet),
    /// It has taken effect, or was found to be superseded.
    Handled,
    /// An event with this id and another content was claimed or handled before.
    IdReused,
    /// Somebody else has it.
    Elsewhere,
}

/// Why the store gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The claim is not ours any more.
    #[error("the claim is not ours any more")]
    NotOwner,
}

/// Remembers events by id.
///
/// Dropping one of these futures leaves it open whether the operation took place.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// Claims an event.
    async fn claim(&self, id: &EventId, hash: ContentHash) -> Result<Claim, StoreError>;

    /// Records that a step is done, before the next one begins.
    async fn record(&self, id: &EventId, token: Token, step: Step) -> Result<(), StoreError>;

    /// The event is handled; its claim ends.
    async fn complete(&self, id: &EventId, token: Token) -> Result<(), StoreError>;

    /// The event is given up in this delivery; its claim ends, its finished steps stay known.
    async fn release(&self, id: &EventId, token: Token) -> Result<(), StoreError>;
}
