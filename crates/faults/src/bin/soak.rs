//! `make soak`; see `faults::soak`.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the terminal")]

use std::process::ExitCode;

use faults::soak::{HELP, Options, soak};

#[tokio::main]
async fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) if options.help => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Ok(options) => options,
        Err(message) => {
            eprintln!("soak: {message}");
            return ExitCode::from(2);
        }
    };
    let done = tokio::select! {
        done = soak(&options) => done,
        // The worker is killed when its handle is dropped.
        _ = tokio::signal::ctrl_c() => return ExitCode::from(130),
    };
    match done {
        Ok(figures) => {
            println!("{figures}1 passed, 0 failed");
            ExitCode::SUCCESS
        }
        Err(failed) => {
            println!("{failed}\n0 passed, 1 failed");
            ExitCode::FAILURE
        }
    }
}
