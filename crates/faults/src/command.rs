//! The command line of `faults`.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::case::{Case, run_all};
use crate::cases;
use crate::report;
use crate::world::Setting;

/// Concurrent cases: they mostly wait.
const AT_ONCE: usize = 3;

/// The text of `--help`.
pub const HELP: &str = "\
faults: harm done to the real worker from outside, and the account of what came out; exits 0 only if all of it holds

  --worker PATH     the worker's binary                        [./reservation-worker]
  --only NAME,...   these cases                                [all]
  --short           the short forms, of the cases that have one
  --at-once N       cases at once, 1-16                        [3]
  --out PAGE        writes the table into that page, between its two markers; rows of cases that are not run stay
  --list            what there is
";

/// The command line options.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    worker: PathBuf,
    only: Option<Vec<String>>,
    is_short: bool,
    at_once: usize,
    out: Option<PathBuf>,
    list: bool,
    help: bool,
}

impl Options {
    /// Parses the arguments, without the program name.
    ///
    /// # Errors
    /// A sentence that names the argument and what is allowed.
    pub fn parse(args: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            worker: PathBuf::from("./reservation-worker"),
            only: None,
            is_short: false,
            at_once: AT_ONCE,
            out: None,
            list: false,
            help: false,
        };
        let mut args = args.into_iter();
        while let Some(name) = args.next() {
            let mut value = || args.next().ok_or_else(|| format!("{name} needs a value"));
            match name.as_str() {
                "--worker" => options.worker = value()?.into(),
                "--only" => options.only = Some(value()?.split(',').map(str::to_owned).collect()),
                "--short" => options.is_short = true,
                "--at-once" => {
                    let given = value()?;
                    let number = given.parse().ok().filter(|number| (1..=16).contains(number));
                    options.at_once =
                        number.ok_or_else(|| format!("--at-once must be 1-16, not `{given}`"))?;
                }
                "--out" => options.out = Some(value()?.into()),
                "--list" => options.list = true,
                "--help" | "-h" => options.help = true,
                _ => return Err(format!("unknown argument `{name}`; see --help")),
            }
        }
        Ok(options)
    }

    fn chosen(&self) -> Result<Vec<Case>, String> {
        let all = cases::all();
        if let Some(only) = &self.only {
            let is_known = |name: &&String| all.iter().any(|case| case.name == name.as_str());
            if let Some(unknown) = only.iter().find(|name| !is_known(name)) {
                return Err(format!("there is no case `{unknown}`; see --list"));
            }
            let is_chosen = |case: &Case| only.iter().any(|name| name == case.name);
            return Ok(all.into_iter().filter(is_chosen).collect());
        }
        Ok(all.into_iter().filter(|case| case.is_short || !self.is_short).collect())
    }
}

/// Runs what the options say.
///
/// # Errors
/// A sentence about the cause.
#[allow(clippy::print_stdout, reason = "a program for the terminal")]
pub async fn execute(options: &Options) -> Result<ExitCode, String> {
    if options.help {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let cases = options.chosen()?;
    if options.list {
        for case in cases {
            println!("{:<18} {}", case.name, case.injected);
        }
        return Ok(ExitCode::SUCCESS);
    }
    let program = options.worker.canonicalize();
    let program = program.map_err(|error| format!("{}: {error}", options.worker.display()))?;
    let folder = std::env::temp_dir().join(format!("faults-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    let setting = Setting { program, folder: folder.clone(), is_short: options.is_short };
    let verdicts = tokio::select! {
        verdicts = run_all(&cases, &setting, options.at_once, |it| println!("{}", report::line(it))) => verdicts,
        // Every worker is killed when its handle is dropped.
        _ = tokio::signal::ctrl_c() => return Ok(ExitCode::from(130)),
    };
    let (sum, is_good) = report::sum(&verdicts);
    if let Some(page) = &options.out {
        let names: Vec<_> = cases::all().iter().map(|case| case.name).collect();
        report::write(page, &names, &verdicts)
            .map_err(|error| format!("{}: {error}", page.display()))?;
    }
    if is_good {
        // After a failure, the logs stay for inspection.
        let _ = std::fs::remove_dir_all(&folder);
    } else {
        println!("logs: {}", folder.display());
    }
    println!("{sum}");
    Ok(if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn cases_are_selected_by_name_or_short_form() {
        let names = |line: &str| -> Vec<&str> {
            parse(line).unwrap().chosen().unwrap().iter().map(|case| case.name).collect()
        };
        assert_eq!(names("--only term,kill"), ["kill", "term"], "cases keep the order of the list");
        assert!(names("--short").len() < names("").len());
        assert!(parse("--only nothing").unwrap().chosen().is_err());
    }

    #[test]
    fn error_messages_name_the_invalid_argument() {
        for (line, named) in [
            ("--what", "--what"),
            ("--only", "--only"),
            ("--at-once 0", "1-16"),
            ("--at-once x", "x"),
        ] {
            assert!(parse(line).unwrap_err().contains(named), "{line}");
        }
    }
}
