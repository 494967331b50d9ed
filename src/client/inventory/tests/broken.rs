//! Missing or incomplete answers, and answers of another server.

use super::*;
use crate::client::error::Load;

fn class_and_code(result: Result<(), CallError>) -> (Class, String) {
    let error = result.unwrap_err();
    (error.class, error.code.into_owned())
}

#[tokio::test]
async fn an_unreachable_service_is_an_outage() {
    for uri in
        [format!("http://{}", TestServer::nobody().await), "http://name.invalid:1".to_owned()]
    {
        let api = GrpcInventory::new(GrpcSettings {
            uri,
            credentials: Credentials::default(),
            timeout: LONG,
        })
        .unwrap();
        for _ in 0..2 {
            let error = release(&api).await.unwrap_err();
            assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "connect"));
            assert_eq!(error.load, Load::Unknown);
        }
    }
}

#[tokio::test]
async fn a_service_that_is_back_is_called_again() {
    let server = always(|| released(1)).await;
    let api = client(&server, LONG);
    let address = server.address;
    release(&api).await.unwrap();
    drop(server);
    assert_eq!(release(&api).await.unwrap_err().class, Class::Outage);
    let _server = TestServer::start_at(address, true, |_| released(1)).await;
    // The first call may still get the failure of the last attempt to connect.
    if let Err(error) = release(&api).await {
        assert_eq!(error.class, Class::Outage);
    }
    assert_eq!(release(&api).await, Ok(()));
}

#[tokio::test]
async fn a_call_without_an_answer_times_out() {
    // Accepts and sends nothing; sends only headers; sends half a message.
    let silent = TestServer::raw(b"", End::Hang).await;
    let headers = always(|| with_body(TestBody::new("", End::Hang))).await;
    let half = always(|| with_body(TestBody::new(&b"\0\0\0\0\x02\x10"[..], End::Hang))).await;
    for server in [silent, headers, half] {
        let error = release(&client(&server, SHORT)).await.unwrap_err();
        assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "timeout"));
        assert_eq!(error.load, Load::TimedOut);
        assert_eq!(error.detail, "no whole answer within 150 ms");
    }
}

#[tokio::test]
async fn a_server_without_http2_is_an_outage() {
    for bytes in [&b""[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-OpenSSH_9.6\r\n"] {
        let server = TestServer::raw(bytes, End::Clean).await;
        let (class, code) = class_and_code(release(&client(&server, LONG)).await);
        assert_eq!(class, Class::Outage, "{code}");
        assert!(["connect", "transport"].contains(&code.as_str()), "{code}");
    }
}

#[tokio::test]
async fn a_broken_stream_is_an_outage() {
    for body in ["", "\0\0\0\0\x02\x10"] {
        let server = always(move || with_body(TestBody::new(body, End::Break))).await;
        assert_eq!(
            class_and_code(release(&client(&server, LONG)).await),
            (Class::Outage, "transport".into())
        );
    }
}

#[tokio::test]
async fn a_connection_lost_during_a_call_is_an_outage() {
    let server = always(|| with_body(TestBody::new("", End::Hang))).await;
    let api = client(&server, LONG);
    let lost = tokio::spawn(async move { release(&api).await });
    while server.asked().is_empty() {
        tokio::task::yield_now().await;
    }
    drop(server);
    assert_eq!(class_and_code(lost.await.unwrap()), (Class::Outage, "transport".into()));
}

#[tokio::test]
async fn an_unreadable_answer_is_transient() {
    type Make = fn() -> Response<TestBody>;
    let answers: [(&str, Make); 7] = [
        ("no status in the trailers", || {
            with_body(TestBody::new(&b"\0\0\0\0\x02\x10\x01"[..], End::Clean))
        }),
        ("no message", || with_body(TestBody::empty().with_trailers(trailers("0")))),
        ("not protobuf", || {
            with_body(
                TestBody::new(&b"\0\0\0\0\x02\xff\xff"[..], End::Clean)
                    .with_trailers(trailers("0")),
            )
        }),
        ("not framed", || {
            with_body(TestBody::new("<html>", End::Clean).with_trailers(trailers("0")))
        }),
        ("compressed", || {
            with_body(TestBody::new(&b"\x01\0\0\0\0"[..], End::Clean).with_trailers(trailers("0")))
        }),
        ("too long", || {
            let begun = [&b"\0\x7f\xff\xff\xff"[..], &[0; 4096]].concat();
            with_body(TestBody::new(begun, End::Repeat))
        }),
        ("encoding unknown", || {
            let mut answer = released(1);
            answer.headers_mut().insert("grpc-encoding", HeaderValue::from_static("br"));
            answer
        }),
    ];
    for (what, make) in answers {
        let server = always(make).await;
        let got = class_and_code(release(&client(&server, LONG)).await);
        assert_eq!(got, (Class::Transient, "bad_answer".into()), "{what}");
    }
}

#[tokio::test]
async fn invalid_status_details_are_ignored() {
    for in_trailers in [false, true] {
        let server = always(move || {
            let mut answer = refusal(Status::unavailable("x"), false);
            let bad = HeaderValue::from_static("!not base64!");
            answer.headers_mut().insert("grpc-status-details-bin", bad);
            if in_trailers {
                return with_body(TestBody::empty().with_trailers(answer.headers().clone()));
            }
            answer
        })
        .await;
        assert_eq!(
            class_and_code(release(&client(&server, LONG)).await),
            (Class::Outage, "grpc_unavailable".into())
        );
    }
}

#[tokio::test]
async fn an_answer_of_another_server_is_no_success() {
    for (status, class) in [
        (200, Class::Outage),
        (302, Class::Outage),
        (400, Class::Outage),
        (403, Class::Forbidden),
        (404, Class::Outage),
        (408, Class::Transient),
        (429, Class::Paced),
        (500, Class::Transient),
        (503, Class::Outage),
    ] {
        for content_type in ["text/html", "application/grpcx", "application/json"] {
            let server = always(move || {
                let answer =
                    Response::builder().status(status).header("content-type", content_type);
                answer.body(TestBody::new("<html>", End::Clean)).unwrap()
            })
            .await;
            let error = release(&client(&server, LONG)).await.unwrap_err();
            assert_eq!((error.class, error.code.as_ref()), (class, "not_grpc"), "{status}");
            assert_eq!(error.detail, format!("HTTP {status} that is not gRPC"));
        }
    }
    let server = always(|| {
        let answer = Response::builder().status(503).header("retry-after", "9");
        answer.body(TestBody::new("busy", End::Clean)).unwrap()
    })
    .await;
    let error = release(&client(&server, LONG)).await.unwrap_err();
    assert_eq!((error.class, error.retry_after), (Class::Paced, Some(Duration::from_secs(9))));
}

#[tokio::test]
async fn an_invalid_address_is_rejected() {
    for uri in ["", "not a url", "http://", "http://a b:1"] {
        let error = GrpcInventory::new(GrpcSettings {
            uri: uri.into(),
            credentials: Credentials::default(),
            timeout: LONG,
        });
        assert!(matches!(error, Err(ClientError::Grpc { .. })), "{uri:?}");
    }
}
