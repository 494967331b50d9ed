//! Validity of a job in hand: its message's lease, and its claim in the store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::idempotency::ClaimToken;

/// Validity of a job: when its last receipt and its claim expire.
///
/// Checked before each step. The check compares times and needs no task to detect expiry. So it
/// also works after the process, or the whole machine, was suspended ([`clock`]).
#[derive(Clone, Debug)]
pub struct Lease(Arc<LeaseState>);

#[derive(Debug)]
struct LeaseState {
    /// Origin of `until_us`.
    origin: Instant,
    /// Microseconds after `origin`; 0 if no receipt is left.
    until_us: AtomicU64,
    /// Token of the claim.
    token: ClaimToken,
    claim: Mutex<ClaimState>,
}

/// What is known about the claim.
#[derive(Clone, Copy, Debug, Default)]
struct ClaimState {
    until: Option<Instant>,
    /// Number of claim requests. A renewal belongs to one of them.
    asked: u64,
    may_stand: bool,
}

impl ClaimState {
    fn stands(&self) -> bool {
        self.until.is_some_and(|until| clock::now() < until)
    }
}

impl Lease {
    pub(super) fn new(origin: Instant) -> Self {
        Self(Arc::new(LeaseState {
            origin,
            until_us: AtomicU64::new(0),
            token: ClaimToken::unique(),
            claim: Mutex::default(),
        }))
    }

    /// Returns whether at least one receipt of the job is still valid.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.remaining().is_zero()
    }

    /// Returns for how long the last receipt is still valid.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        let until = Duration::from_micros(self.0.until_us.load(Ordering::Acquire));
        until.saturating_sub(clock::now().saturating_duration_since(self.0.origin))
    }

    /// Returns the token of the claim.
    #[must_use]
    pub fn token(&self) -> ClaimToken {
        self.0.token
    }

    /// Returns whether this process holds the claim, as far as is known.
    #[must_use]
    pub fn is_claimed(&self) -> bool {
        self.claim().stands()
    }

    /// Returns whether the store may hold this job's claim: requested, and not found lost.
    /// It may have expired, or its answer may have been lost.
    #[must_use]
    pub fn may_be_claimed(&self) -> bool {
        self.claim().may_stand
    }

    /// Returns whether a claim was requested and its result is unknown.
    #[must_use]
    pub fn is_claim_asked(&self) -> bool {
        let claim = self.claim();
        claim.may_stand && claim.until.is_none()
    }

    /// Records that the claim is requested again.
    /// It is not valid until granted, whatever the result of an earlier renewal. Another process
    /// may have had the event meanwhile, and only this answer tells which steps are done.
    pub fn claim_asked(&self) {
        let mut claim = self.claim();
        *claim = ClaimState { until: None, asked: claim.asked + 1, may_stand: true };
    }

    /// Records that the claim is valid until `until`.
    /// An earlier time does not shorten it, because answers may overtake each other.
    pub fn claimed(&self, until: Instant) {
        let mut claim = self.claim();
        claim.until = claim.until.max(Some(until));
    }

    /// Records that the claim is gone or held by another process.
    pub fn claim_lost(&self) {
        let mut claim = self.claim();
        *claim = ClaimState { until: None, may_stand: false, ..*claim };
    }

    /// Records that a renewal of request `asked` found the claim lost.
    /// Has no effect if the claim was requested again meanwhile.
    pub fn renewal_refused(&self, asked: u64) {
        let mut claim = self.claim();
        if claim.asked == asked {
            *claim = ClaimState { until: None, may_stand: false, ..*claim };
        }
    }

    /// Returns the number of the claim request to renew, if the claim is valid.
    #[must_use]
    pub fn renewable(&self) -> Option<u64> {
        let claim = self.claim();
        claim.stands().then_some(claim.asked)
    }

    /// Records that the claim of request `asked` is valid until `until`, or longer.
    pub fn renewed(&self, asked: u64, until: Instant) {
        let mut claim = self.claim();
        if claim.asked == asked && claim.until.is_some() {
            claim.until = claim.until.max(Some(until));
        }
    }

    fn claim(&self) -> MutexGuard<'_, ClaimState> {
        self.0.claim.lock().expect("no panic happens under this lock")
    }

    pub(super) fn set(&self, until: Option<Instant>) {
        let after = until.map_or(Duration::ZERO, |at| at.saturating_duration_since(self.0.origin));
        let us = u64::try_from(after.as_micros()).unwrap_or(u64::MAX);
        self.0.until_us.store(us, Ordering::Release);
    }
}
