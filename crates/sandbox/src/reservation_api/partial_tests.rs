//! Tests of partial faults over real connections: a share of the reservations, a rate limit, a
//! capacity.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::ReservationApi;
use super::tests::{LIMIT, get, patch};
use crate::ledger::{Service, Tally};
use crate::script::{Capacity, Faults, RateLimit, Rule, Scripted, is_in_share};

async fn status(api: &ReservationApi, id: &str) -> u16 {
    patch(api, id, id, "EXPIRED").send().await.unwrap().status().as_u16()
}

fn tally(api: &ReservationApi) -> Tally {
    Tally::of(&api.ledger().calls(), Service::ReservationApi)
}

#[tokio::test]
async fn a_rule_fails_only_its_share_of_the_reservations() {
    let api = ReservationApi::start().await;
    api.set_rules([Rule::share(0.1, Scripted::<super::Reply>::status(503))]);
    for number in 0..100 {
        let id = format!("rsv_{number}");
        let expected = if is_in_share(&id, 0.1) { 503 } else { 200 };
        assert_eq!(status(&api, &id).await, expected);
        assert_eq!(get(&api, &id).await.status(), expected, "a read has the same result");
    }
    let failed = tally(&api).failed;
    assert!((8..=32).contains(&failed), "{failed} of 200");
    api.set_rules([]);
    for number in 0..100 {
        assert_eq!(status(&api, &format!("rsv_{number}")).await, 200);
    }
}

#[tokio::test]
async fn a_rule_responds_with_its_status_headers_and_body() {
    let api = ReservationApi::start().await;
    let html = Scripted::<super::Reply>::status(200).without_error_body();
    let proxied = html.header("Content-Type", "text/html");
    let paced = Scripted::<super::Reply>::status(503).header("Retry-After", "300");
    api.set_rules([
        Rule::of(|id| id == "html", proxied),
        Rule::of(|id| id == "paced", paced),
        Rule::of(|id| id == "refused", Scripted::<super::Reply>::status(422)),
    ]);
    let ask = async |id: &str| {
        let answer = patch(&api, id, id, "EXPIRED").send().await.unwrap();
        let header = |name| answer.headers().get(name).map(|it| it.to_str().unwrap().to_owned());
        let (status, named) = (answer.status().as_u16(), header("retry-after"));
        let kind = header("content-type").unwrap_or_default();
        (status, named, kind, answer.text().await.unwrap())
    };
    let (status, _, kind, body) = ask("html").await;
    assert_eq!((status, kind.as_str()), (200, "text/html"));
    assert!(!body.contains("error\":"), "{body}");
    let (status, named, _, _) = ask("paced").await;
    assert_eq!((status, named.as_deref()), (503, Some("300")));
    let (status, _, kind, body) = ask("refused").await;
    assert_eq!((status, kind.as_str()), (422, "application/json"));
    assert!(body.contains("\"trace_id\""), "the body is the API's own error: {body}");
    assert_eq!(api.ledger().totals().effects, 0);
}

#[tokio::test]
async fn random_faults_refuse_their_share_of_calls_for_one_reservation() {
    let api = ReservationApi::start().await;
    let later = Scripted::<super::Reply>::status(429).header("Retry-After", "1");
    api.set_faults(Faults::none().seed(3).with(0.2, later));
    let mut later = 0;
    for _ in 0..200 {
        later += u32::from(status(&api, "one").await == 429);
    }
    assert!((20..=60).contains(&later), "{later} of 200");
    assert_eq!(tally(&api).refused, u64::from(later));
    assert_eq!(api.ledger().totals().effects, 1);
}

#[tokio::test]
async fn calls_above_the_rate_limit_are_refused_with_retry_after() {
    let api = ReservationApi::start().await;
    api.set_rate_limit(Some(RateLimit::per_second(1).burst(3)));
    let began = Instant::now();
    let mut refused = 0;
    for number in 0..10 {
        let id = number.to_string();
        let answer = patch(&api, &id, &id, "EXPIRED").send().await.unwrap();
        if answer.status() == 429 {
            assert_eq!(answer.headers()["retry-after"], "1");
            refused += 1;
        }
    }
    let let_in = 3 + began.elapsed().as_secs();
    let found = tally(&api);
    assert_eq!((found.calls, found.refused), (10, refused));
    assert!(found.served >= 3 && found.served <= let_in + 1, "{found:?}");
    api.set_rate_limit(None);
    assert_eq!(status(&api, "free").await, 200);
}

#[tokio::test]
async fn an_abandoned_call_keeps_its_place_and_counts_as_thrown_away() {
    let api = ReservationApi::start().await;
    let time = Duration::from_secs(1);
    api.set_capacity(Some(Capacity::new(1, time)));
    let began = Instant::now();
    let mut impatient = JoinSet::new();
    for number in 0..2 {
        impatient.spawn(patch(&api, &number.to_string(), &number.to_string(), "EXPIRED").send());
    }
    // A call takes its place when it arrives.
    let two = |ledger: &crate::ledger::Ledger| ledger.totals().calls == 2;
    assert!(api.ledger().wait_until(two, LIMIT).await);
    impatient.shutdown().await;
    assert_eq!(status(&api, "patient").await, 200);
    assert!(
        began.elapsed() >= time * 3,
        "the call waits for both earlier ones: {:?}",
        began.elapsed()
    );
    let expected = Tally { calls: 3, served: 1, thrown_away: 2, ..Tally::default() };
    assert_eq!(tally(&api), expected);
    assert_eq!(api.ledger().totals().effects, 3, "abandoned calls take effect");
}
