//! The bounds of a run, and their measurement.

use std::time::Duration;

use super::order;
use super::plan::{EventSpec, Grade, Side, Times};
use super::queue::State;
use super::run::Outcome;
use super::service::{Sample, Went};

/// A bound on a run.
#[derive(Clone, Debug)]
pub(crate) enum Bound {
    /// Each good event is done within that duration of its arrival. For an event that arrived in
    /// one of the periods, within that duration of the end of the period.
    Within(Duration, Vec<Times>),
    /// All events that are to be done and arrive before that time are done by it.
    DoneBy(Duration),
    /// At least that many calls a second are answered with success in the period.
    Served(Side, f64, Times),
    /// At least that many events a second are done in the period.
    Done(f64, Times),
    /// At most that many calls a second are made in the period.
    Asked(Side, f64, Times),
    /// At most that share of the calls that end in the period is told to retry later.
    Paced(Side, f64, Times),
    /// 99 of 100 calls that end in the period take at most that long.
    P99(Side, Duration, Times),
    /// 99 of 100 events that are received in the period wait at most that long for their first
    /// call.
    Idle(Duration, Times),
    /// In total, processes treat a service as down for at most that long.
    Away(Duration),
    /// After its first call that is served after that time, each process begins at most that many
    /// calls within the duration of that call.
    Ramp(Side, usize, Duration),
    /// Each event is done at most that long after its turn, if the given number of events a second
    /// is done in the order of receipt.
    InTurn(f64, Duration),
    /// Jain's fairness index of the calls served to each process in the period is at least that.
    Fair(Side, f64, Times),
    /// The events of a reservation are worked on one at a time, in the order of sending where they
    /// wait, and once each.
    Order {
        /// Whether a message may be received again.
        receives_again: bool,
        /// For how long nobody calls while the next event is held, at most.
        idle: Option<Duration>,
    },
}

/// A bound and its measured value.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) limit: f64,
    /// Whether the limit is a minimum.
    pub(crate) at_least: bool,
    /// Details for the report.
    pub(crate) detail: String,
}

impl Measured {
    pub(crate) fn holds(&self) -> bool {
        if self.at_least { self.value >= self.limit } else { self.value <= self.limit }
    }

    /// The used share of the limit. Above 1, the bound does not hold.
    pub(crate) fn strain(&self) -> f64 {
        let (part, whole) =
            if self.at_least { (self.limit, self.value) } else { (self.value, self.limit) };
        if part == 0.0 { 0.0 } else { part / whole.max(1e-9) }
    }
}

/// Measures the bounds of the plan, and those that hold for every run.
pub(crate) fn judge(outcome: &Outcome) -> Vec<Measured> {
    let plan = &outcome.world.plan;
    let mut all = Vec::new();
    for bound in &plan.bounds {
        if let Bound::Order { receives_again, idle } = bound {
            all.extend(in_order(outcome, *receives_again, *idle));
        } else {
            all.push(measure(outcome, bound));
        }
    }
    all.push(dead_letters(outcome));
    all.push(lost(outcome));
    let broken = &outcome.world.violations;
    if !broken.is_empty() {
        all.push(at_most("tasks that ended", count(broken.len()), 0.0, broken.join(", ")));
    }
    all
}

fn at_most(name: impl Into<String>, value: f64, limit: f64, detail: String) -> Measured {
    Measured { name: name.into(), value, limit, at_least: false, detail }
}

fn at_least(name: impl Into<String>, value: f64, limit: f64, detail: String) -> Measured {
    Measured { name: name.into(), value, limit, at_least: true, detail }
}

fn measure(outcome: &Outcome, bound: &Bound) -> Measured {
    let per_s = |count: usize, times: &Times| self::count(count) / span(times);
    match bound {
        Bound::Within(limit, closed) => within(outcome, *limit, closed),
        Bound::DoneBy(limit) => done_by(outcome, *limit),
        Bound::Served(side, limit, times) => {
            let served = samples(outcome, *side, times).filter(is_served).count();
            let name = format!("{side:?} calls served a second");
            at_least(name, per_s(served, times), *limit, describe(outcome, *side, times))
        }
        Bound::Done(limit, times) => {
            let done = outcome.world.events.iter().filter_map(|event| event.done_at);
            let done = done.filter(|at| inside(*at, times)).count();
            at_least("events done a second", per_s(done, times), *limit, String::new())
        }
        Bound::Asked(side, limit, times) => {
            let asked = samples(outcome, *side, times).count();
            let detail = describe(outcome, *side, times);
            at_most(format!("{side:?} calls a second"), per_s(asked, times), *limit, detail)
        }
        Bound::Paced(side, limit, times) => {
            let paced = samples(outcome, *side, times).filter(|s| s.went == Went::Paced).count();
            let all = samples(outcome, *side, times).count();
            let share = count(paced) / count(all).max(1.0);
            at_most(format!("{side:?} share paced"), share, *limit, format!("{paced} of {all}"))
        }
        Bound::P99(side, limit, times) => {
            let detail = describe(outcome, *side, times);
            let p99 = percentile(outcome, *side, times, 0.99);
            at_most(format!("{side:?} p99, s"), p99, limit.as_secs_f64(), detail)
        }
        Bound::Idle(limit, times) => idle(outcome, *limit, times),
        Bound::Away(limit) => {
            let away = outcome.world.away.as_secs_f64();
            at_most("services taken to be away, s", away, limit.as_secs_f64(), String::new())
        }
        Bound::Order { .. } => unreachable!("it is several measures"),
        Bound::InTurn(per_s, limit) => in_turn(outcome, *per_s, *limit),
        Bound::Ramp(side, limit, back) => ramp(outcome, *side, *limit, *back),
        Bound::Fair(side, limit, times) => {
            let mut by_process = vec![0.0; outcome.world.plan.starts.len()];
            for sample in samples(outcome, *side, times).filter(is_served) {
                by_process[sample.process] += 1.0;
            }
            let detail = format!("{by_process:?}");
            at_least(format!("{side:?} fairness"), jain(&by_process), *limit, detail)
        }
    }
}

