//! The state of the store that all pods share. It follows the contract of the store and is
//! independent of the in-memory store. How operations travel is in `shared`, other users are in
//! `other`, and the checks are in `guard`.
//!
//! A failover loses the writes of the last second, acknowledged or not. For an event with a lost
//! write this is allowed: two owners at once, because its claim is lost; a repeated step with its
//! key; a second handling, with the same keys. Never allowed: a lost event, or an effect that
//! happens twice.

use std::time::{Duration, SystemTime};

use reservation_worker::event::{ContentHash, StepSet};
use reservation_worker::idempotency::{Claim, ClaimToken, Handled, HandledAs, Lost, StoreError};

/// The period whose writes a failover loses.
const LOST_BY_FAILOVER: Duration = Duration::from_secs(1);

/// The owner of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The worker in one of its lives.
    Worker { token: ClaimToken, life: u32 },
    /// Another pod, by its index in the plan.
    Other(usize),
}

/// An operation of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Claim { hash: ContentHash, lasts: Duration },
    Renew { lasts: Duration },
    Record { done: StepSet },
    Complete { how: HandledAs },
    Release { done: StepSet },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    InProgress { until: Duration },
    GivenUp,
    Handled(Handled),
}

/// The record of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) hash: ContentHash,
    /// The owner of the latest claim.
    pub(crate) holder: Holder,
    pub(crate) phase: Phase,
    pub(crate) done: StepSet,
}

/// The answer to an operation. Only a claim returns a value.
pub(crate) type Reply = Result<Option<Claim>, StoreError>;

/// The result of an operation, and its name in the coverage.
pub(crate) struct Outcome {
    pub(crate) reply: Reply,
    pub(crate) name: &'static str,
}

impl Record {
    /// The later of `until` and the end of an unexpired claim.
    fn not_before(&self, until: Duration) -> Duration {
        match self.phase {
            Phase::InProgress { until: was } => was.max(until),
            Phase::Handled(_) | Phase::GivenUp => until,
        }
    }
}

/// A record before a write.
#[derive(Debug)]
struct Written {
    at: Duration,
    id: usize,
    before: Option<Record>,
}

/// The records, by the index of their event's id.
#[derive(Debug)]
pub(crate) struct StoreState {
    records: Vec<Option<Record>>,
    /// Whether a failover ever lost a write of the record.
    forgotten: Vec<bool>,
    /// The writes that the next failover may lose.
    written: Vec<Written>,
    /// The failovers to come, the next one last.
    failovers: Vec<Duration>,
}

impl StoreState {
    pub(crate) fn new(ids: usize, mut failovers: Vec<Duration>) -> Self {
        failovers.sort_unstable_by(|a, b| b.cmp(a));
        Self {
            records: vec![None; ids],
            forgotten: vec![false; ids],
            written: Vec::new(),
            failovers,
        }
    }

    pub(crate) fn record(&self, id: usize) -> Option<&Record> {
        self.records[id].as_ref()
    }

    /// Whether the record may be older than an earlier state of it.
    pub(crate) fn is_forgotten(&self, id: usize) -> bool {
        self.forgotten[id]
    }

    pub(crate) fn is_handled(&self, id: usize) -> bool {
        self.record(id).is_some_and(|record| matches!(record.phase, Phase::Handled(_)))
    }

