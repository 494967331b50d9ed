//! Fuzzes the environment: one line per variable, whose first character selects the variable; the
//! rest is the value. Every error is reported in a line of its own, and passwords are masked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reservation_worker::config::{Config, IdempotencyStore, VARIABLES};

const REQUIRED: [(&str, &str); 3] = [
    ("SQS_QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/123456789012/reservations"),
    ("INVENTORY_GRPC_ADDR", "inventory:50051"),
    ("RESERVATION_API_BASE", "http://reservation-api:8080"),
];

/// Replaces file names: reading files is not tested here.
fn value(name: &str, given: &str) -> String {
    if name.ends_with("_FILE") { "/nonexistent/file".to_owned() } else { given.to_owned() }
}

fn vars(text: &str) -> Vec<(String, String)> {
    let mut vars: Vec<_> =
        REQUIRED.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    for line in text.split('\n') {
        let Some(first) = line.chars().next() else { continue };
        let index = usize::try_from(u32::from(first)).expect("a character fits into usize");
        let name = VARIABLES[index % VARIABLES.len()].name;
        vars.push((name.to_owned(), value(name, &line[first.len_utf8()..])));
    }
    vars
}

fuzz_target!(|text: &str| {
    let vars = vars(text);
    let config = match Config::from_vars(vars.clone()) {
        Ok(config) => config,
        Err(errors) => {
            assert!(!errors.as_slice().is_empty());
            for error in errors.as_slice() {
                let line = error.to_string();
                assert!(line.len() < 1500 && !line.contains(char::is_control), "{line:?}");
                assert!(VARIABLES.iter().any(|variable| variable.name == error.name), "{line}");
            }
            return;
        }
    };
    assert_eq!(config.effective().count(), VARIABLES.len());
    assert!(config.worker.max_in_flight >= config.worker.concurrency);
    assert!(config.retry.backoff_max >= config.retry.backoff_base);
    assert!(config.shutdown_grace > config.sqs.wait_time);
    assert!(config.warnings.iter().all(|warning| !warning.contains(char::is_control)));
    let IdempotencyStore::Redis(url) = &config.idempotency.store else { return };
    let Some(password) = url.expose().password().filter(|password| password.len() >= 4) else {
        return;
    };
    // A password that occurs once in the environment is shown only if masking fails.
    let written: usize = vars.iter().map(|(_, value)| value.matches(password).count()).sum();
    if written == 1 && !"redis://:***@".contains(password) {
        let effective = config.effective().find(|(name, _)| *name == "IDEMPOTENCY_STORE");
        let (_, effective) = effective.expect("every variable is listed");
        for shown in [effective, url.to_string(), format!("{url:?}")] {
            assert!(!shown.contains(password), "{shown}");
        }
    }
});
