//! Measures the worker beside other programs in every row, and writes the result into a page.
//!
//! `peers [--worker PROGRAM] [--peer NAME=PROGRAM]... [--rounds N] [--seconds N] [--only WORD]
//! [--logs FOLDER] [--out PAGE]`. A PROGRAM takes the worker's variables and no arguments, and
//! prints its version for `--version`. `--only` runs the rows with that word in their name, and
//! leaves the page as it is.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use super::Failure;
use super::table::{processor, version};
use crate::peers::page::{BEGIN, END, Facts, Run, block, line};
use crate::peers::peer::{Peer, Setting};
use crate::peers::row::Row;

#[derive(Debug, PartialEq, Eq)]
struct Options {
    programs: Vec<(String, PathBuf)>,
    rounds: usize,
    seconds: u64,
    only: Option<String>,
    logs: PathBuf,
    out: Option<PathBuf>,
}

pub(super) fn run(words: &[&str]) -> Result<ExitCode, Failure> {
    let options = Options::parse(words)?;
    let peers: Vec<Peer> = options.peers()?;
    let rows = options.rows()?;
    std::fs::create_dir_all(&options.logs)?;
    let own = std::env::current_exe()?;
    let setting = Setting { own: &own, folder: &options.logs, seconds: options.seconds };
    let mut runs = Vec::new();
    for round in 0..options.rounds {
        for row in &rows {
            for turn in 0..peers.len() {
                // Each goes first in some rounds.
                let peer = &peers[(turn + round) % peers.len()];
                let outcome = row.run(peer, &setting).map_err(|failed| failed.to_string());
                let run = Run { row: *row, name: peer.name.clone(), outcome };
                say(&line(&run))?;
                runs.push(run);
            }
        }
    }
    let facts = Facts {
        rounds: options.rounds,
        seconds: options.seconds,
        cores: std::thread::available_parallelism()?.get(),
        processor: processor(),
    };
    let block = block(&rows, &peers, &runs, &facts);
    match (&options.out, &options.only) {
        (Some(page), None) => {
            let text = std::fs::read_to_string(page)?;
            std::fs::write(page, faults::report::put(&text, (BEGIN, END), &block)?)?;
        }
        (Some(_) | None, _) => say(&block)?,
    }
    let failed = runs.iter().filter(|run| run.outcome.is_err()).count();
    say(&format!("{} runs, {failed} failed", runs.len()))?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Options {
    fn parse(words: &[&str]) -> Result<Self, Failure> {
        let mut options = Self {
            programs: vec![("worker".to_owned(), PathBuf::from("./reservation-worker"))],
            rounds: 1,
            seconds: 20,
            only: None,
            logs: PathBuf::from("target/peers"),
            out: None,
        };
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or(format!("{word} needs a value"));
            match word {
                "--worker" => options.programs[0].1 = value()?.into(),
                "--peer" => {
                    let given = value()?;
                    let (name, program) = given
                        .split_once('=')
                        .ok_or(format!("--peer must be NAME=PROGRAM, not `{given}`"))?;
                    options.programs.push((name.to_owned(), program.into()));
                }
                "--rounds" => options.rounds = at_least_1(word, value()?)?,
                "--seconds" => options.seconds = at_least_1(word, value()?)?,
                "--only" => options.only = Some(value()?.to_owned()),
                "--logs" => options.logs = value()?.into(),
                "--out" => options.out = Some(value()?.into()),
                other => return Err(format!("unknown argument: {other}").into()),
            }
        }
        Ok(options)
    }

    fn rows(&self) -> Result<Vec<Row>, Failure> {
        let is_chosen = |row: &Row| self.only.as_ref().is_none_or(|word| row.name().contains(word));
        let rows: Vec<Row> = Row::ALL.into_iter().filter(is_chosen).collect();
        if rows.is_empty() {
            let names = Row::ALL.map(Row::name).join(", ");
            return Err(format!("--only must be a part of one of: {names}").into());
        }
        Ok(rows)
    }

    fn peers(&self) -> Result<Vec<Peer>, Failure> {
        let peer = |(name, program): &(String, PathBuf)| {
            let found = std::fs::canonicalize(program);
            let program = found.map_err(|error| format!("{}: {error}", program.display()))?;
            Ok(Peer { name: name.clone(), version: version(&program)?, program })
        };
        self.programs.iter().map(peer).collect()
    }
}

fn at_least_1<N: std::str::FromStr + PartialOrd + From<u8>>(
    word: &str,
    given: &str,
) -> Result<N, Failure> {
    let number = given.parse().ok().filter(|number: &N| *number >= N::from(1));
    number.ok_or_else(|| format!("{word} must be a number from 1 on, not `{given}`").into())
}

fn say(line: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_and_wrong_ones_are_named() {
        let words = ["--worker", "w", "--peer", "other=a/b=c", "--rounds", "2", "--only", "good"];
        let options = Options::parse(&words).expect("valid");
        let named = |name: &str, program: &str| (name.to_owned(), PathBuf::from(program));
        assert_eq!(options.programs, [named("worker", "w"), named("other", "a/b=c")]);
        assert_eq!((options.rounds, options.seconds), (2, 20));
        let names: Vec<&str> =
            options.rows().expect("there are some").into_iter().map(Row::name).collect();
        assert_eq!(names, ["good-20", "good-100"]);
        for (words, error) in [
            (&["--peer", "x"][..], "--peer must be NAME=PROGRAM, not `x`"),
            (&["--seconds", "0"], "--seconds must be a number from 1 on, not `0`"),
            (&["--rounds"], "--rounds needs a value"),
            (&["--x"], "unknown argument: --x"),
        ] {
            let failed = Options::parse(words).expect_err("not valid").to_string();
            assert_eq!(failed, error);
        }
        let none = Options::parse(&["--only", "nothing"]).expect("valid").rows();
        assert!(none.expect_err("no such row").to_string().contains("good-20, good-100"));
    }
}