    /// The owner of an unexpired claim.
    pub(crate) fn holder(&self, id: usize, now: Duration) -> Option<Holder> {
        let record = self.record(id)?;
        let stands = matches!(record.phase, Phase::InProgress { until } if until > now);
        stands.then_some(record.holder)
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Applies the failovers that are due. Returns the events that lost a write.
    pub(crate) fn fail_over(&mut self, now: Duration) -> Vec<usize> {
        let mut lost = Vec::new();
        while let Some(&at) = self.failovers.last()
            && at <= now
        {
            self.failovers.pop();
            let since = at.saturating_sub(LOST_BY_FAILOVER);
            while let Some(written) = self.written.pop_if(|written| written.at > since) {
                self.records[written.id] = written.before;
                self.forgotten[written.id] = true;
                lost.push(written.id);
            }
            self.written.clear();
        }
        lost
    }

    /// Applies an operation. The failovers up to `now` must have been applied.
    pub(crate) fn apply(&mut self, id: usize, holder: Holder, op: Op, now: Duration) -> Outcome {
        let before = self.records[id];
        let (outcome, after) = match op {
            Op::Claim { hash, lasts } => claim(before, holder, hash, now, now + lasts),
            Op::Renew { lasts } => owned(before, holder, RENEWED, |record| {
                record.phase = Phase::InProgress { until: record.not_before(now + lasts) };
            }),
            Op::Record { done } => owned(before, holder, RECORDED, |record| {
                record.done = record.done.union(done);
            }),
            Op::Complete { how } => {
                let handled = Handled { how, at: SystemTime::UNIX_EPOCH + now };
                let again = |phase| matches!(phase, Phase::Handled(_));
                ended(before, holder, "store: completed again", again).unwrap_or_else(|| {
                    owned(before, holder, COMPLETED, |record| {
                        record.phase = Phase::Handled(handled);
                    })
                })
            }
            Op::Release { done } => {
                ended(before, holder, "store: given up again", |phase| phase == Phase::GivenUp)
                    .unwrap_or_else(|| {
                        owned(before, holder, RELEASED, |record| {
                            record.phase = Phase::GivenUp;
                            record.done = record.done.union(done);
                        })
                    })
            }
        };
        if after != before {
            if !self.failovers.is_empty() {
                let oldest = now.saturating_sub(LOST_BY_FAILOVER);
                self.written.retain(|written| written.at > oldest);
                self.written.push(Written { at: now, id, before });
            }
            self.records[id] = after;
        }
        outcome
    }
}

fn claim(
    before: Option<Record>,
    holder: Holder,
    hash: ContentHash,
    now: Duration,
    until: Duration,
) -> (Outcome, Option<Record>) {
    let said = |claim, name| (Outcome { reply: Ok(Some(claim)), name }, before);
    let (done, name) = match before {
        None => (StepSet::EMPTY, "claim: ours, the first"),
        Some(record) if record.hash != hash => {
            return said(Claim::IdReused(record.hash), "claim: id reused");
        }
        Some(record) => match record.phase {
            Phase::Handled(handled) => return said(Claim::Handled(handled), "claim: handled"),
            Phase::GivenUp if record.done.is_empty() => (record.done, "claim: ours, given up"),
            Phase::GivenUp => (record.done, "claim: ours, given up half-way"),
            Phase::InProgress { .. } if record.holder == holder => {
                (record.done, "claim: ours already")
            }
            Phase::InProgress { until } if until > now => {
                return said(Claim::Elsewhere(until - now), "claim: elsewhere");
            }
            Phase::InProgress { .. } if record.done.is_empty() => {
                (record.done, "claim: ours, run out")
            }
            Phase::InProgress { .. } => (record.done, "claim: ours, run out half-way"),
        },
    };
    // A claim that arrives after a newer one does not shorten it.
    let until = match before {
        Some(record) if record.holder == holder => record.not_before(until),
        Some(_) | None => until,
    };
    let after = Record { hash, holder, phase: Phase::InProgress { until }, done };
    (Outcome { reply: Ok(Some(Claim::Ours(done))), name }, Some(after))
}

/// The coverage names of a change: made, and refused.
type Names = (&'static str, &'static str);

const RENEWED: Names = ("store: renewed", "store: renewed by a stranger");
const RECORDED: Names = ("store: recorded", "store: recorded by a stranger");
const COMPLETED: Names = ("store: completed", "store: completed by a stranger");
const RELEASED: Names = ("store: given up", "store: given up by a stranger");

/// Makes a change that only the owner of a claim may make.
fn owned(
    before: Option<Record>,
    holder: Holder,
    (made, refused): Names,
    change: impl FnOnce(&mut Record),
) -> (Outcome, Option<Record>) {
    let mut after = before;
    let owned = after
        .as_mut()
        .filter(|it| it.holder == holder && matches!(it.phase, Phase::InProgress { .. }));
    match owned {
        Some(record) => {
            change(record);
            (Outcome { reply: Ok(None), name: made }, after)
        }
        None => (Outcome { reply: Err(StoreError::NotOwner(Lost::Claim)), name: refused }, before),
    }
}

/// The answer to a repeated end of a claim by the same owner: the same as the first time.
fn ended(
    before: Option<Record>,
    holder: Holder,
    name: &'static str,
    again: impl FnOnce(Phase) -> bool,
) -> Option<(Outcome, Option<Record>)> {
    let record = before.filter(|record| record.holder == holder && again(record.phase))?;
    Some((Outcome { reply: Ok(None), name }, Some(record)))
}
