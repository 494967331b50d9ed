//! Tests of the Reservation API's client against a server on port 0.
#![allow(clippy::unwrap_used)]

use http::Response;
use percent_encoding::percent_decode_str;

use super::*;
use crate::client::error::PACE_MAX;
use crate::client::test_server::{End, TestBody, TestServer, install_crypto_provider};

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const API_ERROR: &str =
    r#"{"error":{"code":"RESERVATION_CONFLICT","message":"it is sold","trace_id":"abc"}}"#;
/// Timeout for answers that arrive: far longer than they take.
const LONG: Duration = Duration::from_secs(10);
/// Timeout for answers that do not arrive.
const SHORT: Duration = Duration::from_millis(150);

fn call() -> CallContext<'static> {
    CallContext {
        idempotency_key: uuid::uuid!("17f16bd2-d941-53dc-8b73-fff0816074c2"),
        traceparent: Some(TRACE),
        tracestate: None,
        baggage: None,
        xray: None,
        answered: None,
    }
}

fn id(text: &str) -> ReservationId {
    ReservationId::new(text).unwrap()
}

fn client(base: &str, timeout: Duration) -> HttpReservationApi {
    install_crypto_provider();
    let base = Url::parse(base).unwrap();
    HttpReservationApi::new(HttpSettings {
        base,
        credentials: Credentials::default(),
        timeout,
        idle_connections_max: 4,
    })
    .unwrap()
}

fn client_of(server: &TestServer, timeout: Duration) -> HttpReservationApi {
    client(&format!("http://{}", server.address), timeout)
}

fn answer(status: u16, body: &'static str) -> Response<TestBody> {
    Response::builder().status(status).body(TestBody::new(body, End::Clean)).unwrap()
}

async fn always(status: u16, body: &'static str) -> TestServer {
    TestServer::start(false, move |_| answer(status, body)).await
}

async fn set(api: &HttpReservationApi) -> Result<(), CallError> {
    api.set_status(&call(), &id("rsv_abc123"), TargetStatus::Expired, None).await
}

async fn ask(api: &HttpReservationApi) -> Result<ReservationStatus, CallError> {
    api.reservation(&call(), &id("rsv_abc123")).await.map(|reservation| reservation.status)
}

