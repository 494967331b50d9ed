//! Which dependencies may not be serving, readable without a lock: after each operation of the store all of its shards are asked
//! after, and nearly always all of them serve.

use std::sync::atomic::{AtomicU32, Ordering};

use super::Dependency;

/// A bit for each dependency that may not be serving.
#[derive(Debug, Default)]
pub(super) struct Troubled(AtomicU32);

const _: () = assert!(Dependency::COUNT <= 32, "a bit for each");

impl Troubled {
    /// Whether all serve.
    pub(super) fn is_none(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 0
    }

    /// Notes what an answer has led to. To be called under the lock of the dependency's breaker; one that serves again without an
    /// answer, as a pause has ended, keeps its bit until the next.
    pub(super) fn note(&self, dependency: Dependency, is_serving: bool) {
        let bit = 1 << dependency.index();
        match (is_serving, self.0.load(Ordering::Relaxed) & bit != 0) {
            (false, false) => self.0.fetch_or(bit, Ordering::Relaxed),
            (true, true) => self.0.fetch_and(!bit, Ordering::Relaxed),
            (true, false) | (false, true) => bit,
        };
    }
}
