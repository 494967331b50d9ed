//! Tests of the Inventory service's contract over real connections.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tonic_types::StatusExt;

use super::{ConnectionLife, HoldState, Inventory};
use crate::ledger::{Answer, Effect, Ledger, Service, Tally};
use crate::proto::reservation::v1::inventory_service_client::InventoryServiceClient;
use crate::proto::reservation::v1::{
    CommitReservationRequest, CommitStatus, ReleaseHoldRequest, ReleaseStatus,
};
use crate::script::{Capacity, Faults, RateLimit, Rule, Scripted};

const LIMIT: Duration = Duration::from_secs(60);

async fn client(inventory: &Inventory) -> InventoryServiceClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", inventory.addr())).unwrap();
    InventoryServiceClient::new(endpoint.connect().await.unwrap())
}

fn release(id: &str, key: &str) -> ReleaseHoldRequest {
    ReleaseHoldRequest {
        reservation_id: id.to_owned(),
        event_id: "evt_2025_1001".to_owned(),
        seat_ids: vec!["A-12".to_owned(), "A-13".to_owned()],
        quantity: 2,
        reason: "EXPIRED".to_owned(),
        idempotency_key: key.to_owned(),
    }
}

fn commit(id: &str, key: &str) -> CommitReservationRequest {
    CommitReservationRequest {
        reservation_id: id.to_owned(),
        event_id: "evt_2025_1001".to_owned(),
        seat_ids: Vec::new(),
        quantity: 2,
        payment_intent_id: "pay_xyz789".to_owned(),
        user_id: String::new(),
        idempotency_key: key.to_owned(),
    }
}

#[tokio::test]
async fn a_hold_is_released_or_committed_once() {
    let inventory = Inventory::start().await;
    let mut client = client(&inventory).await;
    let released = client.release_hold(release("a", "a1")).await.unwrap().into_inner();
    assert_eq!(
        (released.status(), inventory.hold("a")),
        (ReleaseStatus::Success, Some(HoldState::Released))
    );
    let again = client.release_hold(release("a", "a2")).await.unwrap().into_inner();
    assert_eq!(again.status(), ReleaseStatus::AlreadyReleased);
    let late = client.commit_reservation(commit("a", "a3")).await.unwrap().into_inner();
    assert_eq!((late.status(), late.order_id.as_str()), (CommitStatus::FailedExpired, ""));
    assert!(late.error.is_some());

    let sold = client.commit_reservation(commit("b", "b1")).await.unwrap().into_inner();
    assert_eq!(
        (sold.status(), inventory.hold("b")),
        (CommitStatus::Success, Some(HoldState::Committed))
    );
    assert!(!sold.order_id.is_empty());
    let twice = client.commit_reservation(commit("b", "b2")).await.unwrap().into_inner();
    assert_eq!(twice.status(), CommitStatus::FailedConflict);
    let give_back = client.release_hold(release("b", "b3")).await.unwrap().into_inner();
    assert_eq!(
        (give_back.status(), inventory.hold("b")),
        (ReleaseStatus::Failed, Some(HoldState::Committed))
    );

    assert_eq!(inventory.ledger().effects_for("a"), [Effect::SeatsReleased]);
    assert_eq!(inventory.ledger().effects_for("b"), [Effect::SeatsCommitted]);
}

#[tokio::test]
async fn a_repeated_key_returns_the_same_response_and_has_one_effect() {
    let inventory = Inventory::start().await;
    let mut client = client(&inventory).await;
    let first = client.commit_reservation(commit("a", "k")).await.unwrap().into_inner();
    let second = client.commit_reservation(commit("a", "k")).await.unwrap().into_inner();
    assert_eq!(first, second);
    client.release_hold(release("b", "l")).await.unwrap();
    let repeated = client.release_hold(release("b", "l")).await.unwrap().into_inner();
    assert_eq!(repeated.status(), ReleaseStatus::Success);
    assert_eq!(inventory.ledger().totals().effects, 2);
    assert_eq!(inventory.ledger().totals().repeated_keys, 2);

    let mut other = commit("a", "k");
    other.quantity = 3;
    for refused in [
        client.commit_reservation(other).await.unwrap_err(),
        client.commit_reservation(commit("c", "l")).await.unwrap_err(),
        client.release_hold(release("c", "k")).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::InvalidArgument);
    }
}

