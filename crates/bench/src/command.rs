//! The commands of the program. Yardsticks and services run as separate processes of the same
//! program.

mod compare;
mod instructions;
mod peers;
mod services;
mod table;
mod train;

use std::error::Error;
use std::process::ExitCode;

use crate::variable;
use crate::{floor, plain};

/// A readable cause of a failure.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Runs the command that the arguments name.
///
/// # Errors
/// The cause of the failure.
pub fn run() -> Result<ExitCode, Failure> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let single = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    match words.as_slice() {
        ["services", rest @ ..] => single()?.block_on(services::run(rest))?,
        ["floor"] => single()?.block_on(floor::run(floor_settings()?))?,
        [threads @ ("plain" | "plain-1")] => {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let runtime = if *threads == "plain-1" {
                single()?
            } else {
                tokio::runtime::Builder::new_multi_thread().enable_all().build()?
            };
            runtime.block_on(plain::run(plain_settings()?))?;
        }
        ["compare", rest @ ..] => compare::run_pairs(rest)?,
        ["instructions", rest @ ..] => return instructions::compare(rest),
        ["pure", name, times] => instructions::repeat(name, times)?,
        ["table", rest @ ..] => return table::run(rest),
        ["peers", rest @ ..] => return peers::run(rest),
        ["train", rest @ ..] => train::train(rest)?,
        _ => {
            let all =
                "table, compare, peers, instructions, pure, train, services, floor, plain, plain-1";
            return Err(format!("one of: {all}").into());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn floor_settings() -> Result<floor::Settings, Failure> {
    let host = |name| variable(name).map(|url| url.trim_start_matches("http://").to_owned());
    Ok(floor::Settings {
        queue_url: variable("SQS_QUEUE_URL")?,
        sqs: host("AWS_ENDPOINT_URL_SQS")?,
        reservations: host("RESERVATION_API_BASE")?,
        inventory: host("INVENTORY_GRPC_ADDR")?,
        concurrency: variable("WORKER_CONCURRENCY")?.parse()?,
    })
}

fn plain_settings() -> Result<plain::Settings, Failure> {
    Ok(plain::Settings {
        queue_url: variable("SQS_QUEUE_URL")?,
        reservations: variable("RESERVATION_API_BASE")?,
        inventory: variable("INVENTORY_GRPC_ADDR")?,
        concurrency: variable("WORKER_CONCURRENCY")?.parse()?,
    })
}
