//! What will happen in a run, and what must hold of it: data only. Which of it is drawn from the seed is the scenarios' to say.

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

/// What is expected of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Grade {
    /// Done in time.
    Good,
    /// Done before the run ends, as it has to wait for others.
    Late,
    /// Nothing: it may be dead-lettered, or wait for ever.
    Bad,
}

#[derive(Clone, Debug)]
pub(crate) struct EventSpec {
    /// When its sender hands it to the queue.
    pub(crate) at: Duration,
    pub(crate) reservation: u32,
    /// Which part of the reservations it belongs to; faults may hit one part only. 0 is the healthy one.
    pub(crate) part: u8,
    pub(crate) grade: Grade,
    /// Whether the Inventory service is needed too.
    pub(crate) seats: bool,
    pub(crate) group: Option<u32>,
    /// The body is no event.
    pub(crate) poison: bool,
}

/// In place of success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// 503; UNAVAILABLE.
    Away,
    /// The same, with the time at which to come back.
    AwayUntil(Duration),
    /// 500; INTERNAL.
    Failing,
    /// 500 with a time; ABORTED with `RetryInfo`.
    FailingUntil(Duration),
    /// 422 with the API's error body; FAILED_PRECONDITION.
    Refused,
    /// 403; PERMISSION_DENIED.
    Forbidden,
    /// 429; RESOURCE_EXHAUSTED. With or without a time.
    Paced(Option<Duration>),
    /// That status without the API's error body; UNIMPLEMENTED.
    Foreign(u16),
    /// 200 with a body that is not JSON; an answer that is not gRPC.
    Html,
    /// No answer.
    Silent,
}

/// Which calls a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Who {
    All,
    Part(u8),
    /// That many of a hundred calls.
    Random(u8),
}

/// From one time to another, some calls of a service fail.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fault {
    pub(crate) side: Side,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    pub(crate) who: Who,
    pub(crate) trouble: Trouble,
}

/// From then on, that many calls are served at once, each for so long; the others wait in one line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stage {
    pub(crate) from: Duration,
    pub(crate) servers: usize,
    pub(crate) service_time: Duration,
}

/// A limit of so many calls a second.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    pub(crate) per_s: f64,
    pub(crate) capacity: f64,
    pub(crate) retry_after: Duration,
}

#[derive(Clone, Debug)]
pub(crate) struct ServicePlan {
    /// What a call takes beside its service time.
    pub(crate) latency: (Duration, Duration),
    /// What an answer that says no takes, where that is another time.
    pub(crate) fails_in: Option<Duration>,
    /// The client's.
    pub(crate) timeout: Duration,
    /// What the engine is told that an attempt should take.
    pub(crate) target: Option<Duration>,
    /// Empty: any number is served at once.
    pub(crate) stages: Vec<Stage>,
    pub(crate) bucket: Option<Bucket>,
}

/// What is done to SQS.
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
    /// Takes that long.
    Slow(Duration),
    /// That many of a hundred entries fail.
    Partly(u8),
}

/// From one time to another, one action of SQS is not what it should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SqsFault {
    pub(crate) action: Action,
    pub(crate) from: Duration,
    pub(crate) to: Duration,
    pub(crate) trouble: SqsTrouble,
}

/// Where events are remembered.
#[derive(Clone, Debug)]
pub(crate) enum StorePlan {
    /// In each process.
    Memory,
    /// In three shards that all processes share; one of them is away from one time to another.
    Shards { away: u16, from: Duration, to: Duration },
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) scenario: &'static str,
    pub(crate) seed: u64,
    /// What the seed chose, in words.
    pub(crate) choice: String,
    /// When each process starts.
    pub(crate) starts: Vec<Duration>,
    pub(crate) settings: AppSettings,
    pub(crate) calls_min: usize,
    /// By [`Side`].
    pub(crate) services: [ServicePlan; 2],
    pub(crate) faults: Vec<Fault>,
    pub(crate) sqs: Vec<SqsFault>,
    pub(crate) max_receives: u32,
    pub(crate) store: StorePlan,
    /// In the order of their times.
    pub(crate) events: Vec<EventSpec>,
    /// The run ends when all that are to be done are, but not before the one time, and at the other whatever is left.
    pub(crate) lasts: (Duration, Duration),
    /// Good events that may be in the dead-letter queue.
    pub(crate) dead_letters_max: usize,
    pub(crate) bounds: Vec<Bound>,
}

impl Plan {
    /// In half of the runs calls that go well take so long, and those that fail a moment.
    pub(crate) fn slow_where_well(&mut self, rng: &mut Rng, latency: Duration) {
        if rng.bool() {
            return;
        }
        for service in &mut self.services {
            service.latency = (latency, latency);
            service.fails_in = Some(millis(1));
        }
    }

    /// The worker's defaults, one process, services that are quick and well, no events.
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
            events: Vec::new(),
            lasts: (Duration::ZERO, secs(600)),
            dead_letters_max: 0,
            bounds: Vec::new(),
        }
    }

    /// That many processes, started within a second, which is what a roll-out of pods that were waited for looks like.
    pub(crate) fn processes(&mut self, rng: &mut Rng, count: usize) {
        self.starts = (0..count).map(|_| millis(rng.u64(0..1_000))).collect();
    }

    pub(crate) fn fault(&mut self, side: Side, who: Who, trouble: Trouble, times: Times) {
        self.faults.push(Fault { side, from: times.0, to: times.1, who, trouble });
    }

    /// One more event of a reservation of its own.
    pub(crate) fn event(&mut self, at: Duration) -> &mut EventSpec {
        let reservation = u32::try_from(self.events.len()).expect("few events");
        self.events.push(EventSpec {
            at,
            reservation,
            part: 0,
            grade: Grade::Good,
            seats: true,
            group: None,
            poison: false,
        });
        self.events.last_mut().expect("it was pushed")
    }

    /// So many events a second, at random times.
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

/// From the first to the second.
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
