//! Good loads: always a backlog, services that answer in 5 ms.

use std::time::Duration;

use faults::failed::Failed;

use super::fate::Fates;
use super::peer::{Outcome, Peer, Setting, variables};
use crate::runner::budget::sqs_calls;
use crate::runner::contender::Contender;
use crate::runner::load::Load;
use crate::runner::round;

/// How many events are handled at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Good {
    /// `WORKER_CONCURRENCY=20`.
    AtOnce20,
    /// `WORKER_CONCURRENCY=100`.
    AtOnce100,
}

impl Good {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::AtOnce20 => "good-20",
            Self::AtOnce100 => "good-100",
        }
    }

    pub(super) fn about(self, seconds: u64) -> String {
        let load = self.load(seconds);
        format!(
            "always a backlog, both services answer in {} ms, WORKER_CONCURRENCY={}; {seconds} s, after {} s to warm up",
            load.service.as_millis(),
            load.concurrency,
            load.warm_up.as_secs()
        )
    }

    fn load(self, seconds: u64) -> Load {
        let concurrency = match self {
            Self::AtOnce20 => 20,
            Self::AtOnce100 => 100,
        };
        // A program that is compiled while it runs is slow at first.
        let warm_up = Duration::from_secs(seconds / 2);
        let measured = Duration::from_secs(seconds);
        Load { concurrency, warm_up, measured, ..Load::saturated(self.name()) }
    }
}

pub(super) fn run(good: Good, peer: &Peer, setting: &Setting<'_>) -> Result<Outcome, Failed> {
    let contender = Contender::new(&peer.name, &peer.program);
    let contender = variables().fold(contender, |it, (name, value)| it.with(name, &value));
    let round = round::run(&contender, &good.load(setting.seconds), setting.own)?;
    Ok(Outcome {
        events_per_s: Some(round.events_per_s),
        last_s: None,
        cpu_us: round.cpu_us,
        first_effect_ms: Some(round.first_effect_ms),
        rss_peak_mb: round.rss_peak_mb,
        sqs_calls: sqs_calls(&round),
        fates: Fates {
            lost: round.figures.lost,
            done_twice: round.figures.done_twice,
            ..Fates::default()
        },
    })
}
