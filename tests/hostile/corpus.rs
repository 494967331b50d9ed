//! Reads `tests/corpus/`: its README says how the files are written. What must hold of a case is left to the tests.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// One body, and what it must get.
#[derive(Debug)]
pub(crate) struct Case {
    /// File and name: where to look when it fails.
    pub name: String,
    /// What it must get.
    pub expected: Expected,
    /// Message attributes that come with it, the X-Ray header among them as `AWSTraceHeader`.
    pub attributes: Vec<(String, String)>,
    /// The body, everything expanded.
    pub body: String,
}

/// What a body must get.
#[derive(Debug)]
pub(crate) enum Expected {
    /// An event with these facts.
    Event(Map<String, Value>),
    /// Nothing to be done, as the payment has this status, quoted.
    NoChange(String),
    /// Poison, for this reason, whose detail contains this.
    Poison {
        /// As the worker names it in `dlq_reason`.
        reason: String,
        /// Part of the detail.
        says: String,
    },
}

/// Every case of the folder, file by file.
///
/// # Panics
/// Where a file is not written as the README says.
pub(crate) fn read(folder: &Path) -> Vec<Case> {
    let entries = fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    let cases = files.iter().flat_map(|path| {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let file = path.file_name().expect("a file").to_string_lossy().into_owned();
        // What stands before the first case says what the file is about.
        text.split("\n== ").skip(1).map(|text| case(&file, text)).collect::<Vec<_>>()
    });
    cases.collect()
}

fn case(file: &str, text: &str) -> Case {
    let mut lines = text.lines();
    let name = format!("{file}: {}", lines.next().unwrap_or_default());
    let outcome = lines.next().unwrap_or_else(|| panic!("{name}: no outcome"));
    let expected = expected(&name, outcome);
    let mut attributes = Vec::new();
    let mut rest = lines.clone();
    while let Some(attribute) = rest.next().and_then(|line| line.strip_prefix('@')) {
        let (key, value) = attribute.split_once(' ').unwrap_or((attribute, ""));
        attributes.push((key.to_owned(), expand(&name, value)));
        lines.next();
    }
    let body = lines.collect::<Vec<_>>().join("\n");
    Case { expected, attributes, body: expand(&name, body.trim_end_matches('\n')), name }
}

fn expected(name: &str, outcome: &str) -> Expected {
    if let Some(facts) = outcome.strip_prefix("event ") {
        let facts = serde_json::from_str(&expand(name, facts));
        return Expected::Event(facts.unwrap_or_else(|e| panic!("{name}: {outcome}: {e}")));
    }
    if let Some(status) = outcome.strip_prefix("no_change ") {
        return Expected::NoChange(status.to_owned());
    }
    let (reason, says) = outcome.split_once(' ').unwrap_or((outcome, ""));
    assert!(!says.is_empty(), "{name}: an outcome says what the detail must contain: {outcome}");
    Expected::Poison { reason: reason.to_owned(), says: says.to_owned() }
}

/// Replaces `<<U+0000>>` with that character, and `<<3 ab>>` with `ababab`.
fn expand(name: &str, text: &str) -> String {
    let mut parts = text.split("<<");
    let mut all = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (rule, rest) = part.split_once(">>").unwrap_or_else(|| panic!("{name}: << without >>"));
        let made = match (rule.strip_prefix("U+"), rule.split_once(' ')) {
            (Some(code), _) => {
                u32::from_str_radix(code, 16).ok().and_then(char::from_u32).map(String::from)
            }
            (None, Some((times, text))) => times.parse().ok().map(|times| text.repeat(times)),
            (None, None) => None,
        };
        all += &made.unwrap_or_else(|| panic!("{name}: no such rule: <<{rule}>>"));
        all += rest;
    }
    all
}
