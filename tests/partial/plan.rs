//! The contents of a run and its bounds, as data. The scenarios decide what is drawn from the seed.

use std::time::Duration;

use fastrand::Rng;
use reservation_worker::app::AppSettings;
use reservation_worker::retry::Backoff;
use reservation_worker::settle::RetryPolicy;

use super::judge::Bound;

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) const fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Longer than any run.
pub(crate) const NEVER: Duration = secs(1_000_000);

/// One of the two services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Api,
    Inventory,
}

impl Side {
    pub(crate) const BOTH: [Self; 2] = [Self::Api, Self::Inventory];

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Api => 0,
            Self::Inventory => 1,
        }
    }
}

/// The expectation for an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grade {
    /// It is done in time.
    Good,
    /// It waits for others, and is done before the run ends.
    Late,
    /// None: it may be dead-lettered or wait forever.
    Bad,
}

#[derive(Clone, Debug)]
pub(crate) struct EventSpec {
    /// The time at which it is sent to the queue.
    pub(crate) at: Duration,
    /// How much later it can be received.
    pub(crate) late: Duration,
    pub(crate) reservation: u32,
    /// The part of the reservations to which it belongs. A fault may affect one part only; part 0
    /// has no faults of its own.
    pub(crate) part: u8,
    pub(crate) grade: Grade,
    /// Whether the event needs the Inventory service too.
    pub(crate) seats: bool,
    pub(crate) group: Option<u32>,
    /// Whether the body is invalid.
    pub(crate) poison: bool,
    /// A payment failed: that is why seats are released.
    pub(crate) is_payment: bool,
}

/// The failure of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// 503; UNAVAILABLE.
    Away,
    /// The same, with a retry time.
    AwayUntil(Duration),
    /// 500; INTERNAL.
    Failing,
    /// 500 with a retry time; ABORTED with `RetryInfo`.
    FailingUntil(Duration),
    /// 422 with the API's error body; FAILED_PRECONDITION.
    Refused,
    /// 403; PERMISSION_DENIED.
    Forbidden,
    /// 429; RESOURCE_EXHAUSTED. With or without a retry time.
    Paced(Option<Duration>),
    /// That status without the API's error body; UNIMPLEMENTED.
    Foreign(u16),
    /// 200 with a body that is not JSON; a response that is not gRPC.
    Html,
    /// No response.
    Silent,
}

/// The calls that a fault affects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    All,
    Part(u8),
    /// That percentage of the calls.
    Random(u8),
}

/// A failure of some calls to a service between two times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) side: Side,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    pub(crate) who: Who,
    pub(crate) trouble: Trouble,
}

/// The capacity of a service from that time on: the number of calls that are served at once, and
/// the time for each. All others wait in one queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) from: Duration,
    pub(crate) servers: usize,
    pub(crate) service_time: Duration,
}

/// A rate limit.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    pub(crate) per_s: f64,
    pub(crate) capacity: f64,
    pub(crate) retry_after: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct ServicePlan {
    /// The duration of a call beside its service time.
    pub(crate) latency: (Duration, Duration),
    /// The duration of a failed call, if it differs.
    pub(crate) fails_in: Option<Duration>,
    /// The client's timeout.
    pub(crate) timeout: Duration,
    /// The latency target in the engine's settings.
    pub(crate) target: Option<Duration>,
    /// Empty: the number of calls served at once has no limit.
    pub(crate) stages: Vec<Stage>,
    pub(crate) bucket: Option<Bucket>,
}

/// An action of SQS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Receive,
    Extend,
    Delete,
    DeadLetter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SqsTrouble {
    Denied,
    Throttled,
    Failing,
    /// Takes that much longer.
    Slow(Duration),
    /// That percentage of the entries fails.
    Partly(u8),
}

/// A fault of one action of SQS between two times.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SqsFault {
    pub(crate) action: Action,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    pub(crate) trouble: SqsTrouble,
}

/// The store of the events' records.
#[derive(Clone, Debug)]
pub(crate) enum StorePlan {
    /// One in-memory store per process.
    Memory,
    /// Three shards shared by all processes. One of them is down between two times.
    Shards { away: u16, from: Duration, to: Duration },
}

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is gone at once, and another one is started in its place.
    Killed,
    /// It is told to stop, and another one is started in its place.
    Stopped,
    /// Nothing leaves it or reaches it. Its timers run.
    Frozen,
}