#[tokio::test]
async fn unknown_holds_are_not_found() {
    let inventory = Inventory::start().await;
    inventory.set_auto_create(false);
    let mut client = client(&inventory).await;
    let released = client.release_hold(release("a", "k")).await.unwrap().into_inner();
    assert_eq!(released.status(), ReleaseStatus::NotFound);
    assert_eq!(
        client.commit_reservation(commit("a", "l")).await.unwrap_err().code(),
        Code::NotFound
    );
    inventory.set_hold("a", HoldState::Held);
    let released = client.release_hold(release("a", "k")).await.unwrap().into_inner();
    assert_eq!(released.status(), ReleaseStatus::Success, "a refused request is checked again");
}

#[tokio::test]
async fn invalid_requests_are_refused() {
    let inventory = Inventory::start().await;
    let mut client = client(&inventory).await;
    let broken: [fn(&mut ReleaseHoldRequest); 7] = [
        |request| request.reservation_id.clear(),
        |request| request.event_id.clear(),
        |request| request.idempotency_key.clear(),
        |request| request.quantity = 3,
        |request| request.reason = "BORED".to_owned(),
        |request| {
            request.seat_ids.clear();
            request.quantity = 0;
        },
        |request| {
            request.seat_ids.clear();
            request.quantity = -1;
        },
    ];
    for (number, break_it) in broken.into_iter().enumerate() {
        let mut request = release("a", "k");
        break_it(&mut request);
        let refused = client.release_hold(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "request {number}");
    }
    let mut request = commit("a", "k");
    request.quantity = 0;
    assert_eq!(client.commit_reservation(request).await.unwrap_err().code(), Code::InvalidArgument);
    assert_eq!(inventory.ledger().totals().effects, 0);
}

#[tokio::test]
async fn scripted_codes_details_and_values_are_returned_in_order() {
    let inventory = Inventory::start().await;
    let mut client = client(&inventory).await;
    let pause = Duration::from_secs(3);
    inventory.script_for(
        "a",
        [
            Scripted::code(Code::Unavailable),
            Scripted::code_with_retry_info(Code::ResourceExhausted, pause),
            Scripted::status_value(99),
            Scripted::code(Code::Unknown).applying(),
        ],
    );
    assert_eq!(client.release_hold(release("a", "k")).await.unwrap_err().code(), Code::Unavailable);
    let paced = client.release_hold(release("a", "k")).await.unwrap_err();
    assert_eq!(paced.code(), Code::ResourceExhausted);
    assert_eq!(paced.get_details_retry_info().unwrap().retry_delay, Some(pause));
    assert_eq!(client.commit_reservation(commit("a", "k")).await.unwrap().into_inner().status, 99);
    assert_eq!(inventory.hold("a"), None, "no call has been applied yet");
    assert_eq!(client.release_hold(release("a", "k")).await.unwrap_err().code(), Code::Unknown);
    assert_eq!(inventory.hold("a"), Some(HoldState::Released));
    let answers: Vec<_> = inventory.ledger().calls().into_iter().map(|call| call.answer).collect();
    assert_eq!(
        answers,
        [
            Answer::Grpc(Code::Unavailable),
            Answer::Grpc(Code::ResourceExhausted),
            Answer::GrpcStatus(99),
            Answer::Grpc(Code::Unknown),
        ]
    );
}

#[tokio::test]
async fn a_lost_reply_applies_the_call_and_closes_the_connection() {
    let inventory = Inventory::start().await;
    let mut client = client(&inventory).await;
    inventory.script([Scripted::lost_reply(), Scripted::hang_up()]);
    client.release_hold(release("a", "a")).await.unwrap_err();
    client.release_hold(release("b", "b")).await.unwrap_err();
    assert_eq!(inventory.hold("a"), Some(HoldState::Released));
    assert_eq!(inventory.hold("b"), None);
    assert_eq!(inventory.ledger().calls()[0].answer, Answer::Lost);
    let again = client.release_hold(release("a", "a")).await.unwrap().into_inner();
    assert_eq!(again.status(), ReleaseStatus::Success, "the retry succeeds on a new connection");
}

