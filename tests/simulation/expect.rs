//! What the engine is not held to yet: each of these is a fault that the simulation has found. Turn
//! one on with its fix.

/// Where the replies of two receives cross, the newer handle of a message is kept.
pub(crate) const NEWEST: bool = true;

/// A copy that comes in while leaving joins its event in hand; it is not made visible under it.
pub(crate) const REJOINS: bool = true;

/// The account balances even where the time to leave ran out.
pub(crate) const BALANCES_LATE: bool = true;
