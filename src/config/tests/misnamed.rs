//! Similar names and levels, and variables of the Go worker: each causes a warning.

use super::*;

#[test]
fn a_mistyped_name_causes_a_warning() {
    let config = with(&[("WORKER_CONCURENCY", "50"), ("LOGLEVEL", ""), ("PATH", "/bin")]).unwrap();
    let said = "\"WORKER_CONCURENCY\" is set, which nobody reads: WORKER_CONCURRENCY may be meant";
    assert_eq!(config.warnings, [said]);
    assert_eq!(config.worker.concurrency.get(), 20);
    let vars = [("SQS_QUEU_URL".to_owned(), REQUIRED[0].1.to_owned())];
    let errors = Config::from_vars(vars).unwrap_err().to_string();
    assert!(
        errors.contains("SQS_QUEUE_URL is not set (\"SQS_QUEU_URL\" is, is that it?): must be")
    );
    assert!(errors.contains("INVENTORY_GRPC_ADDR is not set: must be"), "{errors}");
}

#[test]
fn other_log_levels_are_mapped_to_the_nearest_with_a_warning() {
    for (given, level, nearest) in [
        ("trace", LogLevel::Debug, "debug"),
        ("Warning", LogLevel::Warn, "warn"),
        ("OFF", LogLevel::Error, "error"),
    ] {
        let config = with(&[("LOG_LEVEL", given)]).unwrap();
        assert_eq!(config.log.level, level, "{given}");
        let said = format!(
            "LOG_LEVEL is \"{given}\", which is taken as {nearest}: allowed is one of debug, info, warn, error"
        );
        assert_eq!(config.warnings, [said]);
    }
    assert!(refused("LOG_LEVEL", "fatal").contains("one of debug"));
}

#[test]
fn each_variable_of_the_go_worker_causes_a_warning_with_its_replacement() {
    for (name, value, instead) in [
        (
            "USE_SECRET_MANAGER",
            "true",
            "SQS_QUEUE_URL, INVENTORY_GRPC_ADDR and RESERVATION_API_BASE",
        ),
        ("SECRET_NAME", "tickets/reservation-worker", "set the variables themselves"),
        ("GRPC_DEBUG_PORT", "8041", "SERVER_PORT"),
        ("PORT", "8040", "SERVER_PORT"),
        ("REDIS_ADDRESS", "redis:6379", "IDEMPOTENCY_STORE=redis://"),
    ] {
        let config = with(&[(name, value)]).unwrap();
        let [warning] = config.warnings.as_slice() else {
            panic!("{name}: {:?}", config.warnings);
        };
        assert!(warning.starts_with(&format!("{name} is set, which nobody reads: ")), "{warning}");
        assert!(warning.contains(instead), "{warning}");
        assert!(!warning.contains(value), "the value is shown: {warning}");
        assert_eq!(
            with(&[(name, "")]).unwrap().warnings,
            [""; 0],
            "{name}: a warning about an empty variable"
        );
    }
}

#[test]
fn a_missing_variable_is_reported_with_a_set_use_secret_manager() {
    let vars = [("USE_SECRET_MANAGER".to_owned(), "true".to_owned())];
    let errors = Config::from_vars(vars).unwrap_err().to_string();
    for (name, _) in REQUIRED {
        let said =
            format!("{name} is not set (USE_SECRET_MANAGER is, which nobody reads): must be ");
        assert!(errors.contains(&said), "{errors}");
    }
}
