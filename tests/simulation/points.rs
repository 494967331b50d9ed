//! The engine's fail points. They are the whole process's, and tests run at the same time: a run with
//! one of them on is alone, all others share.

use std::sync::{PoisonError, RwLock};

use fail::FailGuard;

static RUNS: RwLock<()> = RwLock::new(());

/// Runs with this fail point on, or with none.
pub(crate) fn with<T>(point: Option<&str>, run: impl FnOnce() -> T) -> T {
    let Some(point) = point else {
        let _shared = RUNS.read().unwrap_or_else(PoisonError::into_inner);
        return run();
    };
    let _alone = RUNS.write().unwrap_or_else(PoisonError::into_inner);
    let _on = FailGuard::new(point, "return").expect("an action that is known");
    run()
}
