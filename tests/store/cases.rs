//! The contract, case by case: claims, completed events, released events, expiry.

use std::time::{Duration, SystemTime};

use reservation_worker::event::{Step, StepSet};
use reservation_worker::idempotency::{Claim, ClaimToken, Handled, HandledAs};
use tokio::task::JoinSet;

use crate::bench::{
    Bench, HASH, LIMIT, LONG, OTHER_HASH, SHORT, asked, claimed, eventually, id, left, request,
    steps,
};

pub(crate) async fn an_unknown_event_can_be_claimed_once(bench: &Bench) {
    let (store, id) = (bench.store(), id("first"));
    store.ping().await.unwrap();
    let (_, done) = claimed(&*store, &id, LONG).await;
    assert_eq!(done, StepSet::EMPTY);
    let left = left(&*store, &id).await;
    assert!(left <= LONG && left + LIMIT > LONG, "{left:?}");
}

pub(crate) async fn a_repeated_claim_with_the_same_token_renews_it(bench: &Bench) {
    let (store, id) = (bench.store(), id("again"));
    let (token, _) = claimed(&*store, &id, SHORT).await;
    store.record((&id).into(), token, steps(&[Step::ReservationStatus])).await.unwrap();
    let again = store.claim((&id).into(), request(HASH, token, LONG)).await.unwrap();
    assert_eq!(again, Claim::Ours(steps(&[Step::ReservationStatus])));
    assert!(left(&*store, &id).await > SHORT);
}

pub(crate) async fn a_renewal_never_shortens_a_claim(bench: &Bench) {
    let (store, id) = (bench.store(), id("renewed"));
    let (token, _) = claimed(&*store, &id, SHORT).await;
    store.renew((&id).into(), token, LONG).await.unwrap();
    assert!(left(&*store, &id).await > SHORT);
    store.renew((&id).into(), token, SHORT).await.unwrap();
    assert!(left(&*store, &id).await > SHORT, "a late renewal shortened the claim");
    store.claim((&id).into(), request(HASH, token, SHORT)).await.unwrap();
    assert!(left(&*store, &id).await > SHORT);
}

pub(crate) async fn an_expired_claim_is_taken_over_with_its_steps(bench: &Bench) {
    let (store, id) = (bench.store(), id("ran-out"));
    let (token, _) = claimed(&*store, &id, SHORT).await;
    store.record((&id).into(), token, steps(&[Step::ReservationStatus])).await.unwrap();
    let done = eventually("the claim expires", || async {
        let claim = asked(&*store, &id).await;
        if let Claim::Ours(done) = claim {
            return Some(done);
        }
        assert!(matches!(claim, Claim::Elsewhere(left) if left <= SHORT), "{claim:?}");
        None
    });
    assert_eq!(done.await, steps(&[Step::ReservationStatus]));
}

pub(crate) async fn an_expired_claim_stays_with_its_owner_until_it_is_taken_over(bench: &Bench) {
    let (store, id) = (bench.store(), id("ran-out-still"));
    let (token, _) = claimed(&*store, &id, Duration::ZERO).await;
    store.record((&id).into(), token, steps(&[Step::InventoryCommit])).await.unwrap();
    store.renew((&id).into(), token, LONG).await.unwrap();
    assert!(left(&*store, &id).await > SHORT);
}

pub(crate) async fn a_completed_event_is_handled_for_every_token(bench: &Bench) {
    let store = bench.store();
    for (name, how) in [("applied", HandledAs::Applied), ("superseded", HandledAs::Superseded)] {
        let id = id(name);
        let (token, _) = claimed(&*store, &id, LONG).await;
        store.complete((&id).into(), token, how).await.unwrap();
        for asks in [token, ClaimToken::unique()] {
            let claim = store.claim((&id).into(), request(HASH, asks, LONG)).await.unwrap();
            let Claim::Handled(Handled { how: found, at }) = claim else { panic!("{claim:?}") };
            assert_eq!(found, how);
            let apart = match SystemTime::now().duration_since(at) {
                Ok(ago) => ago,
                Err(ahead) => ahead.duration(),
            };
            assert!(apart < LIMIT, "{apart:?}");
        }
    }
}

pub(crate) async fn a_completed_event_is_forgotten_after_its_time_to_live(bench: &Bench) {
    let (store, id) = (bench.store_that_keeps(SHORT), id("forgotten"));
    let (token, _) = claimed(&*store, &id, LONG).await;
    store.complete((&id).into(), token, HandledAs::Applied).await.unwrap();
    assert!(matches!(asked(&*store, &id).await, Claim::Handled(_)));
    let done = eventually("the record expires", || async {
        if let Claim::Ours(done) = asked(&*store, &id).await { Some(done) } else { None }
    });
    assert_eq!(done.await, StepSet::EMPTY);
}

pub(crate) async fn a_claim_outlives_the_time_to_live(bench: &Bench) {
    let (store, mark, id) = (bench.store_that_keeps(SHORT), id("mark"), id("outlives"));
    let (token, _) = claimed(&*store, &id, LONG).await;
    store.record((&id).into(), token, steps(&[Step::ReservationStatus])).await.unwrap();
    // The mark is completed at the same time and shows when the time to live is over.
    let (marks, _) = claimed(&*store, &mark, LONG).await;
    store.complete((&mark).into(), marks, HandledAs::Applied).await.unwrap();
    eventually("the mark expires", || async {
        matches!(asked(&*store, &mark).await, Claim::Ours(_)).then_some(())
    })
    .await;
    assert!(left(&*store, &id).await > SHORT);
    store.complete((&id).into(), token, HandledAs::Applied).await.unwrap();
}

