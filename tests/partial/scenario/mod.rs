//! The scenarios. Each draws a plan from a seed. The seed chooses what the scenario leaves open
//! (service, error class, rates, times), and the plan describes the choice.

mod capacity;
mod limits;
mod order;
mod outages;
mod parts;
mod sqs;

use std::hash::{DefaultHasher, Hash, Hasher};

use fastrand::Rng;

use super::plan::Plan;

/// The length of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// Long enough to show a fault.
    Small,
    /// As long as the requirement states: up to an hour.
    Full,
}

impl Size {
    /// Selects the value for this size.
    pub(crate) fn of<T>(self, small: T, full: T) -> T {
        match self {
            Self::Small => small,
            Self::Full => full,
        }
    }
}

#[derive(Clone, Copy)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Whether a small run takes almost no time.
    pub(crate) is_short: bool,
    draw: fn(&mut Rng, Size) -> Plan,
}

impl Scenario {
    pub(crate) fn plan(&self, seed: u64, size: Size) -> Plan {
        let mut hasher = DefaultHasher::new();
        (self.name, seed).hash(&mut hasher);
        let mut plan = (self.draw)(&mut Rng::with_seed(hasher.finish()), size);
        (plan.scenario, plan.seed) = (self.name, seed);
        plan.events.sort_by_key(|event| event.at);
        plan
    }
}

const fn short(name: &'static str, draw: fn(&mut Rng, Size) -> Plan) -> Scenario {
    Scenario { name, is_short: true, draw }
}

const fn long(name: &'static str, draw: fn(&mut Rng, Size) -> Plan) -> Scenario {
    Scenario { name, is_short: false, draw }
}

pub(crate) const SCENARIOS: [Scenario; 35] = [
    long("sick-tenth", parts::sick_tenth),
    long("six-percent", parts::six_percent),
    short("sick-burst", parts::burst),
    short("few-bad-apples", parts::few_bad),
    short("few-bad-apples-fifo", parts::few_bad_fifo),
    short("one-bad-apple", parts::one_bad),
    short("silent-twentieth", parts::silent),
    short("slow-and-sick", parts::slow_and_sick),
    short("half-away", outages::half_away),
    short("outage-then-thirty", outages::then_thirty),
    long("back-after-a-minute", outages::after_a_minute),
    long("back-after-an-hour", outages::after_an_hour),
    short("foreign-answers", outages::foreign),
    short("refusing-all", outages::refusing_all),
    short("shard-away", outages::shard_away),
    long("throttled-fifth", limits::throttled_fifth),
    long("token-bucket", limits::token_bucket),
    long("shared-bucket", limits::shared_bucket),
    short("paced-all", limits::paced_all),
    short("silent-moment", limits::silent_moment),
    short("small-service", limits::small_service),
    long("adaptive", capacity::adaptive),
    long("late-joiners", capacity::late_joiners),
    long("capacity-halved", capacity::halved),
    long("quiet-between", capacity::quiet_between),
    short("twenty-a-second", capacity::twenty),
    short("sqs-no-extend", sqs::no_extend),
    short("sqs-no-delete", sqs::no_delete),
    short("sqs-no-dead-letter", sqs::no_dead_letter),
    short("sqs-no-receive", sqs::no_receive),
    short("sqs-half-extend", sqs::half_extend),
    short("sqs-half-delete", sqs::half_delete),
    short("sqs-slow", sqs::slow),
    short("all-well", parts::all_well),
    short("order", order::order),
];
