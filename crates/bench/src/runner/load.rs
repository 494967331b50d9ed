//! The loads that contenders are measured under.

use std::time::Duration;

use crate::services::Source;

/// A load.
#[derive(Clone, Debug)]
pub struct Load {
    /// The name of the load.
    pub name: &'static str,
    /// The source of messages.
    pub source: Source,
    /// The duration of each call to a service.
    pub service: Duration,
    /// Events that a contender handles concurrently.
    pub concurrency: usize,
    /// Time from the first effect to the start of the measurement.
    pub warm_up: Duration,
    /// Duration of the measurement.
    pub measured: Duration,
    /// Processes on the same queue.
    pub processes: usize,
}

impl Load {
    /// Returns the base of all other loads: concurrency 20, services of 5 ms, always a backlog.
    #[must_use]
    pub const fn saturated(name: &'static str) -> Self {
        Self {
            name,
            source: Source::Refilled { visible: 1_000 },
            service: Duration::from_millis(5),
            concurrency: 20,
            warm_up: Duration::from_millis(1_500),
            measured: Duration::from_secs(4),
            processes: 1,
        }
    }

    /// Returns the arguments of `services` for this load.
    #[must_use]
    pub fn services_arguments(&self) -> Vec<String> {
        let mut arguments = vec![self.service.as_micros().to_string()];
        match self.source {
            Source::Refilled { visible } => {
                arguments.extend(["refilled".to_owned(), visible.to_string()]);
            }
            Source::Rate { per_s } => arguments.extend(["rate".to_owned(), per_s.to_string()]),
            Source::Burst { messages } => {
                arguments.extend(["burst".to_owned(), messages.to_string()]);
            }
            Source::Idle => arguments.push("idle".to_owned()),
        }
        arguments
    }

    /// Returns a load by its name. The measurement is longer for idle and rate loads.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let saturated = |name| Self::saturated(name);
        let rate = |name, per_s| Self {
            source: Source::Rate { per_s },
            measured: Duration::from_secs(8),
            ..Self::saturated(name)
        };
        let backlog =
            |name, visible| Self { source: Source::Refilled { visible }, ..Self::saturated(name) };
        let shared = |name, processes| Self { processes, ..Self::saturated(name) };
        Some(match name {
            "idle" => Self {
                source: Source::Idle,
                measured: Duration::from_secs(120),
                ..saturated("idle")
            },
            "rate-50" => rate("rate-50", 50),
            "rate-500" => rate("rate-500", 500),
            "saturated-20" => saturated("saturated-20"),
            "saturated-100" => Self { concurrency: 100, ..saturated("saturated-100") },
            "cpu-bound" => {
                Self { concurrency: 200, service: Duration::ZERO, ..saturated("cpu-bound") }
            }
            "backlog-1000" => backlog("backlog-1000", 1_000),
            "backlog-10000" => backlog("backlog-10000", 10_000),
            "backlog-100000" => backlog("backlog-100000", 100_000),
            "burst-10000" => Self {
                source: Source::Burst { messages: 10_000 },
                warm_up: Duration::ZERO,
                // At most; it ends with the last event.
                measured: Duration::from_secs(60),
                ..saturated("burst-10000")
            },
            "processes-2" => shared("processes-2", 2),
            "processes-3" => shared("processes-3", 3),
            "processes-4" => shared("processes-4", 4),
            _ => return None,
        })
    }
}
