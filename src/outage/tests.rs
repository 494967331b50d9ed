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

fn shard(part: u16) -> Dependency {
    Dependency::Store(Shard::new(part, 16))
}

/// Makes as many calls to a part of the store, each for another event, as may be needed to open or
/// close its breaker.
fn calls(outages: &Arc<Outages>, part: u16, outcome: CallOutcome) {
    for subject in 0..20_u32 {
        if let Ok(permit) = outages.enter(shard(part), &subject) {
            permit.report(outcome, Load::Unknown, Duration::ZERO);
        }
    }
}

/// Returns what may be released now of the events that wait for a part of the store.
fn due(outages: &Outages, part: u16) -> Due {
    let waiting = Waiting { tried: 2, ..Waiting::default() };
    outages.due(shard(part), waiting, Instant::now()).0
}

#[tokio::test(start_paused = true)]
async fn a_part_of_the_store_that_is_away_is_counted_until_it_is_back() {
    let outages = outages();
    assert_eq!(outages.store_shards_away(), 0);
    calls(&outages, 3, CallOutcome::Outage);
    calls(&outages, 7, CallOutcome::Outage);
    assert!(outages.store_shards_away() == 2 && outages.is_store_away());
    for (part, away) in [(3, 1), (7, 0)] {
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(due(&outages, part), Due::Probe);
        calls(&outages, part, CallOutcome::Done);
        assert_eq!(outages.store_shards_away(), away, "{part}");
    }
    assert!(outages.troubled.is_none());
}

/// Whatever ended its outage may have ended theirs.
#[tokio::test(start_paused = true)]
async fn the_other_parts_of_the_store_are_probed_at_once_when_one_is_back() {
    let (outages, slow) = (outages(), Duration::from_secs(1));
    let enter = |part, subject: u32| outages.enter(shard(part), &subject).unwrap();
    for part in [3, 7] {
        calls(&outages, part, CallOutcome::Outage);
    }
    tokio::time::advance(Duration::from_secs(120)).await;
    assert_eq!(due(&outages, 7), Due::Probe);
    enter(7, 100).report(CallOutcome::Outage, Load::Unknown, slow);
    assert_eq!(due(&outages, 7), Due::Calls(0), "its next probe is seconds away");
    assert_eq!(due(&outages, 3), Due::Probe);
    enter(3, 101).report(CallOutcome::Done, Load::Unknown, slow);
    assert_eq!(due(&outages, 7), Due::Probe);
}
