//! The table of results: as text for the terminal, and as Markdown between two markers of a page.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use crate::case::{Seen, Verdict};

/// The line of the page before the table.
pub const BEGIN: &str = "<!-- faults: written by `make faults`, not by hand -->";
/// The line of the page after the table.
pub const END: &str = "<!-- faults: end -->";

/// Formats one line for a finished case.
#[must_use]
pub fn line(verdict: &Verdict) -> String {
    let word = if verdict.has_passed() { "ok    " } else { "FAILED" };
    let name = verdict.case.name;
    format!("{word} {name:<18} {:>5.1} s  {}", verdict.took.as_secs_f64(), seen(verdict))
}

fn seen(verdict: &Verdict) -> String {
    match &verdict.seen {
        Ok(Seen::Held(figures)) => figures.clone(),
        Ok(Seen::LeftOut(why)) => format!("LEFT OUT: {why}"),
        Err(failed) => failed.to_string(),
    }
}

/// Returns `N passed, N failed`, and whether all passed.
#[must_use]
pub fn sum(verdicts: &[Verdict]) -> (String, bool) {
    let passed = verdicts.iter().filter(|verdict| verdict.has_passed()).count();
    let failed = verdicts.len() - passed;
    (format!("{passed} passed, {failed} failed"), failed == 0)
}

/// The text before the table.
const ABOUT: &str = "Each line is a run of the release binary, with everything as its users have it but the services.";

/// The prefix of the result of a failed case.
const FAILED: &str = "**FAILED:** ";

/// Returns the table's rows by case name; rows of this run replace older ones.
fn rows(page: &str, verdicts: &[Verdict]) -> BTreeMap<String, String> {
    let table = page.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END));
    let old = table.map_or("", |(table, _)| table).lines().filter_map(|line| {
        let name = line.strip_prefix("| ")?.split_once(" | ")?.0;
        Some((name.to_owned(), line.to_owned()))
    });
    let new = verdicts.iter().map(|verdict| (verdict.case.name.to_owned(), row(verdict)));
    old.chain(new).collect()
}

fn row(verdict: &Verdict) -> String {
    let case = &verdict.case;
    let failed = if verdict.has_passed() { "" } else { FAILED };
    let seen = format!("{failed}{}", seen(verdict));
    let cells = [case.name, case.injected, case.must_hold, &seen].map(cell);
    format!("| {} | {:.0} s |", cells.join(" | "), verdict.took.as_secs_f64())
}

/// Formats the table: one row for each case that was ever run, in the order of `cases`.
fn markdown(cases: &[&str], rows: &BTreeMap<String, String>) -> String {
    let rows: Vec<&str> = cases.iter().filter_map(|name| Some(rows.get(*name)?.as_str())).collect();
    let failed = rows.iter().filter(|row| row.contains(FAILED)).count();
    let passed = rows.len() - failed;
    let rows = rows.join("\n");
    format!(
        "{ABOUT}\n\n| case | what is injected | what must hold | what was seen | time |\n| --- | --- | --- | --- | ---: |\n{rows}\n\n{passed} passed, {failed} failed\n"
    )
}

/// Escapes text for a table cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Writes the results into the table of the page at `path`. The table has rows for `cases`; rows of
/// cases that were not run stay.
///
/// # Errors
/// If the page cannot be read or written, or has no markers.
pub fn write(path: &Path, cases: &[&str], verdicts: &[Verdict]) -> io::Result<()> {
    let page = std::fs::read_to_string(path)?;
    let table = markdown(cases, &rows(&page, verdicts));
    std::fs::write(path, put(&page, (BEGIN, END), &table)?)
}

/// Returns the page with `table` between its two markers, in place of what was there.
///
/// # Errors
/// If the page has no such markers.
pub fn put(page: &str, (begin, end): (&str, &str), table: &str) -> io::Result<String> {
    let no_place = || io::Error::other(format!("the page has no lines `{begin}` and `{end}`"));
    let (before, rest) = page.split_once(begin).ok_or_else(no_place)?;
    let (_, after) = rest.split_once(end).ok_or_else(no_place)?;
    Ok(format!("{before}{begin}\n\n{table}\n{end}{after}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::failed::Failed;

    #[test]
    fn a_new_table_replaces_the_old_one() {
        let page = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nmore\n");
        let put = |page: &str, table: &str| put(page, (BEGIN, END), table);
        let new = put(&page, "new\n").unwrap();
        assert_eq!(new, format!("# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nmore\n"));
        assert_eq!(put(&new, "new\n").unwrap(), new);
        assert!(put("# Title", "new").is_err());
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }

    #[test]
    fn rows_of_skipped_cases_stay_and_rows_of_unknown_cases_go() {
        let case = |name| crate::case::Case {
            name,
            injected: "harm",
            must_hold: "all",
            is_short: false,
            run: |_| unreachable!(),
        };
        let verdict = |name, seen| Verdict { case: case(name), seen, took: Duration::from_secs(2) };
        let held = |figures: &str| Ok(Seen::Held(figures.to_owned()));
        let page = format!("{BEGIN}\n{END}\n");
        let write = |page: &str, verdicts: &[Verdict]| {
            put(page, (BEGIN, END), &markdown(&["a", "b", "c"], &rows(page, verdicts))).unwrap()
        };
        let page = write(&page, &[verdict("a", held("first")), verdict("gone", held("stale"))]);
        let failed = verdict("b", Err(Failed("lost".to_owned())));
        let page = write(&page, &[failed, verdict("a", held("two"))]);
        assert!(page.contains("| a | harm | all | two | 2 s |\n| b | harm | all | **FAILED:** lost | 2 s |\n\n1 passed, 1 failed\n"), "{page}");
        assert!(!page.contains("first") && !page.contains("stale"), "{page}");
    }
}
