//! Tests of the Reservation API's contract over real connections.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use reqwest::{Client, ClientBuilder, RequestBuilder, Response};
use serde_json::{Value, json};

use super::{ReservationApi, ReservationStatus};
use crate::ledger::{Answer, Effect, Request, Service};
use crate::script::{Faults, Scripted};

pub(super) const LIMIT: Duration = Duration::from_secs(60);

/// Installs a crypto provider. In a build with the worker, reqwest has TLS without its own provider
/// and needs one even for plain HTTP.
fn client_builder() -> ClientBuilder {
    // Fails if another test has installed it.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
}

/// The test's client: to build one takes longer than a call. Each test has a thread of its own.
fn client() -> Client {
    thread_local!(static CLIENT: Client = client_builder().build().unwrap());
    CLIENT.with(Client::clone)
}

pub(super) fn patch(api: &ReservationApi, id: &str, key: &str, status: &str) -> RequestBuilder {
    client()
        .patch(format!("{}/internal/reservations/{id}", api.base_url()))
        .header("Idempotency-Key", key)
        .header("Content-Type", "application/json")
        .body(json!({ "status": status }).to_string())
}

pub(super) async fn get(api: &ReservationApi, id: &str) -> Response {
    let url = format!("{}/internal/reservations/{id}", api.base_url());
    client().get(url).send().await.unwrap()
}

