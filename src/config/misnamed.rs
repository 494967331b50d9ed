//! Finds names in the environment that are probably meant for this worker but are not read.
//!
//! These are misspelt names of its variables, and variables of the Go worker of the same name.
//! Without a warning, the default would be used silently.

use super::table::VARIABLES;

/// The maximum number of such names in warnings: an environment may have thousands.
const TOLD_MAX: usize = 20;

/// Maximum edit distance between similar names.
///
/// It is smaller for short names, because those are often other words.
const CHANGES_MAX: usize = 2;
const CHANGES_MAX_SHORT: usize = 1;
const SHORT_LEN_MAX: usize = 10;

/// Unit suffixes that are ignored in a comparison.
const UNITS: &[&str] = &["_MS", "_MB", "_S", "_SEC", "_SECS", "_SECONDS", "_MILLIS", "_MIB"];

/// Variables in manifests of the Go worker, and their replacements.
const REPLACED: &[(&str, &str)] = &[
    (
        SECRET_MANAGER,
        "set SQS_QUEUE_URL, INVENTORY_GRPC_ADDR and RESERVATION_API_BASE themselves, from a Kubernetes Secret for example",
    ),
    (
        "SECRET_NAME",
        "AWS Secrets Manager is not asked: set the variables themselves, from a Kubernetes Secret for example",
    ),
    ("GRPC_DEBUG_PORT", "there is no gRPC server: metrics and health are on SERVER_PORT"),
    ("PORT", "the HTTP port for metrics and health is SERVER_PORT"),
    ("REDIS_ADDRESS", "a shared idempotency store is IDEMPOTENCY_STORE=redis://host:port/0"),
];

/// The variable that made the Go worker read values from AWS Secrets Manager.
pub(super) const SECRET_MANAGER: &str = "USE_SECRET_MANAGER";

/// Returns the Go worker's variables among the names with their warnings, in the table's order.
pub(super) fn replaced<'n>(
    names: impl IntoIterator<Item = &'n str> + Clone,
) -> Vec<(&'static str, String)> {
    let is_set = |name: &str| names.clone().into_iter().any(|set| set == name);
    let warned = |&(name, instead): &(&'static str, &str)| {
        (name, format!("{name} is set, which nobody reads: {instead} (docs/migrating.md)"))
    };
    REPLACED.iter().filter(|(name, _)| is_set(name)).map(warned).collect()
}

/// Returns names similar to one of the table's, with that one, in the order of the input.
pub(super) fn near_names<'n>(
    names: impl IntoIterator<Item = &'n str>,
) -> Vec<(String, &'static str)> {
    let nearly = |name: &'n str| Some((name.to_owned(), nearest(name)?));
    names.into_iter().filter_map(nearly).take(TOLD_MAX).collect()
}

/// Returns the variable that `name` was probably meant to be.
///
/// `None` if `name` is a variable of the table, or is similar to none.
fn nearest(name: &str) -> Option<&'static str> {
    let known = || VARIABLES.iter().map(|variable| variable.name);
    if !name.is_ascii() || known().any(|known| known == name) {
        return None;
    }
    let given = name.to_ascii_uppercase().replace(['-', '.'], "_");
    let same_but_unit = || known().find(|known| without_unit(known) == without_unit(&given));
    let near = known().filter(|known| ends_alike(&given, known));
    let near = near.filter_map(|known| Some((changes(&given, known)?, known)));
    near.min_by_key(|(changes, _)| *changes).map(|(_, known)| known).or_else(same_but_unit)
}

/// Returns whether the last words are similar, if both names have the same number of words.
///
/// `SERVER_HOST` is not a misspelt `SERVER_PORT`.
fn ends_alike(given: &str, known: &str) -> bool {
    let words = |name: &str| name.split('_').count();
    let last = |name| str::rsplit(name, '_').next().unwrap_or_default();
    words(given) != words(known) || changes(last(given), last(known)).is_some()
}

fn without_unit(name: &str) -> &str {
    UNITS.iter().find_map(|unit| name.strip_suffix(unit)).unwrap_or(name)
}

