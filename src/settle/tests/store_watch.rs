//! The watch of the store: an idle worker knows too whether its events could be claimed.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::sleep;

use super::engine::Engine;
use crate::client::Load;
use crate::outage::{CallOutcome, Dependency, Shard};

#[tokio::test(start_paused = true)]
async fn a_store_counts_as_away_while_it_cannot_be_reached_or_fails_its_operations() {
    let engine = Engine::new();
    let works = || engine.health.parts_ready()[1].1;
    let watch = tokio::spawn(engine.settler.idempotency.clone().watch(|_| ()));
    for is_cut_off in [true, false, true, false] {
        engine.store.is_cut_off.store(is_cut_off, Ordering::Relaxed);
        sleep(Duration::from_secs(11)).await;
        assert_eq!(works(), !is_cut_off);
    }
    for subject in 0..20 {
        let shard = Dependency::Store(Shard::default());
        if let Ok(permit) = engine.settler.outages.enter(shard, &subject) {
            permit.report(CallOutcome::Outage, Load::Unknown, Duration::ZERO);
        }
    }
    sleep(Duration::from_secs(11)).await;
    assert!(!works(), "it answers, and fails its operations");
    assert!(!watch.is_finished());
}
