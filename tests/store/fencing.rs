//! The contract, case by case: which token may change a claim, and the results of repeated
//! operations.

use std::time::Duration;

use reservation_worker::event::{EventId, Step, StepSet};
use reservation_worker::idempotency::{Claim, ClaimToken, HandledAs, Lost, Store, StoreError};

use crate::bench::{Bench, HASH, LONG, asked, claimed, id, left, request, steps};

/// Returns the results of all operations with a token.
async fn all(store: &dyn Store, id: &EventId, token: ClaimToken) -> [Result<(), StoreError>; 4] {
    [
        store.renew(id.into(), token, Duration::ZERO).await,
        store.record(id.into(), token, steps(&[Step::InventoryCommit])).await,
        store.complete(id.into(), token, HandledAs::Superseded).await,
        store.release(id.into(), token, steps(&[Step::InventoryCommit])).await,
    ]
}

const NONE: [Result<(), StoreError>; 4] = [const { Err(StoreError::NotOwner(Lost::Claim)) }; 4];

pub(crate) async fn another_token_cannot_change_a_claim(bench: &Bench) {
    let (store, id) = (bench.store(), id("fenced"));
    let (token, _) = claimed(&*store, &id, LONG).await;
    assert_eq!(all(&*store, &id, ClaimToken::unique()).await, NONE);
    assert!(left(&*store, &id).await > Duration::ZERO, "the claim was changed");
    store.release((&id).into(), token, StepSet::EMPTY).await.unwrap();
    assert_eq!(claimed(&*store, &id, LONG).await.1, StepSet::EMPTY);
}

pub(crate) async fn the_former_owner_of_a_lost_claim_cannot_change_it(bench: &Bench) {
    let (store, id) = (bench.store(), id("lost"));
    let (loser, _) = claimed(&*store, &id, Duration::ZERO).await;
    let (winner, _) = claimed(&*store, &id, LONG).await;
    assert_eq!(all(&*store, &id, loser).await, NONE);
    let claim = store.claim((&id).into(), request(HASH, loser, LONG)).await.unwrap();
    assert!(matches!(claim, Claim::Elsewhere(_)), "{claim:?}");
    store.complete((&id).into(), winner, HandledAs::Applied).await.unwrap();
    assert_eq!(
        all(&*store, &id, loser).await,
        NONE,
        "the former owner changed the completed event"
    );
}

pub(crate) async fn an_unknown_event_has_no_owner(bench: &Bench) {
    let (store, id) = (bench.store(), id("not-known"));
    assert_eq!(all(&*store, &id, ClaimToken::unique()).await, NONE);
    assert_eq!(claimed(&*store, &id, LONG).await.1, StepSet::EMPTY);
}

pub(crate) async fn a_repeated_operation_has_the_same_result(bench: &Bench) {
    let store = bench.store();
    for end in ["complete", "release"] {
        let id = id(&format!("repeated-{end}"));
        let (token, _) = claimed(&*store, &id, LONG).await;
        for _ in 0..2 {
            store.renew((&id).into(), token, LONG).await.unwrap();
        }
        for _ in 0..2 {
            store.record((&id).into(), token, steps(&[Step::ReservationStatus])).await.unwrap();
        }
        for _ in 0..3 {
            match end {
                "complete" => store.complete((&id).into(), token, HandledAs::Applied).await,
                _ => store.release((&id).into(), token, StepSet::EMPTY).await,
            }
            .unwrap();
        }
        let claim = asked(&*store, &id).await;
        let is_once = match end {
            "complete" => matches!(claim, Claim::Handled(it) if it.how == HandledAs::Applied),
            _ => claim == Claim::Ours(steps(&[Step::ReservationStatus])),
        };
        assert!(is_once, "{end}: {claim:?}");
    }
}

pub(crate) async fn a_completed_or_released_claim_has_no_owner(bench: &Bench) {
    let store = bench.store();
    let (handled, given_up) = (id("ended-handled"), id("ended-given-up"));
    let (token, _) = claimed(&*store, &handled, LONG).await;
    store.complete((&handled).into(), token, HandledAs::Applied).await.unwrap();
    let [renew, record, complete, release] = all(&*store, &handled, token).await;
    assert_eq!([renew, record, release], [const { Err(StoreError::NotOwner(Lost::Claim)) }; 3]);
    assert_eq!(complete, Ok(()), "a repeated completion");
    let claim = asked(&*store, &handled).await;
    assert!(
        matches!(claim, Claim::Handled(it) if it.how == HandledAs::Applied),
        "the completed event was changed"
    );

    let (token, _) = claimed(&*store, &given_up, LONG).await;
    store.release((&given_up).into(), token, StepSet::EMPTY).await.unwrap();
    let [renew, record, complete, release] = all(&*store, &given_up, token).await;
    assert_eq!([renew, record, complete], [const { Err(StoreError::NotOwner(Lost::Claim)) }; 3]);
    assert_eq!(release, Ok(()), "a repeated release");
    assert_eq!(claimed(&*store, &given_up, LONG).await.1, StepSet::EMPTY);
}
