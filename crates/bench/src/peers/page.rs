//! Formats the results as a block of a Markdown page.

use std::fmt::Write;

use super::peer::{Outcome, Peer};
use super::row::Row;
use crate::runner::statistics::summary;

/// The line of the page before the block.
pub const BEGIN: &str = "<!-- peers: written by `make bench-peers`, not by hand -->";
/// The line of the page after the block.
pub const END: &str = "<!-- peers: end -->";

/// One run of a program in a row; an error has the cause as text.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The row.
    pub row: Row,
    /// The program's name.
    pub name: String,
    /// Its figures.
    pub outcome: Result<Outcome, String>,
}

/// Facts about the measurement.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The number of rounds.
    pub rounds: usize,
    /// The length of a measurement under load.
    pub seconds: u64,
    /// The number of cores.
    pub cores: usize,
    /// The processor's name.
    pub processor: String,
}

const HEAD: &str = "| row | program | events/s | last, s | CPU µs/event | first effect, ms | memory at most, MB | SQS calls an event | lost | done twice | called again | dead-lettered | left |\n| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |";

/// The meaning of the columns whose names do not say it.
const COLUMNS: &str = "CPU and SQS calls are those of the measured time, in rows without events a second those of the whole run, start and waiting included. \"Lost\" are events without all their effects that are in no queue; \"done twice\", events with an effect that happened twice; \"called again\", calls that had succeeded before; \"left\", events not done three minutes after the fault. Under the good loads the queue delivers each message once, and nothing is dead-lettered.";

/// Formats one run for the terminal.
#[must_use]
pub fn line(run: &Run) -> String {
    cells(run.row.name(), &run.name, &[&run.outcome]).join("  ")
}

/// Formats the block. Figures are medians of the rounds; counts are those of the worst round.
#[must_use]
pub fn block(rows: &[Row], peers: &[Peer], runs: &[Run], facts: &Facts) -> String {
    let Facts { rounds, seconds, cores, processor } = facts;
    let mut block = String::new();
    let mut put = |text: String| writeln!(block, "{text}").expect("a String takes all text");
    let versions: Vec<String> =
        peers.iter().map(|peer| format!("{}: {}", peer.name, peer.version)).collect();
    put(format!(
        "{cores} cores of {processor}. Medians of {rounds} interleaved rounds; counts are those of the worst round. {}.\n\n{HEAD}",
        versions.join("; ")
    ));
    for row in rows {
        for peer in peers {
            let of_it = |run: &&Run| run.row == *row && run.name == peer.name;
            let outcomes: Vec<_> = runs.iter().filter(of_it).map(|run| &run.outcome).collect();
            put(format!("| {} |", cells(row.name(), &peer.name, &outcomes).join(" | ")));
        }
    }
    put(String::new());
    for row in rows {
        put(format!("- `{}`: {}.", row.name(), row.about(*seconds)));
    }
    put(format!("\n{COLUMNS}"));
    block
}

fn cells(row: &str, name: &str, outcomes: &[&Result<Outcome, String>]) -> Vec<String> {
    let mut cells = vec![row.to_owned(), name.to_owned()];
    if let Some(why) = outcomes.iter().find_map(|outcome| outcome.as_ref().err()) {
        let why = why.lines().next().unwrap_or_default().replace('|', "\\|");
        cells.push(format!("failed: {why}"));
        cells.extend(vec![String::new(); 10]);
        return cells;
    }
    let all: Vec<&Outcome> = outcomes.iter().filter_map(|outcome| outcome.as_ref().ok()).collect();
    let median = |figure: fn(&Outcome) -> Option<f64>, digits: usize| {
        let found = summary(all.iter().filter_map(|outcome| figure(outcome)));
        found.map_or_else(|| "-".to_owned(), |found| format!("{:.digits$}", found.median))
    };
    let worst = |count: fn(&Outcome) -> u64| {
        all.iter().map(|outcome| count(outcome)).max().unwrap_or_default().to_string()
    };
    cells.extend([
        median(|it| it.events_per_s, 0),
        median(|it| it.last_s, 1),
        median(|it| Some(it.cpu_us), 0),
        median(|it| it.first_effect_ms, 0),
        median(|it| Some(it.rss_peak_mb), 0),
        median(|it| Some(it.sqs_calls), 2),
        worst(|it| it.fates.lost),
        worst(|it| it.fates.done_twice),
        worst(|it| it.fates.called_again),
        worst(|it| it.fates.dead_lettered),
        worst(|it| it.fates.left),
    ]);
    cells
}

#[cfg(test)]
mod tests {
    use super::super::bad::Bad;
    use super::super::fate::Fates;
    use super::super::good::Good;
    use super::*;

    const ROWS: [Row; 2] = [Row::Good(Good::AtOnce20), Row::Bad(Bad::PageWith200)];

    fn run(row: Row, name: &str, cpu_us: f64, lost: u64) -> Run {
        let fates = Fates { lost, ..Fates::default() };
        let outcome = Outcome { cpu_us, sqs_calls: 0.2, fates, ..Outcome::default() };
        Run { row, name: name.to_owned(), outcome: Ok(outcome) }
    }

    #[test]
    fn a_block_has_medians_the_worst_counts_and_failures() {
        let peer = |name: &str, version: &str| Peer {
            name: name.to_owned(),
            program: "x".into(),
            version: version.to_owned(),
        };
        let peers = [peer("ours", "1.0"), peer("other", "2.1")];
        let failed = Run {
            row: ROWS[1],
            name: "other".to_owned(),
            outcome: Err("it | ended\nmore".to_owned()),
        };
        let runs = [
            run(ROWS[0], "ours", 50.0, 0),
            run(ROWS[0], "ours", 70.0, 2),
            run(ROWS[0], "ours", 60.0, 1),
            run(ROWS[0], "other", 400.0, 0),
            run(ROWS[1], "ours", 90.0, 0),
            failed,
        ];
        let facts = Facts { rounds: 3, seconds: 20, cores: 2, processor: "P".to_owned() };
        let block = block(&ROWS, &peers, &runs, &facts);
        for line in [
            "| good-20 | ours | - | - | 60 | - | 0 | 0.20 | 2 | 0 | 0 | 0 | 0 |",
            "| good-20 | other | - | - | 400 | - | 0 | 0.20 | 0 | 0 | 0 | 0 | 0 |",
            "| page-with-200 | other | failed: it \\| ended |  |  |  |  |  |  |  |  |  |  |",
            "- `page-with-200`: 200 events; for 60 s",
            "ours: 1.0; other: 2.1.",
        ] {
            assert!(block.contains(line), "{line}\n{block}");
        }
        let columns = |line: &str| line.replace("\\|", "").matches('|').count();
        let counts: Vec<usize> =
            block.lines().filter(|line| line.starts_with('|')).map(columns).collect();
        assert_eq!(counts, [14; 6]);
    }
}
