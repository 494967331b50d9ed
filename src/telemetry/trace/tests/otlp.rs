//! Tests of the OTLP variables with a collector: HTTP, headers, compression, timeout.

use http::HeaderMap;
use prost::Message;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::collector::{check_spans, collect_with_metadata, one_event};
use super::*;
use crate::config::{OtlpProtocol, OtlpTransport};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

const TIMEOUT: Duration = Duration::from_secs(10);

fn transport(protocol: OtlpProtocol, gzip: bool) -> OtlpTransport {
    let mut headers = HeaderMap::new();
    headers.insert("api-key", http::HeaderValue::from_static("50%41"));
    OtlpTransport { protocol, headers, timeout: TIMEOUT, gzip }
}

/// Returns head and body of the next request, and responds with `status`.
async fn next_request(listener: &TcpListener, status: &str) -> (String, Vec<u8>) {
    let mut connection = listener.accept().await.unwrap().0;
    let mut request = Vec::new();
    let (head, length) = loop {
        assert!(connection.read_buf(&mut request).await.unwrap() > 0, "closed in a request");
        let Some(at) = request.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8(request[..at].to_vec()).unwrap().to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        break (head.clone(), at + 4 + length.unwrap().parse::<usize>().unwrap());
    };
    while request.len() < length {
        assert!(connection.read_buf(&mut request).await.unwrap() > 0, "closed in a request");
    }
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    connection.write_all(answer.as_bytes()).await.unwrap();
    let body = request.split_off(head.len() + 4);
    (head, body)
}

/// Exports the spans of one event over HTTP; the collector responds with `statuses`. Returns the
/// last request.
async fn over_http(gzip: bool, statuses: &[&str]) -> (String, Vec<u8>) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let transport = transport(OtlpProtocol::HttpProtobuf, gzip);
    let settings = TraceSettings { transport, ..settings(endpoint) };
    let tracing = Tracing::new(&settings, metrics()).unwrap();
    one_event(&tracing);
    let serve = async {
        let mut last = None;
        for status in statuses {
            last = Some(next_request(&listener, status).await);
        }
        last.unwrap()
    };
    let ((), last) = tokio::join!(tracing.shutdown(TIMEOUT), serve);
    last
}

#[tokio::test]
async fn over_http_a_batch_has_its_headers_and_is_retried_in_an_outage() {
    let (head, body) = over_http(false, &["503 Service Unavailable", "200 OK"]).await;
    assert!(head.starts_with("post /v1/traces http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\ncontent-type: application/x-protobuf\r\n"), "{head}");
    assert!(head.contains("\r\napi-key: 50%41\r\n"), "{head}");
    assert!(!head.contains("content-encoding"), "{head}");
    let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
    check_spans(&request.resource_spans[0].scope_spans[0].spans);
}

#[tokio::test]
async fn over_http_a_batch_is_compressed_if_configured() {
    let (head, body) = over_http(true, &["200 OK"]).await;
    assert!(head.contains("\r\ncontent-encoding: gzip\r\n"), "{head}");
    assert_eq!(body[..2], [0x1f, 0x8b]);
}

#[tokio::test]
async fn over_grpc_headers_and_compression_are_applied() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let mut requests = collect_with_metadata(listener);
    let transport = transport(OtlpProtocol::Grpc, true);
    let settings = TraceSettings { transport, ..settings(address) };
    let tracing = Tracing::new(&settings, metrics()).unwrap();
    one_event(&tracing);
    tracing.shutdown(TIMEOUT).await;
    let (metadata, request) = requests.recv().await.unwrap();
    assert_eq!(metadata.get_all("api-key").iter().collect::<Vec<_>>(), ["50%41"]);
    assert_eq!(metadata.get("grpc-encoding").unwrap(), "gzip");
    check_spans(&request.resource_spans[0].scope_spans[0].spans);
}

#[tokio::test]
async fn an_export_without_an_answer_times_out() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    for protocol in [OtlpProtocol::Grpc, OtlpProtocol::HttpProtobuf] {
        let endpoint = format!("http://{}", silent.local_addr().unwrap());
        let timeout = Duration::from_millis(100);
        let transport = OtlpTransport { timeout, ..transport(protocol, false) };
        let settings = TraceSettings { transport, ..settings(endpoint) };
        let error = Tracing::probe(&settings, TIMEOUT).await.unwrap_err();
        assert!(matches!(error, TraceError::Refused(_)), "{error:?}");
    }
}
