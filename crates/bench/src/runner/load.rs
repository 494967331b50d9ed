//! What a contender is put under.

use std::time::Duration;

use crate::services::Source;

/// A load.
#[derive(Clone, Debug)]
pub struct Load {
    /// Its name.
    pub name: &'static str,
    /// Where messages come from.
    pub source: Source,
    /// What each call to a service takes.
    pub service: Duration,
    /// Events that a contender handles at once.
    pub concurrency: usize,
    /// How long a contender runs before it is measured, from its first effect.
    pub warm_up: Duration,
    /// How long it is measured.
    pub measured: Duration,
    /// Processes on the one queue.
    pub processes: usize,
}

impl Load {
    /// The base of all others: twenty at once, services of five milliseconds, always enough to do.
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

    /// The arguments of `services` for this load.
    #[must_use]
    pub fn services_arguments(&self) -> Vec<String> {
        let mut arguments = vec![self.service.as_micros().to_string()];
        match self.source {
            Source::Refilled { visible } => {
                arguments.extend(["refilled".to_owned(), visible.to_string()]);
            }
            Source::Rate { per_s } => arguments.extend(["rate".to_owned(), per_s.to_string()]),
            Source::Idle => arguments.push("idle".to_owned()),
        }
        arguments
    }

    /// Every load by its name. Idle and at a rate, a contender is measured for longer.
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
            "processes-2" => shared("processes-2", 2),
            "processes-3" => shared("processes-3", 3),
            "processes-4" => shared("processes-4", 4),
            _ => return None,
        })
    }
}
