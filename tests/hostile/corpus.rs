//! Reads `tests/corpus/`, whose README describes the format. The checks of a case are left to the
//! tests.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

/// One body and its expected result.
#[derive(Debug)]
pub(crate) struct Case {
    /// The file and the case's name.
    pub name: String,
    /// The expected result.
    pub expected: Expected,
    /// The message attributes, with the X-Ray header as `AWSTraceHeader`.
    pub attributes: Vec<(String, String)>,
    /// The body, expanded.
    pub body: String,
}

/// The expected result of a body.
#[derive(Debug)]
pub(crate) enum Expected {
    /// An event with these facts.
    Event(Map<String, Value>),
    /// An event without effect: the payment's status, quoted.
    NoChange(String),
    /// Poison with this reason, whose detail contains this text.
    Poison {
        /// The reason as in `dlq_reason`.
        reason: String,
        /// A part of the detail.
        says: String,
    },
}

/// Returns the cases of all files of the folder.
///
/// # Panics
/// If a file does not follow the format.
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
        // The text before the first case describes the file.
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
    assert!(!says.is_empty(), "{name}: the outcome has no part of the detail: {outcome}");
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
