//! Missing and incomplete answers.

use super::*;
use crate::client::ANSWER_BYTES_MAX;
use crate::client::error::Load;

/// Starts a server that answers `status` with a body that ends with `end`.
async fn ends(status: u16, body: &'static str, end: End) -> TestServer {
    TestServer::start(false, move |_| {
        Response::builder().status(status).body(TestBody::new(body, end)).unwrap()
    })
    .await
}

#[tokio::test]
async fn an_unreachable_service_is_an_outage() {
    let api = client(&format!("http://{}", TestServer::nobody().await), LONG);
    let error = set(&api).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "connect"));
    assert_eq!(error.load, Load::Unknown);
    assert!(error.detail.contains("refused"), "{error}");
    assert!(!error.detail.contains("rsv_abc123"), "the URL is shown: {error}");

    let error = set(&client("http://name.invalid", LONG)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "connect"));
}

#[tokio::test]
async fn a_call_without_an_answer_times_out() {
    let server = TestServer::raw(b"", End::Hang).await;
    let error = set(&client_of(&server, SHORT)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "timeout"));
    assert_eq!(error.load, Load::TimedOut);
    assert_eq!(error.detail, "no whole answer within 150 ms");
}

#[tokio::test]
async fn a_server_without_http_is_an_outage() {
    for bytes in [
        &b""[..],
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"\x16\x03\x01\x00\x00garbage\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nbroken header\r\n\r\n",
    ] {
        let server = TestServer::raw(bytes, End::Clean).await;
        let error = set(&client_of(&server, LONG)).await.unwrap_err();
        assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "transport"), "{error}");
        assert_eq!(server.connections(), 1, "each call must be one attempt");
    }
}

#[tokio::test]
async fn a_patch_with_a_success_status_is_done_with_an_incomplete_body() {
    for body in ["{", " \n[", "\u{feff}{"] {
        for end in [End::Hang, End::Break, End::Repeat] {
            let server = ends(200, body, end).await;
            let api = client_of(&server, LONG);
            let start = tokio::time::Instant::now();
            assert_eq!(set(&api).await, Ok(()), "{body:?} {end:?}");
            assert!(start.elapsed() < LONG / 2, "{end:?}");
            assert_eq!(set(&api).await, Ok(()), "the next call failed");
        }
    }
}

#[tokio::test]
async fn a_long_success_body_is_classified_by_its_start() {
    let long = |begin: &str| format!("{begin}{}", "x".repeat(3 * ANSWER_BYTES_MAX));
    for (body, done) in [(long("{"), true), (long(" ["), true), (long("<"), false)] {
        let sent = body.clone();
        let server = TestServer::start(false, move |_| {
            Response::new(TestBody::new(sent.clone(), End::Clean))
        })
        .await;
        let got = set(&client_of(&server, LONG)).await.map_err(|error| error.class);
        assert_eq!(got, if done { Ok(()) } else { Err(Class::Outage) }, "{}", &body[..2]);
        let error = ask(&client_of(&server, LONG)).await.unwrap_err();
        let class = if done { Class::Transient } else { Class::Outage };
        assert_eq!(error.class, class, "{}", &body[..2]);
    }
}

#[tokio::test]
async fn a_body_that_is_not_json_is_not_read_to_its_end() {
    // Large frames, so that the test is fast on a busy machine.
    const BLANK: &str = match std::str::from_utf8(&[b' '; 1_024]) {
        Ok(blank) => blank,
        Err(_) => panic!("spaces are UTF-8"),
    };
    for (body, end) in [("<", End::Hang), ("<", End::Repeat), (BLANK, End::Repeat)] {
        let server = ends(200, body, end).await;
        let start = tokio::time::Instant::now();
        let error = set(&client_of(&server, LONG)).await.unwrap_err();
        assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "not_json"), "{end:?}");
        assert!(start.elapsed() < LONG / 2, "{end:?}");
    }
}

#[tokio::test]
async fn a_success_without_a_body_start_is_classified_by_its_content_type() {
    for body in ["", " "] {
        let server = ends(200, body, End::Break).await;
        let error = set(&client_of(&server, LONG)).await.unwrap_err();
        assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "transport"), "{body:?}");

        let server = ends(200, body, End::Hang).await;
        let error = set(&client_of(&server, SHORT)).await.unwrap_err();
        assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "timeout"), "{body:?}");
    }
    for (head, done) in [
        (&b"HTTP/1.1 204 No Content\r\n\r\n"[..], true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", true),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 2\r\n\r\n", false),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n\r\n", true),
        (b"HTTP/1.1 200 OK\r\nContent-Type: Application/HAL+JSON\r\nContent-Length: 2\r\n\r\n", true),
    ] {
        let server = TestServer::raw(head, End::Clean).await;
        let got = set(&client_of(&server, LONG)).await;
        assert_eq!(got.is_ok(), done, "{got:?}");
    }
}

#[tokio::test]
async fn a_get_needs_a_complete_body() {
    let server = ends(200, r#"{"status":"CONFIRMED"}"#, End::Break).await;
    let error = ask(&client_of(&server, LONG)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "transport"));

    let server = ends(200, r#"{"status":"CONFIRMED"}"#, End::Hang).await;
    let error = ask(&client_of(&server, SHORT)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "timeout"));

    let server =
        TestServer::raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{\"status\":", End::Clean)
            .await;
    let error = ask(&client_of(&server, LONG)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "transport"));

    let server = ends(200, "          ", End::Repeat).await;
    let error = ask(&client_of(&server, LONG)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "not_json"));
}

#[tokio::test]
async fn an_incomplete_error_answer_is_never_permanent() {
    for status in [400, 403, 404, 422] {
        let server = ends(status, API_ERROR, End::Break).await;
        let error = set(&client_of(&server, LONG)).await.unwrap_err();
        assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "transport"), "{status}");

        let server = ends(status, API_ERROR, End::Hang).await;
        let error = set(&client_of(&server, SHORT)).await.unwrap_err();
        assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "timeout"), "{status}");
        assert_eq!(error.load, Load::TimedOut);
    }
    for (status, class) in [(409, Class::Conflict), (500, Class::Transient), (503, Class::Outage)] {
        let server = ends(status, API_ERROR, End::Break).await;
        let error = set(&client_of(&server, LONG)).await.unwrap_err();
        assert_eq!((error.class, error.code), (class, format!("http_{status}").into()));
    }
}

#[tokio::test]
async fn an_endless_error_body_is_not_read_to_its_end() {
    for status in [400, 404] {
        let server = ends(status, "xxxxxxxxxxxxxxxx", End::Repeat).await;
        let error = set(&client_of(&server, LONG)).await.unwrap_err();
        assert_eq!((error.class, error.code), (Class::Outage, format!("http_{status}").into()));
    }
}
