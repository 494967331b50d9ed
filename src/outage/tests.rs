//! Tests of the permits for calls.
#![allow(clippy::unwrap_used)]

use futures_util::FutureExt;

use super::*;

const CALLS_MAX: usize = 2;

fn outages() -> Arc<Outages> {
    let settings = OutageSettings {
        calls_max: CALLS_MAX,
        calls_min: 1,
        reservation_target: None,
        inventory_target: None,
    };
    Arc::new(Outages::new(settings, Arc::new(Metrics::new(&[]))))
}

/// A handler may panic, or be cut off at shutdown, before its call is answered.
#[test]
fn a_call_that_is_given_up_leaves_its_place_to_another() {
    let outages = outages();
    let enter = |subject: u32| outages.enter(Dependency::Inventory, &subject);
    for subject in 0..10 {
        let permits = [enter(subject).unwrap(), enter(100 + subject).unwrap()];
        let full = CallDenied { is_away: false, is_fresh: true, is_suspect: false };
        assert_eq!(enter(200).unwrap_err(), full);
        assert_eq!(outages.changed().now_or_never(), None, "nothing has changed");
        drop(permits);
        assert_eq!(outages.changed().now_or_never(), Some(()), "who waits is told");
    }
}
