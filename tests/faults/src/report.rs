//! The table of results: for the terminal, and as Markdown between two markers in a page.

use std::io;
use std::path::Path;

use crate::case::{Seen, Verdict};

/// The table begins after this line of the page.
pub const BEGIN: &str = "<!-- faults: written by `make faults`, not by hand -->";
/// And ends before this one.
pub const END: &str = "<!-- faults: end -->";

/// One line for a case that has ended.
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

/// `N passed, N failed`, and whether none failed.
#[must_use]
pub fn sum(verdicts: &[Verdict]) -> (String, bool) {
    let passed = verdicts.iter().filter(|verdict| verdict.has_passed()).count();
    let failed = verdicts.len() - passed;
    (format!("{passed} passed, {failed} failed"), failed == 0)
}

/// The table.
#[must_use]
pub fn markdown(verdicts: &[Verdict], about: &str) -> String {
    let mut table = format!(
        "{about}\n\n| case | what is injected | what must hold | what was seen | time |\n| --- | --- | --- | --- | ---: |\n"
    );
    for verdict in verdicts {
        let case = &verdict.case;
        let cells = [case.name, case.injected, case.must_hold, &seen(verdict)].map(cell);
        table += &format!("| {} | {:.0} s |\n", cells.join(" | "), verdict.took.as_secs_f64());
    }
    table += &format!("\n{}\n", sum(verdicts).0);
    table
}

/// Text that fits a cell.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// Puts the table into the page at `path`, in place of the one that is there.
///
/// # Errors
/// Where the page cannot be read or written, or has no place for it.
pub fn write(path: &Path, table: &str) -> io::Result<()> {
    let page = std::fs::read_to_string(path)?;
    std::fs::write(path, put(&page, table)?)
}

fn put(page: &str, table: &str) -> io::Result<String> {
    let no_place = || io::Error::other(format!("the page has no lines `{BEGIN}` and `{END}`"));
    let (before, rest) = page.split_once(BEGIN).ok_or_else(no_place)?;
    let (_, after) = rest.split_once(END).ok_or_else(no_place)?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_table_takes_the_place_of_the_one_before() {
        let page = format!("# Title\n\n{BEGIN}\nold\n{END}\n\nmore\n");
        let new = put(&page, "new\n").unwrap();
        assert_eq!(new, format!("# Title\n\n{BEGIN}\n\nnew\n\n{END}\n\nmore\n"));
        assert_eq!(put(&new, "new\n").unwrap(), new);
        assert!(put("# Title", "new").is_err());
        assert_eq!(cell("a|b\nc"), "a\\|b c");
    }
}
