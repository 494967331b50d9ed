//! The samples of each second, the check for growth, and the CSV output.

use std::fmt::Write;

use crate::failed::{Failed, ensure};
use crate::worker::Usage;

/// Maximum ratio of the last quarter's median to the second quarter's.
const GROWTH_MAX: f64 = 1.05;

/// The same in a short run, in which the allocator has not yet settled. A leak of a hundred bytes
/// per event is still above it.
const GROWTH_SHORT_MAX: f64 = 1.10;

/// One sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) second: u64,
    pub(super) usage: Usage,
    pub(super) series: u64,
    pub(super) deleted: u64,
    pub(super) faults: u64,
}

/// Reads one figure of a sample.
type Read = fn(&Sample) -> u64;

/// Figures that must not grow: name, reader, and whether steps are allowed in a short run. Pools
/// keep as many connections as calls were open since the last reset, so there the limit is the
/// maximum of the first half.
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

/// Returns the second and the last quarter.
pub(super) fn quarters(samples: &[Sample]) -> (&[Sample], &[Sample]) {
    let quarter = samples.len() / 4;
    (&samples[quarter..2 * quarter], &samples[samples.len() - quarter..])
}

/// Returns the median memory of both quarters in kB.
pub(super) fn memory_medians(samples: &[Sample]) -> (u64, u64) {
    let (second, last) = quarters(samples);
    (median(second, FLAT[0].1), median(last, FLAT[0].1))
}

/// Returns one line per figure.
///
/// # Errors
/// The first figure that grew.
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
        .expect("writing to a String never fails");
    }
    Ok(lines)
}

/// Formats all samples, one per line.
pub(super) fn csv(samples: &[Sample]) -> String {
    let mut text =
        String::from("second,memory_kb,descriptors,threads,series,events_deleted,faults\n");
    for it in samples {
        let Usage { rss_kb, descriptors, threads } = it.usage;
        let Sample { second, series, deleted, faults, .. } = it;
        writeln!(text, "{second},{rss_kb},{descriptors},{threads},{series},{deleted},{faults}")
            .expect("writing to a String never fails");
    }
    text
}

/// Converts a count for a division; exact for all counts here.
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
    fn growth_is_told_from_fluctuation() {
        assert!(judge(&samples(|_| 10_000), true).is_ok());
        assert!(
            judge(&samples(|second| 10_000 + second % 10 * 500), true).is_ok(),
            "fluctuation is not growth"
        );
        assert!(judge(&samples(|second| if second < 25 { 5_000 } else { 10_000 }), true).is_ok());
        let grows = samples(|second| 10_000 + second * 15);
        assert!(judge(&grows, false).is_ok(), "slow growth is allowed in a short run");
        let failed = judge(&grows, true).expect_err("it grows");
        assert!(failed.0.starts_with("memory_kb grew from"), "{failed}");
        assert!(judge(&[], true).is_err());
    }

    #[test]
    fn csv_has_one_line_per_sample() {
        assert_eq!(csv(&samples(|_| 7)).lines().nth(3), Some("2,7,40,3,0,0,0"));
    }
}
