//! Tests of the permits for calls.
#![allow(clippy::unwrap_used)]

use futures_util::FutureExt;

use super::*;
use crate::metrics::BreakerState;

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
    assert!(outages.troubled.is_none() && !outages.is_store_away());
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

#[tokio::test(start_paused = true)]
async fn a_part_of_the_store_is_away_alone_only_while_another_serves() {
    let outages = outages();
    let is_alone = |seconds| outages.is_away_alone_for(shard(3), Duration::from_secs(seconds));
    calls(&outages, 3, CallOutcome::Outage);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(!is_alone(60), "no other part has ever been called");
    calls(&outages, 7, CallOutcome::Done);
    assert!(is_alone(60) && !is_alone(61));
    calls(&outages, 7, CallOutcome::Outage);
    assert!(!is_alone(60), "both are away");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(due(&outages, 7), Due::Probe);
    calls(&outages, 7, CallOutcome::Done);
    assert!(is_alone(0) && !is_alone(60), "the other one is just back");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert!(is_alone(60));
    assert_eq!(due(&outages, 3), Due::Probe);
    calls(&outages, 3, CallOutcome::Done);
    assert!(!is_alone(0));
}

/// Takes a service down, or pauses it, by calls one after the other for distinct reservations.
fn harm(outages: &Arc<Outages>, dependency: Dependency, outcome: CallOutcome) {
    for subject in 0..20_u32 {
        if let Ok(permit) = outages.enter(dependency, &subject) {
            permit.report(outcome, Load::Unknown, Duration::ZERO);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_away_neither_limits_nor_rations_receives() {
    let settings = OutageSettings {
        calls_max: 50,
        calls_min: 1,
        reservation_target: None,
        inventory_target: Some(Duration::from_millis(100)),
    };
    let outages = Arc::new(Outages::new(settings, Arc::new(Metrics::new(&[]))));
    assert_eq!(outages.smallest_limit(), 4, "the slow start of the Inventory service");
    harm(&outages, Dependency::Inventory, CallOutcome::Outage);
    assert!(outages.is_away(Dependency::Inventory) && !outages.is_rationed());
    assert!(!outages.is_away(Dependency::ReservationApi));
    assert_eq!(outages.smallest_limit(), 50, "only the Reservation API is called");
    harm(&outages, Dependency::ReservationApi, CallOutcome::Outage);
    assert_eq!(outages.smallest_limit(), 50, "no limit is known");
}

#[tokio::test(start_paused = true)]
async fn a_short_pause_rations_receives_and_a_long_one_is_an_outage() {
    for (seconds, is_rationed) in [(3, true), (300, false)] {
        let outages = outages();
        assert!(!outages.is_rationed());
        let time = Duration::from_secs(seconds);
        harm(&outages, Dependency::Inventory, CallOutcome::Paced(Some(time)));
        assert_eq!(outages.is_rationed(), is_rationed, "{seconds} s");
        assert_eq!(outages.is_away(Dependency::Inventory), !is_rationed, "{seconds} s");
        tokio::time::advance(time).await;
        assert!(!outages.is_rationed() && !outages.is_away(Dependency::Inventory));
    }
}

/// A query is made for events with a conflict only. That it fails for all of these may be because
/// the token must not query, or because of the events.
#[test]
fn a_failed_query_is_the_events_own_only_if_the_reservation_api_works() {
    for (other, outcome, is_suspect) in [
        (Dependency::ReservationApi, CallOutcome::Done, true),
        (Dependency::ReservationApi, CallOutcome::Conflict, true),
        (Dependency::ReservationApi, CallOutcome::Failing, false),
        (Dependency::Inventory, CallOutcome::Done, false),
    ] {
        let outages = outages();
        let call = |dependency, subject: u32, outcome| {
            let permit = outages.enter(dependency, &subject).unwrap();
            permit.report(outcome, Load::Unknown, Duration::ZERO)
        };
        call(Dependency::ReservationQuery, 1, CallOutcome::Failing);
        call(other, 2, outcome);
        let snapshot = call(Dependency::ReservationQuery, 1, CallOutcome::Failing);
        assert_eq!(snapshot.is_suspect, is_suspect, "{other:?} {outcome:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_failed_without_a_success_since_waits_as_long_as_a_probe() {
    let outages = outages();
    let fail = |subject: u32| {
        let permit = outages.enter(Dependency::Inventory, &subject).unwrap();
        permit.report(CallOutcome::Failing, Load::Unknown, Duration::ZERO).probe_wait()
    };
    assert!(fail(1) <= Duration::from_secs(1));
    tokio::time::advance(Duration::from_secs(120)).await;
    assert!((5..=10).contains(&fail(2).as_secs()));
}

/// Whatever waits is asked about again after each answer that may let it go on.
#[test]
fn an_answer_is_told_to_those_that_wait() {
    let outages = outages();
    let enter = |subject: u32| outages.enter(Dependency::Inventory, &subject);
    let done = |permit: CallPermit| permit.report(CallOutcome::Done, Load::Unknown, Duration::ZERO);
    let is_told = || outages.changed().now_or_never().is_some();
    done(enter(1).unwrap());
    assert!(!is_told(), "no event waits");
    let permits = [enter(2).unwrap(), enter(3).unwrap()];
    enter(4).unwrap_err();
    permits.into_iter().for_each(|permit| _ = done(permit));
    assert!(is_told(), "4 waits");
    outages.due(Dependency::Inventory, Waiting::default(), Instant::now());
    harm(&outages, Dependency::Inventory, CallOutcome::Outage);
    assert!(is_told(), "it is down");
}

/// Returns the value of a series of the Inventory service.
fn shown(outages: &Outages, name: &str, labels: &str) -> String {
    let mut text = Vec::new();
    outages.metrics.render(&mut text).unwrap();
    let text = String::from_utf8(text).unwrap();
    let series = format!("{name}{{{labels}}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap_or_else(|| panic!("no {series}in {text}")).to_owned()
}

#[tokio::test(start_paused = true)]
async fn operators_see_in_what_state_a_service_is() {
    let outages = outages();
    let inventory = r#"service="inventory""#;
    let shown = |name: &str| shown(&outages, name, inventory);
    let state = || outages.metrics.breaker_state(Service::Inventory);
    let limit_and_calls = || (shown("worker_concurrency_limit"), shown("worker_calls_in_flight"));
    assert_eq!(limit_and_calls(), ("2".into(), "0".into()));
    harm(&outages, Dependency::Inventory, CallOutcome::Refused);
    assert_eq!((state(), shown("worker_refusing")), (Some(BreakerState::Open), "1".into()));

    tokio::time::advance(Duration::from_secs(60)).await;
    let waiting = Waiting { fresh: 3, ..Waiting::default() };
    assert_eq!(outages.due(Dependency::Inventory, waiting, Instant::now()).0, Due::Probe);
    let probe = outages.enter(Dependency::Inventory, &100).unwrap();
    outages.due(Dependency::Inventory, waiting, Instant::now());
    assert_eq!(state(), Some(BreakerState::HalfOpen), "a probe is open");
    assert_eq!(shown("worker_calls_in_flight"), "1");
    probe.report(CallOutcome::Done, Load::Answered, Duration::ZERO);
    assert_eq!((state(), shown("worker_refusing")), (Some(BreakerState::HalfOpen), "0".into()));
    assert_eq!(limit_and_calls(), ("1".into(), "0".into()), "the slow start");
    outages.due(Dependency::Inventory, Waiting::default(), Instant::now());
    assert_eq!(state(), Some(BreakerState::Closed), "no event waits");

    drop(outages.enter(Dependency::Inventory, &101).unwrap());
    assert_eq!(shown("worker_calls_in_flight"), "0", "given up");
}

#[test]
fn operators_see_paced_answers_and_pauses() {
    let outages = outages();
    let paced = |scope: &str| {
        let labels = format!(r#"scope="{scope}",service="inventory""#);
        shown(&outages, "worker_paced_total", &labels).parse::<u32>().unwrap()
    };
    harm(&outages, Dependency::Inventory, CallOutcome::Paced(Some(Duration::from_secs(60))));
    assert_eq!(paced("service"), 1);
    assert!((2..=10).contains(&paced("event")), "{}", paced("event"));
}

#[test]
fn a_service_with_several_parts_shows_the_worst_of_them() {
    let outages = outages();
    let state = || outages.metrics.breaker_state(Service::Store);
    calls(&outages, 3, CallOutcome::Outage);
    calls(&outages, 7, CallOutcome::Done);
    outages.due(shard(7), Waiting::default(), Instant::now());
    assert_eq!(state(), Some(BreakerState::Open));
    assert_eq!(outages.metrics.breaker_state(Service::Inventory), Some(BreakerState::Closed));
}
