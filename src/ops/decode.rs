//! `reservation-worker decode`: what the worker would do with a body, without doing it.
//!
//! It uses the worker's own decoder. It needs no network, no configuration and no credentials.

mod input;
mod report;

use std::fs::File;
use std::io::{self, Read, Write};
use std::process::ExitCode;

use self::input::{GivenBody, InputError, bodies, read};
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
    let given = match file {
        None => found(&mut io::stdin().lock(), arguments.lines),
        Some(file) => match File::open(file) {
            Ok(mut file) => found(&mut file, arguments.lines),
            Err(why) => Err(why.into()),
        },
    };
    let given = match given {
        Ok(given) => given,
        Err(why) => {
            let name = file.map_or_else(
                || "standard input".to_owned(),
                |file| text::quoted(&file.to_string_lossy()),
            );
            return super::fail(EXIT_USAGE, &format_args!("{name}: {why}"));
        }
    };
    let reports: Vec<Report> = given.iter().map(report).collect();
    let written =
        if arguments.json { write_json(&reports, out) } else { write_text(&reports, out) };
    // A closed pipe (`| head`) does not change what was found.
    drop(written);
    if reports.iter().all(Report::is_accepted) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn found(input: &mut dyn Read, by_line: bool) -> Result<Vec<GivenBody>, InputError> {
    bodies(&read(input)?, by_line)
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
        for by_line in [false, true] {
            let Ok(given) = bodies(input, by_line) else { continue };
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