/// From one time to another, a process is not what it should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProcessFault {
    pub(crate) process: usize,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    pub(crate) fate: Fate,
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: &'static str,
    pub(crate) seed: u64,
    /// The seed's choices as text.
    pub(crate) choice: String,
    /// The start time of each process.
    pub(crate) starts: Vec<Duration>,
    pub(crate) settings: AppSettings,
    pub(crate) calls_min: usize,
    /// By [`Side`].
    pub(crate) services: [ServicePlan; 2],
    pub(crate) faults: Vec<Fault>,
    pub(crate) sqs: Vec<SqsFault>,
    pub(crate) max_receives: u32,
    pub(crate) store: StorePlan,
    /// Whether processes share the order of a reservation's events. Then they share the store.
    pub(crate) is_ordered: bool,
    pub(crate) fates: Vec<ProcessFault>,
    /// Sorted by time.
    pub(crate) events: Vec<EventSpec>,
    /// The run ends between these times: as soon as all events that are to be done are done, and at
    /// the second time in any case.
    pub(crate) lasts: (Duration, Duration),
    /// The number of good events that may be in the dead-letter queue.
    pub(crate) dead_letters_max: usize,
    pub(crate) bounds: Vec<Bound>,
}

impl Plan {
    /// For half of the seeds, sets the latency of successful calls, and a short duration of failed
    /// calls.
    pub(crate) fn slow_where_well(&mut self, rng: &mut Rng, latency: Duration) {
        if rng.bool() {
            return;
        }
        for service in &mut self.services {
            service.latency = (latency, latency);
            service.fails_in = Some(millis(1));
        }
    }

    /// A plan with the worker's default settings, one process, fast services without faults, and no
    /// events.
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let most = rng.u64(4..=12);
        let service = |timeout| ServicePlan {
            latency: (millis(2), millis(most)),
            fails_in: None,
            timeout,
            target: None,
            stages: Vec::new(),
            bucket: None,
        };
        Self {
            scenario: "",
            seed: 0,
            choice: String::new(),
            starts: vec![Duration::ZERO],
            settings: settings(),
            calls_min: 2,
            services: [service(secs(5)), service(secs(2))],
            faults: Vec::new(),
            sqs: Vec::new(),
            max_receives: 10,
            store: StorePlan::Memory,
            is_ordered: false,
            fates: Vec::new(),
            events: Vec::new(),
            lasts: (Duration::ZERO, secs(600)),
            dead_letters_max: 0,
            bounds: Vec::new(),
        }
    }

    /// Sets the number of processes. They start within one second, as in a rollout of pods.
    pub(crate) fn processes(&mut self, rng: &mut Rng, count: usize) {
        self.starts = (0..count).map(|_| millis(rng.u64(0..1_000))).collect();
    }

    /// When a process that is frozen now goes on.
    pub(crate) fn frozen_until(&self, process: usize, now: Duration) -> Option<Duration> {
        let is_on = |fault: &&ProcessFault| {
            fault.fate == Fate::Frozen
                && fault.process == process
                && fault.from <= now
                && now < fault.to
        };
        self.fates.iter().find(is_on).map(|fault| fault.to)
    }

    pub(crate) fn fault(&mut self, side: Side, who: Who, trouble: Trouble, times: Times) {
        self.faults.push(Fault { side, from: times.0, to: times.1, who, trouble });
    }

    /// Adds an event with a reservation of its own.
    pub(crate) fn event(&mut self, at: Duration) -> &mut EventSpec {
        let reservation = u32::try_from(self.events.len()).expect("the number is small");
        self.events.push(EventSpec {
            at,
            late: Duration::ZERO,
            reservation,
            part: 0,
            grade: Grade::Good,
            seats: true,
            group: None,
            poison: false,
            is_payment: false,
        });
        self.events.last_mut().expect("an event was added")
    }

    /// Adds events at random times, at that rate. Returns the index of the first.
    pub(crate) fn steady(&mut self, rng: &mut Rng, per_s: f64, times: Times) -> usize {
        let first = self.events.len();
        let mut at = times.0.as_secs_f64();
        loop {
            at += -(1.0 - rng.f64()).ln() / per_s;
            if at >= times.1.as_secs_f64() {
                return first;
            }
            self.event(Duration::from_secs_f64(at));
        }
    }
}

/// A period, from the first time to the second.
pub(crate) type Times = (Duration, Duration);

fn settings() -> AppSettings {
    AppSettings {
        queue_name: "simulated".to_owned(),
        wait: secs(20),
        visibility: secs(30),
        concurrency: 20,
        in_flight_max: 1_000,
        in_flight_bytes_max: 64 << 20,
        policy: RetryPolicy { retries_max: 5, backoff: Backoff { base: secs(1), cap: secs(30) } },
        call_timeout_max: secs(5),
    }
}

pub(crate) fn pick<T: Copy>(rng: &mut Rng, of: &[T]) -> T {
    of[rng.usize(0..of.len())]
}