#[tokio::test]
async fn a_patch_request_follows_the_contract() {
    let server = always(200, "{}").await;
    let api = client_of(&server, LONG);
    set(&api).await.unwrap();
    let with_state = CallContext {
        tracestate: Some("vendor=1"),
        baggage: Some("tenant=t1"),
        xray: Some("Root=1-0-0"),
        ..call()
    };
    api.set_status(&with_state, &id("r2"), TargetStatus::Confirmed, Some("pay_\"x")).await.unwrap();
    api.set_status(&call(), &id("r3"), TargetStatus::Cancelled, Some("p")).await.unwrap();

    let asked = server.asked();
    let [first, second, third] = asked.as_slice() else { panic!("{asked:?}") };
    assert_eq!(first.head.method, "PATCH");
    assert_eq!(first.head.uri, "/internal/reservations/rsv_abc123");
    assert_eq!(first.body, r#"{"status":"EXPIRED"}"#);
    assert_eq!(first.header("content-type"), Some("application/json"));
    assert_eq!(first.header("idempotency-key"), Some("17f16bd2-d941-53dc-8b73-fff0816074c2"));
    assert_eq!(first.header("traceparent"), Some(TRACE));
    assert_eq!(first.header("tracestate"), None);
    assert_eq!(first.header("user-agent"), Some(USER_AGENT));
    assert_eq!(second.body, r#"{"status":"CONFIRMED","payment_intent_id":"pay_\"x"}"#);
    assert_eq!(second.header("tracestate"), Some("vendor=1"));
    assert_eq!(second.header("baggage"), Some("tenant=t1"));
    assert_eq!(second.header("x-amzn-trace-id"), Some("Root=1-0-0"));
    assert_eq!(third.body, r#"{"status":"CANCELLED","payment_intent_id":"p"}"#);
    assert_eq!(server.connections(), 1, "the connection was not reused");
}

#[tokio::test]
async fn an_invalid_trace_context_is_not_sent() {
    let server = always(204, "").await;
    let api = client_of(&server, LONG);
    let call = CallContext {
        traceparent: Some("00-x\r\nHost: evil"),
        tracestate: Some("\u{7f}"),
        baggage: Some("a=\n"),
        ..call()
    };
    api.set_status(&call, &id("r"), TargetStatus::Expired, None).await.unwrap();
    let asked = server.asked();
    assert_eq!((asked[0].header("traceparent"), asked[0].header("tracestate")), (None, None));
}

#[tokio::test]
async fn every_id_is_one_path_segment_below_every_base() {
    let server = always(200, r#"{"status":"EXPIRED"}"#).await;
    let ids = [
        "rsv_abc123",
        "a/../b",
        "../../admin",
        "%2e%2e",
        "%2E",
        "...",
        ".a",
        "?x#y",
        "a b",
        "a+b&c=d;e",
        "예약-1",
        "a\\b",
        "//evil.example",
        "~-._",
        "http://evil.example/",
        "😀",
        "a%2fb",
        "'\"<>",
        "..;",
    ];
    for base in ["", "/", "/prefix", "/a/b/", "/a%20b/c//", "/p?query=1#fragment"] {
        let api = client(&format!("http://{}{base}", server.address), LONG);
        for text in ids {
            api.reservation(&call(), &id(text)).await.unwrap();
            let asked = server.asked().pop().unwrap();
            let path = asked.head.uri.to_string();
            let prefix = base.split('?').next().unwrap().trim_end_matches('/');
            let segment = path.strip_prefix(&format!("{prefix}/internal/reservations/")).unwrap();
            assert!(
                segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~%".contains(&b)),
                "{path}"
            );
            assert_eq!(percent_decode_str(segment).decode_utf8().unwrap(), text);
        }
    }
}

#[tokio::test]
async fn statuses_are_classified_by_the_table() {
    let api = API_ERROR;
    let table = [
        (200, "", None),
        (204, "", None),
        (200, " {\"a\":[1]}\r\n", None),
        (201, "[]", None),
        (202, "\u{feff}{}", None),
        (200, "null", None),
        (200, "\"done\"", None),
        (302, "", Some(Class::Outage)),
        (400, api, Some(Class::Permanent)),
        (400, "<html>bad request</html>", Some(Class::Outage)),
        (401, api, Some(Class::Outage)),
        (403, api, Some(Class::Forbidden)),
        (403, "<html>", Some(Class::Forbidden)),
        (404, api, Some(Class::Permanent)),
        (405, api, Some(Class::Permanent)),
        (404, "<html>no such route</html>", Some(Class::Outage)),
        (405, r#"{"message":"Not Found"}"#, Some(Class::Outage)),
        (404, r#"{"error":"Not Found","status":404}"#, Some(Class::Outage)),
        (404, r#"{"error":{"code":null,"message":"x"}}"#, Some(Class::Outage)),
        (404, r#"{"error":["x","y","z"]}"#, Some(Class::Outage)),
        (404, r#"{"error":{"code":404,"message":"x","trace_id":null}}"#, Some(Class::Permanent)),
        (404, "", Some(Class::Outage)),
        (409, api, Some(Class::Conflict)),
        (412, "", Some(Class::Conflict)),
        (410, "", Some(Class::Outage)),
        (413, "<html>", Some(Class::Outage)),
        (421, "", Some(Class::Outage)),
        (422, api, Some(Class::Permanent)),
        (422, "{}", Some(Class::Outage)),
        (429, api, Some(Class::Paced)),
        (429, "", Some(Class::Paced)),
        (500, api, Some(Class::Transient)),
        (503, "", Some(Class::Outage)),
    ];
    for (status, body, class) in table {
        let server = always(status, body).await;
        let got = set(&client_of(&server, LONG)).await;
        assert_eq!(got.as_ref().err().map(|error| error.class), class, "{status} {body} {got:?}");
        if let Err(error) = got {
            assert_eq!(error.code, format!("http_{status}"));
            assert_eq!(error.retry_after, None);
        }
        assert_eq!(server.asked().len(), 1, "each call must be one attempt");
    }
}

#[tokio::test]
async fn a_2xx_answer_of_another_server_is_an_outage() {
    for (status, content_type, body) in [
        (200, "text/html", "<html>welcome</html>"),
        (200, "application/json", "<html>welcome</html>"),
        (200, "application/json", "{\"a\":1"),
        (200, "application/json", "{} {}"),
        (200, "text/plain", "ok"),
        (201, "text/plain", "true story"),
        (202, "text/plain", "\r\n"),
        (299, "application/octet-stream", "\u{1}\u{2}"),
    ] {
        let server = TestServer::start(false, move |_| {
            let mut answer = answer(status, body);
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
            answer
        })
        .await;
        let error = set(&client_of(&server, LONG)).await.unwrap_err();
        assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "not_json"), "{body}");
        assert_eq!(error.detail, format!("HTTP {status} whose body is not JSON"));
    }
    // A body that is JSON is accepted with any content type.
    let server = TestServer::start(false, |_| {
        let mut answer = answer(200, "{\"status\":\"EXPIRED\"}");
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/html"));
        answer
    })
    .await;
    assert_eq!(set(&client_of(&server, LONG)).await, Ok(()));
}

#[tokio::test]
async fn the_apis_error_text_is_shortened_and_escaped() {
    let server = always(409, API_ERROR).await;
    let error = set(&client_of(&server, LONG)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"http_409: HTTP 409, code "RESERVATION_CONFLICT", trace_id "abc", message "it is sold""#
    );

    let long = format!(
        r#"{{"error":{{"code":"{0}","message":"\n\u001b{0}","trace_id":"{0}"}}}}"#,
        "x".repeat(9_000)
    );
    let server = TestServer::start(false, move |_| {
        Response::builder().status(400).body(TestBody::new(long.clone(), End::Clean)).unwrap()
    })
    .await;
    let error = set(&client_of(&server, LONG)).await.unwrap_err();
    assert!(error.detail.chars().count() <= 200, "{error}");
    assert!(!error.detail.chars().any(char::is_control), "{error}");
}

#[tokio::test]
async fn retry_after_sets_the_retry_time() {
    let (api, html) = (API_ERROR, "<html>");
    let seven = Some(Duration::from_secs(7));
    for (status, body, value, class, time) in [
        (429, api, "7", Class::Paced, seven),
        (503, api, "7", Class::Paced, seven),
        (500, api, "99999999999", Class::Paced, Some(PACE_MAX)),
        (503, api, "Sun, 06 Nov 1994 08:49:37 GMT", Class::Paced, Some(Duration::ZERO)),
        (302, html, "7", Class::Paced, seven),
        (401, api, "7", Class::Paced, seven),
        (408, api, "7", Class::Paced, seven),
        (404, html, "7", Class::Paced, seven),
        (404, api, "7", Class::Permanent, None),
        (200, html, "7", Class::Paced, seven),
        (503, api, "soon", Class::Outage, None),
        (429, api, "-1", Class::Paced, None),
        (403, html, "7", Class::Forbidden, None),
        (409, api, "7", Class::Conflict, None),
        (400, api, "7", Class::Permanent, None),
    ] {
        let server = TestServer::start(false, move |_| {
            let mut answer = answer(status, body);
            answer.headers_mut().insert("retry-after", HeaderValue::from_static(value));
            answer
        })
        .await;
        let error = set(&client_of(&server, LONG)).await.unwrap_err();
        assert_eq!((error.class, error.retry_after), (class, time), "{status} {body} {value}");
    }
}

#[tokio::test]
async fn a_get_reads_the_status() {
    for (body, found) in [
        (r#"{"reservation_id":"r","status":"CONFIRMED"}"#, ReservationStatus::Confirmed),
        (r#"{"status":"EXPIRED","more":[1,{"x":2}]}"#, ReservationStatus::Expired),
        (r#"{"status":"CANCELLED"}"#, ReservationStatus::Cancelled),
        (r#"{"status":"PENDING"}"#, ReservationStatus::Other("\"PENDING\"".into())),
        (r#"{"status":"confirmed"}"#, ReservationStatus::Other("\"confirmed\"".into())),
        (r#"{"status":"x\ny"}"#, ReservationStatus::Other(r#""x\ny""#.into())),
    ] {
        let server = always(200, body).await;
        assert_eq!(ask(&client_of(&server, LONG)).await, Ok(found));
        let asked = server.asked();
        assert_eq!(asked[0].head.method, "GET");
        assert_eq!(asked[0].header("traceparent"), Some(TRACE));
        assert!(asked[0].body.is_empty());
    }
    let long = format!(r#"{{"status":"CONFIRMED","more":"{}"}}"#, "x".repeat(64 << 10)).leak();
    let server = always(200, long).await;
    let error = ask(&client_of(&server, LONG)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Transient, "bad_answer"));
    assert!(error.to_string().contains("longer than 64 KiB"), "{error}");
    for body in ["{}", r#"{"status":1}"#, r#"["CONFIRMED"]"#, "null"] {
        let server = always(200, body).await;
        let error = ask(&client_of(&server, LONG)).await.unwrap_err();
        assert_eq!((error.class, error.code.as_ref()), (Class::Transient, "bad_answer"), "{body}");
    }
    for body in ["", " ", "<html>", r#"{"status":"CONFIRMED""#, "CONFIRMED"] {
        let server = always(200, body).await;
        let error = ask(&client_of(&server, LONG)).await.unwrap_err();
        assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "not_json"), "{body}");
    }
    for status in [404, 409, 412] {
        for (body, class) in [(API_ERROR, Class::Permanent), ("<html>", Class::Outage)] {
            let server = always(status, body).await;
            assert_eq!(ask(&client_of(&server, LONG)).await.unwrap_err().class, class, "{body}");
        }
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let target = always(200, "{}").await;
    let to = HeaderValue::try_from(format!("http://{}/x", target.address)).unwrap();
    let server = TestServer::start(false, move |_| {
        let mut answer = answer(307, "");
        answer.headers_mut().insert(LOCATION, to.clone());
        answer
    })
    .await;
    let error = set(&client_of(&server, LONG)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "http_307"));
    assert!(target.asked().is_empty());
}

mod broken;
mod kept;
mod probe;
