//! The output of the demo: a progress line during the run and a table at the end.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

use super::balance::Balance;
use super::envelope::Envelope;
use super::workload::{Kind, Planned};

/// Maximum number of printed problems; a run with one systematic fault needs no more.
const PROBLEMS_SHOWN: usize = 20;
/// Keeps the line within 80 columns, which redrawing needs.
const BAR_WIDTH: usize = 10;
/// Interval of progress lines if stdout is not a terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// The progress of a run, from the queue's counts and the stand-ins' ledger.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Messages to send in total.
    pub messages: usize,
    /// Messages that have left the queue.
    pub settled: usize,
    /// Calls that the services received.
    pub calls: u64,
    /// Repeated calls with the same idempotency key.
    pub retried: u64,
    /// Messages in the dead-letter queue.
    pub dead_lettered: usize,
}

/// The output on stdout.
#[derive(Debug)]
pub struct Screen {
    terminal: bool,
    last_line: Option<Instant>,
    line_is_open: bool,
}

impl Default for Screen {
    fn default() -> Self {
        Self { terminal: io::stdout().is_terminal(), last_line: None, line_is_open: false }
    }
}

impl Screen {
    /// Prints a line.
    ///
    /// # Errors
    ///
    /// If stdout cannot be written.
    pub fn line(&mut self, text: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.line_is_open {
            writeln!(out)?;
            self.line_is_open = false;
        }
        writeln!(out, "{text}")
    }

    /// Shows the progress: redrawn in place on a terminal, otherwise one line per second.
    ///
    /// # Errors
    ///
    /// If stdout cannot be written.
    pub fn progress(&mut self, progress: &Progress) -> io::Result<()> {
        let text = progress_line(progress);
        if self.terminal {
            let mut out = io::stdout().lock();
            write!(out, "\r\x1b[2K{text}")?;
            self.line_is_open = true;
            return out.flush();
        }
        if self.last_line.is_some_and(|last| last.elapsed() < LINE_EVERY) {
            return Ok(());
        }
        self.last_line = Some(Instant::now());
        self.line(&text)
    }
}

fn progress_line(progress: &Progress) -> String {
    let Progress { messages, settled, calls, retried, dead_lettered } = progress;
    let filled = (settled * BAR_WIDTH).checked_div(*messages).unwrap_or(0).min(BAR_WIDTH);
    let bar = "#".repeat(filled) + &".".repeat(BAR_WIDTH - filled);
    format!(
        "  [{bar}] {settled}/{messages} settled, {calls} calls, {retried} retried, {dead_lettered} dead-lettered"
    )
}

/// Formats the table at the end.
#[must_use]
pub fn table(events: &[Planned], messages: usize, balance: &Balance) -> String {
    let mut rows: Vec<(String, String, String)> = Vec::new();
    let mut row =
        |name: &str, value: String, note: String| rows.push((name.to_owned(), value, note));
    row(
        "events in",
        events.len().to_string(),
        format!("in {messages} messages, duplicates and 1 poison included"),
    );
    for envelope in Envelope::ALL {
        let count = events.iter().filter(|event| event.envelope == envelope).count();
        row(&format!("  {}", envelope.as_str()), count.to_string(), String::new());
    }
    row("effects", balance.effects.values().sum::<usize>().to_string(), "each once".to_owned());
    for kind in Kind::ALL {
        let of_kind = balance.effects.iter().filter(|((of, _), _)| *of == kind);
        let note: Vec<String> =
            of_kind.clone().map(|((_, effect), count)| format!("{effect} {count}")).collect();
        let sum: usize = of_kind.map(|(_, count)| count).sum();
        row(&format!("  {}", kind.as_str()), sum.to_string(), note.join(", "));
    }
    row("retried", balance.retried.to_string(), "calls made again with the same key".to_owned());
    row(
        "dropped as duplicate",
        balance.dropped_duplicates.to_string(),
        "sent twice, in effect once".to_owned(),
    );
    row(
        "dropped as superseded",
        balance.dropped_superseded.to_string(),
        "sold before, so not released".to_owned(),
    );
    let poison_alone = balance.dead_lettered == 1 && balance.holds();
    let note = if poison_alone { "the poison message" } else { "" };
    row("dead-lettered", balance.dead_lettered.to_string(), note.to_owned());
    row("lost", balance.lost.to_string(), String::new());
    let latency =
        |percent| balance.percentile(percent).map_or_else(|| "-".to_owned(), milliseconds);
    row("latency p50", latency(50), "from sending to last effect, queue included".to_owned());
    row("latency p99", latency(99), String::new());
    align(&rows)
}

/// Formats the problems, one per line.
#[must_use]
pub fn problems(balance: &Balance) -> String {
    let mut text = String::new();
    for problem in balance.problems.iter().take(PROBLEMS_SHOWN) {
        text.push_str(&format!("  {problem}\n"));
    }
    let more = balance.problems.len().saturating_sub(PROBLEMS_SHOWN);
    if more > 0 {
        text.push_str(&format!("  and {more} more\n"));
    }
    text
}

fn milliseconds(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

fn align(rows: &[(String, String, String)]) -> String {
    let names = rows.iter().map(|row| row.0.len()).max().unwrap_or(0);
    let values = rows.iter().map(|row| row.1.len()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value, note) in rows {
        let line = format!("  {name:<names$}  {value:>values$}  {note}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::workload::Workload;

    #[test]
    fn the_bar_fills_and_does_not_overflow() {
        let at =
            |settled| progress_line(&Progress { messages: 10, settled, ..Progress::default() });
        assert!(at(0).contains(&format!("[{}]", ".".repeat(BAR_WIDTH))));
        assert!(at(5).contains("[#####.....] 5/10"));
        assert!(at(12).contains(&format!("[{}]", "#".repeat(BAR_WIDTH))));
        assert!(progress_line(&Progress::default()).contains("0/0"));
    }

    #[test]
    fn the_table_is_aligned_and_has_every_figure() {
        let load = Workload::new(40, 1);
        let text = table(&load.events, load.messages(), &Balance::default());
        for name in [
            "events in",
            "effects",
            "retried",
            "duplicate",
            "superseded",
            "dead-lettered",
            "lost",
            "p50",
            "p99",
        ] {
            assert!(text.contains(name), "{name}\n{text}");
        }
        let lost = text
            .lines()
            .find(|line| line.contains("lost"))
            .expect("the table has a row for lost events");
        assert!(lost.ends_with(" 0"), "{lost}");
    }
}