async fn json_of(response: Response) -> Value {
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_pending_reservation_accepts_each_status_and_returns_it() {
    let api = ReservationApi::start().await;
    for (id, name, status) in [
        ("a", "CONFIRMED", ReservationStatus::Confirmed),
        ("b", "EXPIRED", ReservationStatus::Expired),
        ("c", "CANCELLED", ReservationStatus::Cancelled),
    ] {
        assert_eq!(patch(&api, id, id, name).send().await.unwrap().status(), 200);
        assert_eq!(api.status(id), Some(status));
        let told = json_of(get(&api, id).await).await;
        assert_eq!(
            (told["reservation_id"].as_str(), told["status"].as_str()),
            (Some(id), Some(name))
        );
        assert_eq!(api.ledger().effects_for(id), [Effect::Status(status)]);
    }
}

#[tokio::test]
async fn an_invalid_transition_returns_409_with_the_error_body() {
    let api = ReservationApi::start().await;
    for status in
        [ReservationStatus::Confirmed, ReservationStatus::Expired, ReservationStatus::Cancelled]
    {
        api.set_status("a", status);
        for (number, asked) in ["CONFIRMED", "EXPIRED", "CANCELLED"].into_iter().enumerate() {
            let key = format!("{status}-{number}");
            let traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            let refused = patch(&api, "a", &key, asked)
                .header("traceparent", traceparent)
                .send()
                .await
                .unwrap();
            assert_eq!(refused.status(), 409);
            let error = &json_of(refused).await["error"];
            assert_eq!(error["code"], "INVALID_TRANSITION");
            assert_eq!(error["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
            assert!(error["message"].is_string());
            assert_eq!(api.status("a"), Some(status));
        }
    }
    assert_eq!(api.ledger().totals().effects, 0);
}

#[tokio::test]
async fn a_repeated_key_returns_the_same_response_and_has_one_effect() {
    let api = ReservationApi::start().await;
    let first = json_of(patch(&api, "a", "k", "EXPIRED").send().await.unwrap()).await;
    let second = json_of(patch(&api, "a", "k", "EXPIRED").send().await.unwrap()).await;
    assert_eq!(first, second);
    let calls = api.ledger().calls_for("a");
    assert_eq!([calls[0].applied(), calls[1].applied()], [true, false]);
    assert_eq!([calls[0].repeated_key, calls[1].repeated_key], [false, true]);
    assert_eq!(
        patch(&api, "b", "k", "EXPIRED").send().await.unwrap().status(),
        422,
        "the key belongs to another request"
    );
    assert_eq!(api.status("b"), None);
}

#[tokio::test]
async fn a_refused_key_is_checked_again_by_the_new_state() {
    let api = ReservationApi::start().await;
    api.set_auto_create(false);
    assert_eq!(patch(&api, "a", "k", "CONFIRMED").send().await.unwrap().status(), 404);
    api.set_status("a", ReservationStatus::Pending);
    assert_eq!(patch(&api, "a", "k", "CONFIRMED").send().await.unwrap().status(), 200);
}

#[tokio::test]
async fn unknown_ids_unknown_paths_and_invalid_requests_have_their_own_errors() {
    let api = ReservationApi::start().await;
    api.set_auto_create(false);
    let unknown = get(&api, "a").await;
    assert_eq!(unknown.status(), 404);
    assert_eq!(json_of(unknown).await["error"]["code"], "RESERVATION_NOT_FOUND");

    let elsewhere = get(&api, "a/b").await;
    assert_eq!(elsewhere.status(), 404);
    assert!(
        !elsewhere.text().await.unwrap().contains("error"),
        "the body is not the API's own error"
    );
    let url = format!("{}/internal/reservations/a", api.base_url());
    assert_eq!(client().delete(&url).send().await.unwrap().status(), 405);

    assert_eq!(
        patch(&api, "a", "", "EXPIRED").send().await.unwrap().status(),
        400,
        "the key is missing"
    );
    assert_eq!(
        patch(&api, "a", "k", "PENDING").send().await.unwrap().status(),
        400,
        "the status is not allowed"
    );
    let untyped =
        client().patch(&url).header("Idempotency-Key", "k").body("{}").send().await.unwrap();
    assert_eq!(untyped.status(), 415);
    assert_eq!(api.ledger().totals().effects, 0);
}

#[tokio::test]
async fn an_id_is_one_percent_encoded_segment_and_the_raw_path_is_kept() {
    let api = ReservationApi::start().await;
    patch(&api, "a%2Fb%20%3F%C3%A9", "k", "EXPIRED").send().await.unwrap();
    assert_eq!(api.status("a/b ?é"), Some(ReservationStatus::Expired));
    let call = &api.ledger().calls()[0];
    assert_eq!(call.reservation_id, "a/b ?é");
    assert_eq!(call.raw_path, "/internal/reservations/a%2Fb%20%3F%C3%A9");
    assert_eq!(call.service, Service::ReservationApi);
    assert_eq!(call.request, Request::PatchReservation(json!({"status": "EXPIRED"})));
    assert_eq!(call.key.as_deref(), Some("k"));
}

#[tokio::test]
async fn scripted_responses_are_returned_in_order_with_headers_and_bodies() {
    let api = ReservationApi::start().await;
    api.script([
        Scripted::status(503).header("Retry-After", "1").without_error_body(),
        Scripted::status(302).header("Location", "/elsewhere").body("moved"),
        Scripted::status(200).body("garbage"),
        Scripted::status(500),
        Scripted::status(500).applying(),
    ]);
    let no_redirects =
        client_builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let url = format!("{}/internal/reservations/a", api.base_url());
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(no_redirects.get(&url).send().await.unwrap());
    }
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status().as_u16()).collect();
    assert_eq!(statuses, [503, 302, 200, 500]);
    assert_eq!(answers[0].headers()["retry-after"], "1");
    assert_eq!(answers[1].headers()["location"], "/elsewhere");
    let mut answers = answers.into_iter();
    assert!(!answers.next().unwrap().text().await.unwrap().contains("\"error\""));
    assert_eq!(answers.nth(1).unwrap().text().await.unwrap(), "garbage");
    assert!(json_of(answers.next().unwrap()).await["error"]["code"].is_string());

    assert_eq!(patch(&api, "a", "k", "EXPIRED").send().await.unwrap().status(), 500);
    assert_eq!(
        api.status("a"),
        Some(ReservationStatus::Expired),
        "the call is applied despite its error response"
    );
    assert_eq!(api.script_left(), 0);
    assert!(api.ledger().calls().iter().all(|call| call.fault));
}

#[tokio::test]
async fn a_lost_reply_applies_the_call_and_a_hang_up_does_not() {
    let api = ReservationApi::start().await;
    api.script([Scripted::lost_reply(), Scripted::hang_up()]);
    assert!(patch(&api, "a", "a", "EXPIRED").send().await.is_err());
    assert!(patch(&api, "b", "b", "EXPIRED").send().await.is_err());
    assert_eq!(api.status("a"), Some(ReservationStatus::Expired));
    assert_eq!(api.status("b"), None);
    assert!(api.ledger().calls().iter().all(|call| call.answer == Answer::Lost));
}

#[tokio::test]
async fn a_truncated_response_has_the_true_status() {
    let api = ReservationApi::start().await;
    api.script([Scripted::cut_short(), Scripted::cut_short()]);
    for (key, status) in [("k", 200), ("l", 409)] {
        let cut = patch(&api, "a", key, "EXPIRED").send().await.unwrap();
        assert_eq!(cut.status(), status);
        assert!(cut.bytes().await.is_err());
    }
    assert_eq!(api.ledger().effects_for("a"), [Effect::Status(ReservationStatus::Expired)]);
    let answers: Vec<_> = api.ledger().calls().into_iter().map(|call| call.answer).collect();
    assert_eq!(answers, [Answer::CutShort(200), Answer::CutShort(409)]);
}

#[tokio::test]
async fn an_abandoned_call_runs_to_its_end() {
    let api = ReservationApi::start().await;
    api.script([Scripted::normal().delayed(Duration::from_secs(1))]);
    let impatient = tokio::spawn(patch(&api, "a", "k", "EXPIRED").send());
    let has_arrived = |ledger: &crate::ledger::Ledger| !ledger.calls().is_empty();
    assert!(api.ledger().wait_until(has_arrived, LIMIT).await);
    impatient.abort();
    let done = |ledger: &crate::ledger::Ledger| {
        ledger.calls().first().is_some_and(|call| {
            call.abandoned && call.applied() && call.answer == Answer::Http(200)
        })
    };
    assert!(api.ledger().wait_until(done, LIMIT).await);
}

#[tokio::test]
async fn latency_and_random_faults_can_change_at_run_time() {
    let api = ReservationApi::start().await;
    let latency = Duration::from_millis(20);
    api.set_faults(
        Faults::none().latency(latency, Duration::ZERO).with(1.0, Scripted::status(500)),
    );
    assert_eq!(get(&api, "a").await.status(), 500);
    let call = &api.ledger().calls()[0];
    assert!(call.answered_at.unwrap() - call.at >= latency);
    api.set_faults(Faults::none());
    assert_eq!(get(&api, "a").await.status(), 200);
}

#[tokio::test]
async fn go_down_refuses_connections_and_come_back_uses_the_same_port() {
    let api = ReservationApi::start().await;
    let url = format!("{}/internal/reservations/a", api.base_url());
    let client = client();
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    for _ in 0..3 {
        api.go_down().await.unwrap();
        assert!(client.get(&url).send().await.unwrap_err().is_connect());
        api.come_back().await.unwrap();
        assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    }
    drop(api);
}

#[tokio::test]
async fn a_port_in_use_is_an_error() {
    let api = ReservationApi::start().await;
    let addr = api.base_url().trim_start_matches("http://").parse().unwrap();
    let second = ReservationApi::start_on(addr, crate::ledger::Ledger::default()).await;
    assert_eq!(second.unwrap_err().kind(), std::io::ErrorKind::AddrInUse);
}

#[tokio::test]
async fn the_port_closes_with_the_last_handle() {
    let api = ReservationApi::start().await;
    let other = api.clone();
    let url = format!("{}/internal/reservations/a", api.base_url());
    drop(api);
    assert_eq!(client().get(&url).send().await.unwrap().status(), 200);
    drop(other);
    // The listener's task ends at its next poll; until then a request may succeed.
    let closed = async { while client().get(&url).send().await.is_ok() {} };
    tokio::time::timeout(LIMIT, closed).await.unwrap();
}