#[tokio::test]
async fn an_abandoned_call_runs_to_its_end() {
    let inventory = Inventory::start().await;
    let mut client = client(&inventory).await;
    inventory.set_faults(Faults::none().latency(Duration::from_millis(50), Duration::ZERO));
    let mut request = Request::new(release("a", "k"));
    request.metadata_mut().insert("traceparent", "00-a-b-01".parse().unwrap());
    let impatient = tokio::time::timeout(Duration::from_millis(10), client.release_hold(request));
    assert!(impatient.await.is_err());
    let done = |ledger: &Ledger| {
        ledger.calls().first().is_some_and(|call| call.abandoned && call.applied())
    };
    assert!(inventory.ledger().wait_until(done, LIMIT).await);
    assert_eq!(inventory.ledger().calls()[0].traceparent.as_deref(), Some("00-a-b-01"));
}

#[tokio::test]
async fn go_down_refuses_connections_and_come_back_uses_the_same_port() {
    let inventory = Inventory::start().await;
    let mut client = client(&inventory).await;
    inventory.go_down().await.unwrap();
    client.release_hold(release("a", "k")).await.unwrap_err();
    inventory.come_back().await.unwrap();
    let released = client.release_hold(release("a", "k")).await.unwrap().into_inner();
    assert_eq!(released.status(), ReleaseStatus::Success);
}

#[tokio::test]
async fn a_connection_ends_after_its_limit_without_losing_calls() {
    let inventory = Inventory::start().await;
    let two_calls = ConnectionLife { calls_max: Some(2), age_max: None };
    let old_soon = ConnectionLife { calls_max: None, age_max: Some(Duration::from_millis(20)) };
    for (life, count) in [(two_calls, 10), (old_soon, 30)] {
        inventory.set_connection_life(life);
        let slow = Faults::none().latency(Duration::from_millis(5), Duration::ZERO);
        inventory.set_faults(slow);
        let mut client = client(&inventory).await;
        for n in 0..count {
            // Between two connections, the channel may refuse a call without sending it.
            let id = format!("{count}-{n}");
            while let Err(refused) = client.release_hold(release(&id, &id)).await {
                assert!(
                    matches!(refused.code(), Code::Unavailable | Code::Unknown | Code::Cancelled),
                    "{refused}"
                );
            }
            assert_eq!(inventory.hold(&id), Some(HoldState::Released));
        }
    }
    assert_eq!(
        inventory.ledger().totals().repeated_keys,
        0,
        "every call that arrived was answered"
    );
}

#[tokio::test]
async fn rules_and_rate_limits_respond_with_their_codes() {
    let inventory = Inventory::start().await;
    let mut client = client(&inventory).await;
    let pause = Duration::from_secs(5);
    let paced = Scripted::code_with_retry_info(Code::Aborted, pause);
    inventory.set_rules([
        Rule::of(|id| id == "paced", paced),
        Rule::of(|id| id == "bad", Scripted::code(Code::Internal)),
    ]);
    for _ in 0..2 {
        let told = client.release_hold(release("paced", "p")).await.unwrap_err();
        assert_eq!(told.code(), Code::Aborted);
        assert_eq!(told.get_details_retry_info().unwrap().retry_delay, Some(pause));
        let told = client.release_hold(release("bad", "b")).await.unwrap_err();
        assert_eq!(told.code(), Code::Internal);
        assert!(told.get_details_retry_info().is_none());
        client.release_hold(release("good", "g")).await.unwrap();
    }
    inventory.set_rate_limit(Some(RateLimit::per_second(1).burst(1)));
    client.release_hold(release("a", "a")).await.unwrap();
    let told = client.release_hold(release("a", "a")).await.unwrap_err();
    assert_eq!(told.code(), Code::ResourceExhausted);
    let retry_delay = told.get_details_retry_info().unwrap().retry_delay;
    assert_eq!(retry_delay, Some(Duration::from_secs(1)));
    let expected = Tally { calls: 8, served: 3, refused: 1, failed: 4, ..Tally::default() };
    assert_eq!(Tally::of(&inventory.ledger().calls(), Service::Inventory), expected);
}

#[tokio::test]
async fn capacity_limits_concurrent_calls() {
    let inventory = Inventory::start().await;
    let client = client(&inventory).await;
    let time = Duration::from_millis(100);
    inventory.set_capacity(Some(Capacity::new(2, time)));
    let began = std::time::Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..6 {
        let (mut client, id) = (client.clone(), number.to_string());
        calls.spawn(async move { client.release_hold(release(&id, &id)).await.map(drop) });
    }
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert!(began.elapsed() >= time * 3, "{:?}", began.elapsed());
}
