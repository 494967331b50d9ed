//! Answers that do not come, or not to their end.

use super::*;

/// Answers `status` with a body that ends as said.
async fn ends(status: u16, body: &'static str, end: End) -> TestServer {
    TestServer::start(false, move |_| {
        Response::builder().status(status).body(TestBody::new(body, end)).unwrap()
    })
    .await
}

#[tokio::test]
async fn nobody_there() {
    let api = client(&format!("http://{}", TestServer::nobody().await), LONG);
    let error = set(&api).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "connect"));
    assert!(error.detail.contains("refused"), "{error}");
    assert!(!error.detail.contains("rsv_abc123"), "the URL stays out: {error}");

    let error = set(&client("http://name.invalid", LONG)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "connect"));
}

#[tokio::test]
async fn no_answer_in_time() {
    let server = TestServer::raw(b"", End::Hang).await;
    let error = set(&client_of(&server, SHORT)).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "timeout"));
    assert_eq!(error.detail, "no whole answer within 150 ms");
}

#[tokio::test]
async fn what_is_not_http() {
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
        assert_eq!(server.connections(), 1, "one call is one attempt");
    }
}

#[tokio::test]
async fn a_patch_that_succeeded_is_done_however_its_body_ends() {
    for end in [End::Hang, End::Break, End::Repeat] {
        let server = ends(200, "{", end).await;
        let api = client_of(&server, LONG);
        let start = tokio::time::Instant::now();
        assert_eq!(set(&api).await, Ok(()), "{end:?}");
        assert!(start.elapsed() < LONG / 2, "{end:?}");
        assert_eq!(set(&api).await, Ok(()), "the next call is not harmed");
    }
}

#[tokio::test]
async fn a_get_needs_a_whole_body() {
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
    assert_eq!((error.class, error.code.as_ref()), (Class::Transient, "bad_answer"));
}

#[tokio::test]
async fn nothing_is_given_up_for_good_on_half_an_answer() {
    for status in [400, 403, 404, 422] {
        let server = ends(status, API_ERROR, End::Break).await;
        let error = set(&client_of(&server, LONG)).await.unwrap_err();
        assert_eq!(error.class, Class::Outage, "{status} {error}");

        let server = ends(status, API_ERROR, End::Hang).await;
        let error = set(&client_of(&server, SHORT)).await.unwrap_err();
        assert_eq!(error.class, Class::Outage, "{status} {error}");
    }
    for (status, class) in [(409, Class::Conflict), (500, Class::Transient), (503, Class::Outage)] {
        let server = ends(status, API_ERROR, End::Break).await;
        let error = set(&client_of(&server, LONG)).await.unwrap_err();
        assert_eq!((error.class, error.code), (class, format!("http_{status}").into()));
    }
}

#[tokio::test]
async fn an_endless_error_is_not_read_to_its_end() {
    for (status, class) in [(404, Class::Outage), (400, Class::Permanent)] {
        let server = ends(status, "xxxxxxxxxxxxxxxx", End::Repeat).await;
        let error = set(&client_of(&server, LONG)).await.unwrap_err();
        assert_eq!((error.class, error.code), (class, format!("http_{status}").into()));
    }
}
