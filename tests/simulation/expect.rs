//! Switches for checks that the engine once failed. `true`: the engine must pass the check.

/// When the responses of two receives cross, the newer receipt handle of a message is kept.
pub(crate) const NEWEST: bool = true;

/// A copy received during shutdown joins its event in flight; it is not made visible again
/// meanwhile.
pub(crate) const REJOINS: bool = true;

/// The account balances even if the shutdown deadline passed.
pub(crate) const BALANCES_LATE: bool = true;
