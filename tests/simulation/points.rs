//! The engine's fail points. They are global to the process, and tests run in parallel: a run with
//! a fail point has an exclusive lock, all other runs share it.

use std::sync::{PoisonError, RwLock};

use fail::FailGuard;

static RUNS: RwLock<()> = RwLock::new(());

/// Runs `run` with this fail point on, or with none.
pub(crate) fn with<T>(point: Option<&str>, run: impl FnOnce() -> T) -> T {
    let Some(point) = point else {
        let _shared = RUNS.read().unwrap_or_else(PoisonError::into_inner);
        return run();
    };
    let _alone = RUNS.write().unwrap_or_else(PoisonError::into_inner);
    let _on = FailGuard::new(point, "return").expect("the fail action is valid");
    run()
}
