//! What the end of an attempt is called: by the log, by spans, and by the status.

use super::engine::Engine;
use super::verdicts::{charged, failed};
use crate::client::Class;
use crate::handler::AttemptOutcome;
use crate::idempotency::StoreError;
use crate::inflight::ParkedAs;
use crate::outage::Dependency;
use crate::settle::report::describe;

fn parked(is_full: bool) -> AttemptOutcome {
    let how = ParkedAs { is_fresh: true, is_full, is_suspect: false };
    AttemptOutcome::Parked { dependency: Dependency::Inventory, error: None, how }
}

#[tokio::test(start_paused = true)]
async fn the_status_shows_the_code_of_the_log_unless_the_class_says_it() {
    let mut engine = Engine::new();
    let job = engine.begun("e1").await;
    let code = describe(&failed(Class::Transient, None, charged(true))).0;
    for (end, class, code) in [
        (failed(Class::Transient, None, charged(true)), "transient", code.as_str()),
        (parked(true), "waiting", "full"),
        (parked(false), "waiting", "away"),
        (AttemptOutcome::Unclear { found: "ODD".to_owned() }, "unclear_status", "unclear_status"),
        (AttemptOutcome::HoldUnknown, "invalid_event", "invalid_event"),
        (AttemptOutcome::LeaseLost, "lease_lost", "lease_lost"),
        (AttemptOutcome::Store(StoreError::unavailable("x")), "store", "store"),
        (AttemptOutcome::Panicked, "panic", "panic"),
    ] {
        assert_eq!(describe(&end).0, code);
        engine.settler.failures.add_attempt(&job, &end, "retry");
        let shown = engine.settler.failures.latest().remove(0);
        let expected = if code == class { "" } else { code };
        assert_eq!((shown.class, shown.code.as_str()), (class, expected));
    }
}
