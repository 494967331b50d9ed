//! The state of the store that all pods share, written from the contract's words and not from the
//! memory store: a second opinion on them. How an operation travels is `shared`'s, who else is there
//! `other`'s, and what the store's state forbids `guard`'s.
//!
//! A failover loses the writes of its last second, acknowledged or not. What may then happen to an
//! event whose record was among them: its claim is gone, so that two owners may run at once; a step
//! whose record is gone is repeated, with its key; an event that was handled is handled again, with
//! its keys. What may not: an event that is lost, or an effect that happens twice.

use std::time::{Duration, SystemTime};

use reservation_worker::event::{ContentHash, StepSet};
use reservation_worker::idempotency::{Claim, ClaimToken, Handled, HandledAs, StoreError};

/// What a failover loses.
const LOST_BY_FAILOVER: Duration = Duration::from_secs(1);

/// Who has claimed an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Holder {
    /// The worker in one of its lives.
    Worker { token: ClaimToken, life: u32 },
    /// Another pod, by its place in the plan.
    Other(usize),
}

/// What is asked of the store.
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

/// What is known of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) hash: ContentHash,
    /// Who claimed it last.
    pub(crate) holder: Holder,
    pub(crate) phase: Phase,
    pub(crate) done: StepSet,
}

/// The answer to an operation; only a claim is answered with more than that it was done.
pub(crate) type Reply = Result<Option<Claim>, StoreError>;

/// An operation's outcome, and its name in the coverage.
pub(crate) struct Outcome {
    pub(crate) reply: Reply,
    pub(crate) name: &'static str,
}

impl Record {
    /// The later of its claim's end, if it stands, and this one.
    fn not_before(&self, until: Duration) -> Duration {
        match self.phase {
            Phase::InProgress { until: was } => was.max(until),
            Phase::Handled(_) | Phase::GivenUp => until,
        }
    }
}

/// A record as it was before a write.
#[derive(Debug)]
struct Written {
    at: Duration,
    id: usize,
    before: Option<Record>,
}

/// The records, by the place of their event's id.
#[derive(Debug)]
pub(crate) struct StoreState {
    records: Vec<Option<Record>>,
    /// Whether a failover lost a write of it, ever.
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

    /// Whether what the store says of it may be older than what it said before.
    pub(crate) fn is_forgotten(&self, id: usize) -> bool {
        self.forgotten[id]
    }

    pub(crate) fn is_handled(&self, id: usize) -> bool {
        self.record(id).is_some_and(|record| matches!(record.phase, Phase::Handled(_)))
    }

    /// Who holds a claim that stands.
    pub(crate) fn holder(&self, id: usize, now: Duration) -> Option<Holder> {
        let record = self.record(id)?;
        let stands = matches!(record.phase, Phase::InProgress { until } if until > now);
        stands.then_some(record.holder)
    }

    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    /// Lets the failovers happen whose time has come; gives the events that lost a write.
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

    /// Carries an operation out. The failovers up to `now` must have happened.
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
    // One that arrives late, after a newer one, shortens nothing.
    let until = match before {
        Some(record) if record.holder == holder => record.not_before(until),
        Some(_) | None => until,
    };
    let after = Record { hash, holder, phase: Phase::InProgress { until }, done };
    (Outcome { reply: Ok(Some(Claim::Ours(done))), name }, Some(after))
}

/// The names of a change: made, and refused.
type Names = (&'static str, &'static str);

const RENEWED: Names = ("store: renewed", "store: renewed by a stranger");
const RECORDED: Names = ("store: recorded", "store: recorded by a stranger");
const COMPLETED: Names = ("store: completed", "store: completed by a stranger");
const RELEASED: Names = ("store: given up", "store: given up by a stranger");

/// A change that only the owner of a claim may make.
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
        None => (Outcome { reply: Err(StoreError::NotOwner), name: refused }, before),
    }
}

/// The claim was ended in that way by the same owner: the second time says what the first said.
fn ended(
    before: Option<Record>,
    holder: Holder,
    name: &'static str,
    again: impl FnOnce(Phase) -> bool,
) -> Option<(Outcome, Option<Record>)> {
    let record = before.filter(|record| record.holder == holder && again(record.phase))?;
    Some((Outcome { reply: Ok(None), name }, Some(record)))
}
