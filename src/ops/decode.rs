//! `reservation-worker decode`: what the worker would do with a body, without doing it.
//!
//! It uses the worker's own decoder. It needs no network, no configuration and no credentials.

mod input;
mod report;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::process::ExitCode;

use self::input::{GivenBody, InputError, bodies, next_line, read};
use self::report::Report;
use super::text;
use crate::cli::DecodeArgs;
use crate::event::decode_in_envelopes;
use crate::run::EXIT_USAGE;

/// Decodes what `arguments` name, and writes to `out` what the worker would do.
///
/// The exit code is 0 if the worker accepts every body, 1 if it refuses one, 2 if there is nothing
/// that can be read.
pub fn decode(arguments: &DecodeArgs, out: &mut impl Write) -> ExitCode {
    let file = arguments.file.as_deref().filter(|file| file.as_os_str() != "-");
    let are_accepted = match file {
        None => decode_all(&mut io::stdin().lock(), arguments, out),
        Some(file) => match File::open(file) {
            Ok(file) => decode_all(&mut BufReader::new(file), arguments, out),
            Err(why) => Err(why.into()),
        },
    };
    match are_accepted {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            let name = file.map_or_else(
                || "standard input".to_owned(),
                |file| text::quoted(&file.to_string_lossy()),
            );
            super::fail(EXIT_USAGE, &format_args!("{name}: {why}"))
        }
    }
}

/// Returns whether the worker accepts every body.
fn decode_all(
    input: &mut impl BufRead,
    arguments: &DecodeArgs,
    out: &mut impl Write,
) -> Result<bool, InputError> {
    if arguments.lines {
        return decode_lines(input, arguments.json, out);
    }
    let reports: Vec<Report> = bodies(&read(input)?)?.iter().map(report).collect();
    let written =
        if arguments.json { write_json(&reports, out) } else { write_text(&reports, out) };
    // A closed pipe (`| head`) does not change what was found.
    drop(written);
    Ok(reports.iter().all(Report::is_accepted))
}

/// Decodes line by line, and holds one line at a time.
fn decode_lines(
    input: &mut impl BufRead,
    is_json: bool,
    out: &mut impl Write,
) -> Result<bool, InputError> {
    let (mut has_any, mut are_accepted) = (false, true);
    let mut number = 0;
    while let Some(line) = next_line(input, number + 1)? {
        number += 1;
        if line.trim().is_empty() {
            continue;
        }
        let given = match bodies(&line) {
            Ok(given) => given,
            Err(InputError::NoMessage) => continue,
            Err(why) => return Err(why),
        };
        let reports: Vec<Report> = given.iter().map(report).collect();
        let written = if is_json {
            write_json(&reports, out)
        } else {
            let blank = if has_any { "\n" } else { "" };
            writeln!(out, "{blank}line {number}").and_then(|()| write_text(&reports, out))
        };
        // As above.
        drop(written);
        has_any = true;
        are_accepted &= reports.iter().all(Report::is_accepted);
    }
    if has_any { Ok(are_accepted) } else { Err(InputError::NoMessage) }
}

/// Decodes one body as the worker does.
fn report(given: &GivenBody) -> Report {
    if given.body.len() > input::BODY_BYTES_MAX {
        return Report::too_long(given);
    }
    // Stands for the id that SQS gives a message, which no key can be derived from here.
    let message_id = given.message.as_ref().map_or("unknown", |message| &message.original_id);
    let (envelopes, decoded) = decode_in_envelopes(&given.body, message_id);
    Report::new(given, &envelopes, decoded)
}

fn write_json(reports: &[Report], out: &mut impl Write) -> io::Result<()> {
    reports.iter().try_for_each(|report| writeln!(out, "{}", text::json(report)))
}

fn write_text(reports: &[Report], out: &mut impl Write) -> io::Result<()> {
    for (index, report) in reports.iter().enumerate() {
        if reports.len() > 1 {
            let blank = if index > 0 { "\n" } else { "" };
            writeln!(out, "{blank}body {} of {}", index + 1, reports.len())?;
        }
        report.write(out)?;
    }
    Ok(())
}

/// Entry point for the target in `fuzz/`. Compiled only with the feature `fuzzing`.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzz_api {
    use super::{bodies, report, text, write_text};

    /// Returns all that the command may write about an input.
    #[must_use]
    pub fn everything_said(input: &str) -> Vec<String> {
        let mut said = Vec::new();
        for part in [input].into_iter().chain(input.lines()) {
            let Ok(given) = bodies(part) else { continue };
            let reports: Vec<_> = given.iter().map(report).collect();
            let mut shown = Vec::new();
            write_text(&reports, &mut shown).expect("writing to memory does not fail");
            said.push(String::from_utf8(shown).expect("what is written is text"));
            said.extend(reports.iter().map(text::json));
        }
        said
    }
}

#[cfg(test)]
mod tests;