pub(crate) async fn a_released_event_keeps_its_steps(bench: &Bench) {
    let (store, id) = (bench.store(), id("given-up"));
    let (token, _) = claimed(&*store, &id, LONG).await;
    store.record((&id).into(), token, steps(&[Step::ReservationStatus])).await.unwrap();
    store.record((&id).into(), token, steps(&[Step::InventoryRelease])).await.unwrap();
    store.record((&id).into(), token, StepSet::EMPTY).await.unwrap();
    store.release((&id).into(), token, steps(&[Step::InventoryCommit])).await.unwrap();
    let (token, done) = claimed(&*store, &id, LONG).await;
    assert_eq!(done, steps(&Step::ALL), "steps of `record` and of `release`");
    store.release((&id).into(), token, StepSet::EMPTY).await.unwrap();
    assert_eq!(
        claimed(&*store, &id, LONG).await.1,
        steps(&Step::ALL),
        "steps after the second release"
    );
}

pub(crate) async fn an_event_released_before_its_first_step_is_free(bench: &Bench) {
    let (store, id) = (bench.store(), id("given-up-early"));
    let (token, _) = claimed(&*store, &id, LONG).await;
    store.release((&id).into(), token, StepSet::EMPTY).await.unwrap();
    assert_eq!(claimed(&*store, &id, LONG).await.1, StepSet::EMPTY);
}

pub(crate) async fn the_steps_of_a_released_event_expire(bench: &Bench) {
    let (store, id) = (bench.store_that_keeps(SHORT), id("given-up-long-ago"));
    let (token, _) = claimed(&*store, &id, LONG).await;
    store.release((&id).into(), token, steps(&[Step::ReservationStatus])).await.unwrap();
    eventually("the steps expire", || async {
        // With another content, the id is not claimed as long as the record exists.
        let claim = store
            .claim((&id).into(), request(OTHER_HASH, ClaimToken::unique(), LONG))
            .await
            .unwrap();
        assert!(matches!(claim, Claim::IdReused(HASH) | Claim::Ours(StepSet::EMPTY)), "{claim:?}");
        (claim == Claim::Ours(StepSet::EMPTY)).then_some(())
    })
    .await;
}

pub(crate) async fn an_id_with_another_content_is_reported_as_reused_in_every_state(bench: &Bench) {
    let store = bench.store();
    for state in ["in-progress", "ran-out", "given-up", "handled"] {
        let id = id(&format!("reused-{state}"));
        let lasts = if state == "ran-out" { Duration::ZERO } else { LONG };
        let (token, _) = claimed(&*store, &id, lasts).await;
        match state {
            "given-up" => {
                store.release((&id).into(), token, steps(&[Step::ReservationStatus])).await
            }
            "handled" => store.complete((&id).into(), token, HandledAs::Applied).await,
            _ => store.record((&id).into(), token, steps(&[Step::ReservationStatus])).await,
        }
        .unwrap();
        for asks in [token, ClaimToken::unique()] {
            let claim = store.claim((&id).into(), request(OTHER_HASH, asks, LONG)).await.unwrap();
            assert_eq!(claim, Claim::IdReused(HASH), "{state}");
        }
        // The record is unchanged.
        let claim = asked(&*store, &id).await;
        let is_as_before = match state {
            "in-progress" => matches!(claim, Claim::Elsewhere(_)),
            "handled" => matches!(claim, Claim::Handled(_)),
            _ => claim == Claim::Ours(steps(&[Step::ReservationStatus])),
        };
        assert!(is_as_before, "{state}: {claim:?}");
    }
}

pub(crate) async fn one_of_a_thousand_concurrent_claims_is_granted(bench: &Bench) {
    let (store, id) = (bench.store(), id("crowd"));
    let mut crowd = JoinSet::new();
    for _ in 0..1_000 {
        let (store, id) = (store.clone(), id.clone());
        crowd.spawn(async move {
            store.claim((&id).into(), request(HASH, ClaimToken::unique(), LONG)).await.unwrap()
        });
    }
    let claims = crowd.join_all().await;
    let ours = claims.iter().filter(|claim| matches!(claim, Claim::Ours(_))).count();
    let elsewhere = claims.iter().filter(|claim| matches!(claim, Claim::Elsewhere(_))).count();
    assert_eq!((ours, elsewhere), (1, 999));
}

pub(crate) async fn every_valid_id_has_its_own_record(bench: &Bench) {
    let store = bench.store();
    let long = "x".repeat(256);
    let longer_by_less = "x".repeat(255);
    let ids = [
        "{}",
        "{",
        "}",
        "{a}b",
        "{a}c",
        "}{",
        "*",
        "?",
        "[a]",
        " ",
        "  ",
        "a b",
        "'",
        "\"",
        "\\",
        "\\x00",
        "%00",
        "$1",
        "é",
        "e\u{301}",
        "🎫",
        "\u{feff}",
        "\u{202e}",
        "\u{fffd}",
        ".",
        "..",
        "a:b",
        ":",
        "test:",
        "0",
        "-1",
        "nil",
        &long,
        &longer_by_less,
    ];
    let mut tokens = Vec::new();
    for (number, text) in ids.iter().enumerate() {
        let (token, done) = claimed(&*store, &id(text), LONG).await;
        assert_eq!(done, StepSet::EMPTY, "{text}");
        store.record((&id(text)).into(), token, steps(&[Step::ALL[number % 3]])).await.unwrap();
        tokens.push(token);
    }
    for (number, (text, token)) in ids.iter().zip(tokens).enumerate() {
        store.release((&id(text)).into(), token, StepSet::EMPTY).await.unwrap();
        let (_, done) = claimed(&*store, &id(text), LONG).await;
        assert_eq!(done, steps(&[Step::ALL[number % 3]]), "{text}");
    }
}