/// The slowest good event.
fn within(outcome: &Outcome, limit: Duration, closed: &[Times]) -> Measured {
    let (mut worst, mut late, mut undone, mut good) = (Duration::ZERO, 0, 0, 0);
    let mut which = None;
    for (n, spec) in outcome.world.plan.events.iter().enumerate() {
        if spec.grade != Grade::Good || is_dead(outcome, n) || spec.at >= outcome.ended {
            continue;
        }
        good += 1;
        let from = closed.iter().find(|times| inside(spec.at, times)).map_or(spec.at, |t| t.1);
        let done_at = outcome.world.events[n].done_at;
        undone += usize::from(done_at.is_none());
        let took = done_at.unwrap_or(outcome.ended).saturating_sub(from);
        late += usize::from(took > limit);
        if took > worst {
            (worst, which) = (took, Some(n));
        }
    }
    let detail =
        format!("{late} of {good} good events late, {undone} not done, the worst {which:?}");
    at_most("the slowest good event, s", worst.as_secs_f64(), limit.as_secs_f64(), detail)
}

fn done_by(outcome: &Outcome, limit: Duration) -> Measured {
    let events = outcome.world.plan.events.iter().enumerate();
    let is_asked = |spec: &EventSpec| spec.awaited() && spec.at < limit;
    let awaited = events.filter(|(n, spec)| is_asked(spec) && !is_dead(outcome, *n));
    let (mut last, mut undone) = (Duration::ZERO, 0);
    for (n, _) in awaited {
        undone += usize::from(outcome.world.events[n].done_at.is_none());
        last = last.max(outcome.world.events[n].done_at.unwrap_or(outcome.ended));
    }
    let name = "the last event done at, s";
    let detail = format!("{undone} not done");
    let last = if undone > 0 { last.max(limit + Duration::from_secs(1)) } else { last };
    at_most(name, last.as_secs_f64(), limit.as_secs_f64(), detail)
}

fn idle(outcome: &Outcome, limit: Duration, times: &Times) -> Measured {
    let received =
        outcome.world.events.iter().filter(|e| e.received_at.is_some_and(|at| inside(at, times)));
    let waits =
        received.filter_map(|e| Some(e.called_at.unwrap_or(outcome.ended) - e.received_at?));
    let mut waits: Vec<_> = waits.collect();
    waits.sort_unstable();
    let p99 = of_sorted(&waits, 0.99);
    let detail = format!("{} received", waits.len());
    at_most("from receive to call, p99, s", p99, limit.as_secs_f64(), detail)
}

/// What was found of the order of a reservation's events.
fn in_order(outcome: &Outcome, receives_again: bool, idle: Option<Duration>) -> Vec<Measured> {
    let found = order::findings(outcome);
    let none = |name: &str, what: &[String]| {
        let detail = format!("{}; {}", what.first().map_or("", String::as_str), found.detail);
        at_most(name, count(what.len()), 0.0, detail)
    };
    let mut all = vec![
        none("events worked on at the same time", &found.overlaps),
        none("events before those that were sent earlier", &found.out_of_order),
        none("events not settled once", &found.not_once),
    ];
    if !receives_again {
        let again = count(found.received_again);
        all.push(at_most("messages received again", again, 0.0, String::new()));
    }
    if let Some(limit) = idle {
        let (longest, which) = found.idle;
        let (longest, limit) = (longest.as_secs_f64(), limit.as_secs_f64());
        let name = "the longest pause before the next event, s";
        all.push(at_most(name, longest, limit, format!("e{which}")));
    }
    all
}

/// The event that waits longest for events received after it.
fn in_turn(outcome: &Outcome, per_s: f64, limit: Duration) -> Measured {
    let events = outcome.world.events.iter().enumerate();
    let mut received: Vec<_> =
        events.filter_map(|(n, event)| Some((event.received_at?, n))).collect();
    received.sort_unstable();
    let waits = received.iter().map(|(at, n)| {
        let before = received.partition_point(|(other, _)| other <= at);
        let turn = Duration::from_secs_f64(count(before) / per_s).max(*at);
        let done_at = outcome.world.events[*n].done_at.unwrap_or(outcome.ended);
        (done_at.saturating_sub(turn), *n)
    });
    let (worst, which) = waits.max().unwrap_or_default();
    let detail = format!("e{which}");
    at_most("the longest after its turn, s", worst.as_secs_f64(), limit.as_secs_f64(), detail)
}