/// Counts the edits (insert, delete, replace, swap of neighbours) between two names.
///
/// `None` if there are more edits than the maximum for similar names.
fn changes(given: &str, known: &str) -> Option<usize> {
    let max = if known.len() <= SHORT_LEN_MAX { CHANGES_MAX_SHORT } else { CHANGES_MAX };
    if given.len().abs_diff(known.len()) > max {
        return None;
    }
    let (given, known) = (given.as_bytes(), known.as_bytes());
    // Optimal string alignment distance; only three rows of its table are kept.
    let mut before_last = vec![0; known.len() + 1];
    let mut last: Vec<usize> = (0..=known.len()).collect();
    for row in 1..=given.len() {
        let mut this = vec![row; known.len() + 1];
        for column in 1..=known.len() {
            let differ = usize::from(given[row - 1] != known[column - 1]);
            let best = (last[column] + 1).min(this[column - 1] + 1).min(last[column - 1] + differ);
            let swapped = row > 1
                && column > 1
                && given[row - 1] == known[column - 2]
                && given[row - 2] == known[column - 1];
            this[column] = if swapped { best.min(before_last[column - 2] + 1) } else { best };
        }
        before_last = std::mem::replace(&mut last, this);
    }
    Some(last[known.len()]).filter(|changes| *changes <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_leads_to_the_nearest_variable() {
        for (given, meant) in [
            ("WORKER_CONCURENCY", "WORKER_CONCURRENCY"),
            ("WROKER_CONCURRENCY", "WORKER_CONCURRENCY"),
            ("worker_concurrency", "WORKER_CONCURRENCY"),
            ("Log-Level", "LOG_LEVEL"),
            ("LOGLEVEL", "LOG_LEVEL"),
            ("SERVER_PROT", "SERVER_PORT"),
            ("SERVER_POR", "SERVER_PORT"),
            ("SQS_DLQ_URI", "SQS_DLQ_URL"),
            ("SQS_QUEUE_URLS", "SQS_QUEUE_URL"),
            ("INVENTORY_TIMEOUT", "INVENTORY_TIMEOUT_MS"),
            ("BACKOFF_BASE_SECONDS", "BACKOFF_BASE_MS"),
            ("SHUTDOWN_GRACE_SECONDS", "SHUTDOWN_GRACE"),
            ("OTEL_TRACE_SAMPLER", "OTEL_TRACES_SAMPLER"),
        ] {
            assert_eq!(nearest(given), Some(meant), "{given}");
        }
    }

    #[test]
    fn known_variables_and_those_of_other_programs_lead_to_none() {
        let ours = VARIABLES.iter().map(|variable| variable.name);
        let others = [
            "",
            "PATH",
            "HOME",
            "PORT",
            "TZ",
            "LANG",
            "LOG",
            "LOG_DIR",
            "AWS_REGION",
            "AWS_PROFILE",
            "INVENTORY_PORT",
            "INVENTORY_SERVICE_HOST",
            "INVENTORY_PORT_50051_TCP_ADDR",
            "RESERVATION_API_PORT",
            "RESERVATION_API_SERVICE_PORT",
            "KUBERNETES_PORT",
            "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
            "OTEL_LOGS_EXPORTER",
            "OTEL_METRICS_EXPORTER",
            "OTEL_BSP_SCHEDULE_DELAY",
            "RUST_LOG",
            "SERVER_HOST",
            "SERVER_NAME",
            "LOG_FILE",
            "SQS_QUEUE_ARN_OF_SOMEBODY",
            "\u{416}ORKER_CONCURRENCY",
        ];
        for name in ours.chain(others) {
            assert_eq!(nearest(name), None, "{name}");
        }
    }

    #[test]
    fn the_number_of_warnings_is_limited() {
        let names: Vec<String> = (0..1_000).map(|_| "LOGLEVEL".to_owned()).collect();
        assert_eq!(near_names(names.iter().map(String::as_str)).len(), TOLD_MAX);
        assert_eq!(near_names(["A".repeat(1 << 20).as_str()]).len(), 0);
    }
}
