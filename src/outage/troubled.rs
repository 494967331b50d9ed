//! Lock-free set of the dependencies that may not be serving.
//! All store shards are checked after each store operation, and nearly always all of them serve.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Dependency;

/// One bit per dependency that may not be serving.
#[derive(Debug, Default)]
pub(super) struct Troubled(AtomicU32);

const _: () = assert!(Dependency::COUNT <= 32, "a bit for each");

impl Troubled {
    /// Returns whether all dependencies serve.
    pub(super) fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Records whether the dependency serves after an answer. Requires the lock of its breaker.
    /// A dependency that serves again without an answer, after a pause, keeps its bit until the
    /// next answer.
    pub(super) fn note(&self, dependency: Dependency, is_serving: bool) {
        let bit = 1 << dependency.index();
        match (is_serving, self.0.load(Ordering::Relaxed) & bit != 0) {
            (false, false) => self.0.fetch_or(bit, Ordering::Relaxed),
            (true, true) => self.0.fetch_and(!bit, Ordering::Relaxed),
            (true, false) | (false, true) => bit,
        };
    }
}