/// The process that resumes calls most abruptly.
fn ramp(outcome: &Outcome, side: Side, limit: usize, back: Duration) -> Measured {
    let all = &outcome.world.services[side.index()].samples;
    let by_process = (0..outcome.world.plan.starts.len()).map(|process| {
        let own = || all.iter().filter(|sample| sample.process == process);
        let Some(first) = own().find(|s| s.ended >= back && s.went == Went::Served) else {
            return 0;
        };
        let round = (first.ended, first.ended + first.took);
        own().filter(|sample| inside(sample.ended - sample.took, &round)).count()
    });
    let by_process: Vec<_> = by_process.collect();
    let worst = count(by_process.iter().copied().max().unwrap_or(0));
    let name = format!("{side:?} calls at once when it is back");
    at_most(name, worst, count(limit), format!("{by_process:?}"))
}

fn dead_letters(outcome: &Outcome) -> Measured {
    let events = outcome.world.plan.events.iter().enumerate();
    let is_good = |spec: &EventSpec| spec.part == 0 && !spec.poison;
    let dead: Vec<_> =
        events.filter(|(n, spec)| is_good(spec) && is_dead(outcome, *n)).map(|(n, _)| n).collect();
    let redriven = dead.iter().filter(|n| outcome.world.queue.msgs[**n].state == State::Redriven);
    let detail = format!("of them redriven: {}", redriven.count());
    let limit = count(outcome.world.plan.dead_letters_max);
    at_most("good events dead-lettered", count(dead.len()), limit, detail)
}

fn lost(outcome: &Outcome) -> Measured {
    let msgs = outcome.world.queue.msgs.iter().enumerate();
    let is_lost = |n: usize| outcome.world.events[n].done_at.is_none() && !is_dead(outcome, n);
    let lost: Vec<_> =
        msgs.filter(|(n, msg)| msg.state == State::Deleted && is_lost(*n)).map(|m| m.0).collect();
    at_most("events deleted undone", count(lost.len()), 0.0, format!("{lost:?}"))
}

fn is_dead(outcome: &Outcome, n: usize) -> bool {
    let msg = &outcome.world.queue.msgs[n];
    msg.copies > 0 || msg.state == State::Redriven
}

fn is_served(sample: &&Sample) -> bool {
    sample.went == Went::Served
}

fn samples<'a>(
    outcome: &'a Outcome,
    side: Side,
    times: &'a Times,
) -> impl Iterator<Item = &'a Sample> {
    let all = outcome.world.services[side.index()].samples.iter();
    all.filter(|sample| inside(sample.ended, times))
}

/// The calls that the service saw in the period.
fn describe(outcome: &Outcome, side: Side, times: &Times) -> String {
    let went = |went| samples(outcome, side, times).filter(|sample| sample.went == went).count();
    let at = |part| percentile(outcome, side, times, part) * 1_000.0;
    format!(
        "served {}, thrown away {}, paced {}, failed {}; p50 {:.0} ms, p99 {:.0} ms; in flight at most {}",
        went(Went::Served),
        went(Went::ThrownAway),
        went(Went::Paced),
        went(Went::Failed),
        at(0.5),
        at(0.99),
        outcome.world.services[side.index()].in_flight_max
    )
}

/// A percentile of the duration of calls that were served or thrown away, in seconds.
fn percentile(outcome: &Outcome, side: Side, times: &Times, part: f64) -> f64 {
    let waited = |s: &&Sample| matches!(s.went, Went::Served | Went::ThrownAway);
    let mut took: Vec<_> = samples(outcome, side, times).filter(waited).map(|s| s.took).collect();
    took.sort_unstable();
    of_sorted(&took, part)
}

/// The smallest duration with that share of all durations at or below it, in seconds. 0 without
/// durations.
fn of_sorted(all: &[Duration], part: f64) -> f64 {
    let enough = all.iter().enumerate().find(|(n, _)| count(n + 1) >= count(all.len()) * part);
    enough.map_or(0.0, |(_, time)| time.as_secs_f64())
}

/// Jain's fairness index: 1 if all values are equal, `1/n` if one of `n` has everything.
fn jain(of: &[f64]) -> f64 {
    let (sum, squares) = (of.iter().sum::<f64>(), of.iter().map(|x| x * x).sum::<f64>());
    if squares == 0.0 { 0.0 } else { sum * sum / (count(of.len()) * squares) }
}

fn inside(at: Duration, (from, to): &Times) -> bool {
    *from <= at && at < *to
}

fn span((from, to): &Times) -> f64 {
    (*to - *from).as_secs_f64()
}

fn count(of: usize) -> f64 {
    f64::from(u32::try_from(of).expect("the number is small"))
}
