//! `instructions [--accept]`: counts the instructions of each pure part and compares them with
//! `instructions.txt`.
//!
//! The command fails if a part needs a tenth more than accepted. Unlike times, counts do not depend
//! on the load of the machine. `--accept` writes the file.
//!
//! `pure NAME COUNT` runs one part COUNT times under valgrind. The difference of two such runs
//! leaves out the rest of the process.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::Failure;
use crate::pure::{PARTS, Part};

/// The factor above the accepted count that is a regression.
const TIMES_MAX: f64 = 1.1;
/// Runs that are subtracted: one-time initialisation happens in them.
const FEW: u64 = 100;
/// Runs that are counted after those.
const COUNTED: u64 = 1_000;
/// The file of accepted counts.
const ACCEPTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

pub(super) fn compare(words: &[&str]) -> Result<ExitCode, Failure> {
    let accepts = match words {
        [] => false,
        ["--accept"] => true,
        _ => return Err("instructions [--accept]".into()),
    };
    let accepted = read(Path::new(ACCEPTED))?;
    let mut counted = Vec::new();
    let mut worse = 0;
    for Part { name, .. } in PARTS {
        let now = (count(name, FEW + COUNTED)? - count(name, FEW)?) / COUNTED;
        let verdict = match accepted.get(name) {
            Some(&before) => {
                let times = f64::from(u32::try_from(now)?) / f64::from(before);
                worse += u32::from(times > TIMES_MAX);
                format!("{before:>8} accepted  {times:5.2} times")
            }
            None if accepts => String::new(),
            None => return Err(format!("{name}: no count is accepted yet: --accept").into()),
        };
        say(&format!("{name:<18} {now:>8}  {verdict}"))?;
        counted.push(format!("{name} {now}"));
    }
    if accepts {
        std::fs::write(ACCEPTED, counted.join("\n") + "\n")?;
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("{} passed, {worse} failed", PARTS.len() - usize::try_from(worse)?))?;
    Ok(if worse == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one part `times` times.
pub(super) fn repeat(name: &str, times: &str) -> Result<(), Failure> {
    let part = PARTS.iter().find(|part| part.name == name).ok_or("no such part")?;
    for _ in 0..times.parse::<u64>()? {
        (part.once)();
    }
    Ok(())
}

/// Counts the instructions of a process that runs a part `times` times.
fn count(name: &str, times: u64) -> Result<u64, Failure> {
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--callgrind-out-file=/dev/null"]);
    let program = std::env::current_exe()?;
    let output = valgrind.arg(program).args(["pure", name, &times.to_string()]).output();
    let output = output.map_err(|why| format!("valgrind: {why}"))?;
    let text = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        return Err(format!("valgrind failed at {name}: {text}").into());
    }
    let line = text.lines().find_map(|line| line.split_once("Collected :"));
    let (_, count) = line.ok_or_else(|| format!("valgrind says no count: {text}"))?;
    Ok(count.trim().parse()?)
}

fn read(path: &Path) -> Result<BTreeMap<String, u32>, Failure> {
    let mut counts = BTreeMap::new();
    for line in std::fs::read_to_string(path)?.lines() {
        let (name, count) = line.split_once(' ').ok_or_else(|| format!("no count: {line}"))?;
        counts.insert(name.to_owned(), count.parse()?);
    }
    Ok(counts)
}

fn say(line: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
