//! Names that are nearly ours, and levels that are nearly ours: taken for what they are, and told.

use super::*;

#[test]
fn a_name_that_is_nearly_one_of_ours_is_warned_of() {
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
fn levels_that_other_programs_know_are_taken_as_their_nearest_and_told() {
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
