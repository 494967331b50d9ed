//! What the engine is held to beyond the first version of it.

/// Events wait out an outage without spending retries or receives.
pub(crate) const PARKS: bool = true;

/// What is held for long is handed back before SQS takes it away.
pub(crate) const HOLDS: bool = true;

/// Where the replies of two receives cross, the newer handle of a message is kept.
pub(crate) const NEWEST: bool = false;

/// A copy that comes in while leaving joins its event in hand; it is not made visible under it.
pub(crate) const REJOINS: bool = false;

/// The account balances even where the time to leave ran out.
pub(crate) const BALANCES_LATE: bool = false;

/// A service that names a time is not called before it, by any event.
pub(crate) const PACES: bool = true;

/// FIFO groups keep their order.
pub(crate) const FIFO: bool = true;
