//! The command line: what is understood, what is refused and how, and what is generated.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use super::*;

/// A terminal's usual size is 80 x 24; help is written for 100 columns, and a bit of scrolling.
const LINES_MAX: usize = 40;

fn parsed(line: &str) -> Result<Invocation, UsageError> {
    parse(line.split_whitespace().map(OsString::from))
}

fn printed(line: &str) -> String {
    match parsed(line) {
        Ok(Invocation::Print(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(line: &str) -> String {
    match parsed(line) {
        Err(error) => error.to_string(),
        Ok(other) => panic!("{line}: {other:?}"),
    }
}

/// The names of all commands, each with those that it is below.
fn every_command() -> Vec<Vec<String>> {
    fn add(command: &clap::Command, names: &[String], found: &mut Vec<Vec<String>>) {
        found.push(names.to_vec());
        for below in command.get_subcommands() {
            add(below, &[names, &[below.get_name().to_owned()]].concat(), found);
        }
    }
    let mut found = Vec::new();
    add(&built(), &[], &mut found);
    found
}

#[test]
fn the_definition_of_the_commands_has_no_contradiction() {
    Arguments::command().debug_assert();
}

#[test]
fn what_was_understood_before_there_were_subcommands_still_is() {
    assert_eq!(parsed(""), Ok(Invocation::Run));
    assert_eq!(parsed("check"), Ok(Invocation::Command(Command::Check)));
    assert_eq!(parsed("health"), Ok(Invocation::Command(Command::Health)));
    let help = printed("--help");
    for same in ["-h", "help", "-h check"] {
        assert_eq!(printed(same), help, "{same}");
    }
    for version in ["--version", "-V", "version"] {
        assert_eq!(printed(version), version_text(), "{version}");
    }
    assert_eq!(printed("check --help"), printed("help check"));
    assert_ne!(printed("check --help"), help);
}

#[test]
fn the_help_of_every_command_fits_a_screen_and_names_each_of_its_commands() {
    let all = every_command();
    assert!(all.len() >= 7, "{all:?}");
    for names in &all {
        let line = names.join(" ");
        let help = printed(&format!("help {line}"));
        assert_eq!(help, printed(&format!("{line} --help")));
        let lines: Vec<&str> = help.lines().collect();
        assert!(lines.len() <= LINES_MAX, "{line}: {} lines\n{help}", lines.len());
        for shown in &lines {
            assert!(shown.chars().count() <= variables::COLUMNS, "{line}: {shown}");
            assert_eq!(*shown, shown.trim_end(), "{line}");
        }
        let usage = format!("Usage: {}", [PROGRAM, &line].join(" ").trim_end());
        assert!(lines.iter().any(|shown| shown.starts_with(&usage)), "{line}: {help}");
        let below = all.iter().filter(|other| other.len() == names.len() + 1);
        for below in below.filter(|other| other.starts_with(names)) {
            let name = format!("  {} ", below.last().unwrap());
            assert!(lines.iter().any(|shown| shown.starts_with(&name)), "{name}: {help}");
        }
    }
    assert!(printed("--help").contains("reservation-worker help variables"));
    assert!(printed("help variables").contains("\n  SQS_QUEUE_URL "));
}

#[test]
fn an_error_names_the_argument_what_was_given_and_what_is_allowed() {
    let commands =
        "check, health, dlq, event, forget, decode, ctl, completions, man, help, version";
    for (line, fault, help) in [
        (
            "run\u{1b}[31m",
            format!(r#"unknown command "run\u{{1b}}[31m": must be one of {commands}"#),
            "",
        ),
        (
            "--check",
            format!("unknown argument \"--check\": must be one of {commands}, --help, --version"),
            "",
        ),
        ("check health", "unknown argument \"health\": must be --help".to_owned(), " check"),
        ("check --x=1", "unknown argument \"--x\": must be --help".to_owned(), " check"),
        ("event", "ID is missing".to_owned(), " event"),
        ("event a --reservation ..", "--reservation is \"..\": must be 1 to 256 bytes without control characters, and not `.` or `..`".to_owned(), " event"),
        ("forget --yes --yes a", "--yes is given twice: must be given once".to_owned(), " forget"),
        ("completions", "SHELL is missing".to_owned(), " completions"),
        (
            "completions tcsh",
            "SHELL is \"tcsh\": must be one of bash, zsh, fish".to_owned(),
            " completions",
        ),
        (
            "help nothing",
            format!("unknown command \"nothing\": must be one of {commands}, variables"),
            "",
        ),
        ("help check nothing", "unknown command \"nothing\": must be none".to_owned(), " check"),
        ("man nothing", format!("unknown command \"nothing\": must be one of {commands}"), ""),
    ] {
        let said = match parsed(line) {
            Ok(Invocation::Command(Command::Man(arguments))) => {
                man(&arguments).unwrap_err().to_string()
            }
            _ => refused(line),
        };
        assert_eq!(said, format!("{fault}; see {PROGRAM}{help} --help"), "{line}");
    }
}

#[test]
fn what_is_given_is_escaped_and_cut_in_every_error() {
    let hostile = format!("\u{1b}]0;\u{7}\u{202e}{}", "x".repeat(10_000));
    for before in [
        "",
        "--",
        "check ",
        "check --",
        "event --",
        "event a ",
        "event a --reservation ",
        "completions ",
        "help ",
        "completions bash ",
    ] {
        let said = refused(&format!("{before}{hostile}"));
        assert!(said.len() < 500, "{before}: {} bytes", said.len());
        assert!(!said.contains(char::is_control) && !said.contains('\u{202e}'), "{before}: {said}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::ffi::OsStringExt;
        let said = parse([OsString::from_vec(b"\xff\x1b".to_vec())]).unwrap_err().to_string();
        assert!(!said.contains(char::is_control), "{said}");
    }
}

#[test]
fn completions_and_manual_pages_have_every_command() {
    for shell in ["bash", "zsh", "fish"] {
        let Ok(Invocation::Command(Command::Completions(arguments))) =
            parsed(&format!("completions {shell}"))
        else {
            panic!("{shell}");
        };
        let script = String::from_utf8(completions(&arguments)).unwrap();
        for names in every_command() {
            let name = names.last().map_or(PROGRAM, String::as_str);
            assert!(script.contains(name), "{shell}: {name}");
        }
    }
    for names in every_command() {
        let line = format!("man {}", names.join(" "));
        let Ok(Invocation::Command(Command::Man(arguments))) = parsed(&line) else {
            panic!("{line}");
        };
        let page = String::from_utf8(man(&arguments).unwrap()).unwrap();
        assert!(page.contains(".SH NAME") && page.contains(".SH SYNOPSIS"), "{line}: {page}");
        assert_eq!(page.contains("SQS_QUEUE_URL"), names.is_empty(), "{line}");
    }
}

#[test]
fn the_version_text_is_one_line() {
    let expected =
        concat!("reservation-worker ", env!("CARGO_PKG_VERSION"), env!("BUILD_NOTE"), "\n");
    assert_eq!(version_text(), expected);
}
