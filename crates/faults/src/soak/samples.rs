//! What was measured every second, whether it is flat, and how it is written down.

use std::fmt::Write;

use crate::failed::{Failed, ensure};
use crate::worker::Usage;

/// The median of the last quarter may be this much of the second quarter's.
const GROWTH_MAX: f64 = 1.05;

/// The same in a short run, in which an allocator has not yet seen everything: a hundred bytes lost an event are still more.
const GROWTH_SHORT_MAX: f64 = 1.10;

/// One look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) second: u64,
    pub(super) usage: Usage,
    pub(super) series: u64,
    pub(super) deleted: u64,
    pub(super) faults: u64,
}

/// How a figure is read.
type Read = fn(&Sample) -> u64;

/// What must be flat: its name, how it is read, and whether it goes in steps that mean nothing in a run of a minute: pools keep as
/// many connections as calls were open at once since the last reset. There the most of the first half is the measure.
const FLAT: [(&str, Read, bool); 4] = [
    ("memory_kb", |it| it.usage.rss_kb, false),
    ("descriptors", |it| it.usage.descriptors, true),
    ("threads", |it| it.usage.threads, false),
    ("series", |it| it.series, false),
];

fn median(samples: &[Sample], read: Read) -> u64 {
    let mut values: Vec<u64> = samples.iter().map(read).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// The second quarter, and the last.
pub(super) fn quarters(samples: &[Sample]) -> (&[Sample], &[Sample]) {
    let quarter = samples.len() / 4;
    (&samples[quarter..2 * quarter], &samples[samples.len() - quarter..])
}

/// The medians of memory in both quarters, kB.
pub(super) fn memory_medians(samples: &[Sample]) -> (u64, u64) {
    let (second, last) = quarters(samples);
    (median(second, FLAT[0].1), median(last, FLAT[0].1))
}

/// One line for each that is flat.
///
/// # Errors
/// The first that is not.
pub(super) fn judge(samples: &[Sample], is_long: bool) -> Result<String, Failed> {
    ensure(samples.len() >= 8, || format!("{} samples are too few", samples.len()))?;
    let (second, last) = quarters(samples);
    let mut lines = String::new();
    for (name, read, in_steps) in FLAT {
        let (before, after) = (median(second, read), median(last, read));
        let share = number(after) / number(before).max(1.0);
        let peak = samples[..samples.len() / 2].iter().map(read).max().unwrap_or_default();
        let is_a_step = in_steps && !is_long && after <= peak;
        let share_max = if is_long { GROWTH_MAX } else { GROWTH_SHORT_MAX };
        ensure(share <= share_max || is_a_step, || {
            format!(
                "{name} grew from {before} (second quarter) to {after} (last): {share:.3} times"
            )
        })?;
        writeln!(
            lines,
            "{name:<12} {before:>8} in the second quarter, {after:>8} in the last: {share:.3} times"
        )
        .expect("a text takes everything");
    }
    Ok(lines)
}

/// All samples, a line each.
pub(super) fn csv(samples: &[Sample]) -> String {
    let mut text =
        String::from("second,memory_kb,descriptors,threads,series,events_deleted,faults\n");
    for it in samples {
        let Usage { rss_kb, descriptors, threads } = it.usage;
        let Sample { second, series, deleted, faults, .. } = it;
        writeln!(text, "{second},{rss_kb},{descriptors},{threads},{series},{deleted},{faults}")
            .expect("a text takes everything");
    }
    text
}

/// A count as a number to divide by; exact for all that is counted here.
pub(super) fn number(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(memory: impl Fn(u64) -> u64) -> Vec<Sample> {
        let usage = |second| Usage { rss_kb: memory(second), descriptors: 40, threads: 3 };
        (0..100)
            .map(|second| Sample { second, usage: usage(second), ..Sample::default() })
            .collect()
    }

    #[test]
    fn what_grows_is_told_from_what_does_not() {
        assert!(judge(&samples(|_| 10_000), true).is_ok());
        assert!(
            judge(&samples(|second| 10_000 + second % 10 * 500), true).is_ok(),
            "it comes and goes"
        );
        assert!(judge(&samples(|second| if second < 25 { 5_000 } else { 10_000 }), true).is_ok());
        let grows = samples(|second| 10_000 + second * 15);
        assert!(judge(&grows, false).is_ok(), "a little, in a short run");
        let failed = judge(&grows, true).expect_err("it grows");
        assert!(failed.0.starts_with("memory_kb grew from"), "{failed}");
        assert!(judge(&[], true).is_err());
    }

    #[test]
    fn a_line_for_each() {
        assert_eq!(csv(&samples(|_| 7)).lines().nth(3), Some("2,7,40,3,0,0,0"));
    }
}
