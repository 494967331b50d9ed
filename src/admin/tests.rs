//! Tests of all routes over a real socket, also with clients that misbehave.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::config::StatusPage;
use crate::health::Health;
use crate::metrics::{BreakerState, Metrics, Outcome, QueueErrorKind, Service};
use crate::status::Status;

struct Served {
    port: u16,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn serve() -> Served {
    let server = AdminServer::bind(0).await.unwrap();
    let port = server.local_addr().unwrap().port();
    let metrics = Arc::new(Metrics::new(&[]));
    let health = Arc::new(Health::new());
    let stop = CancellationToken::new();
    let sources = crate::status::tests::sources(metrics.clone(), health.clone());
    let routes = Routes {
        metrics: metrics.clone(),
        health: health.clone(),
        controls: sources.controls.clone(),
        status: Arc::new(Status::new(sources)),
        status_page: StatusPage::Local,
    };
    let task = tokio::spawn(server.serve(routes, stop.clone()));
    Served { port, metrics, health, stop, task }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await.unwrap()
    }

    /// Returns the head and the body of the response.
    async fn ask(&self, request_line: &str) -> (String, String) {
        let mut stream = self.connect().await;
        let request = format!("{request_line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }

    async fn status(&self, request_line: &str) -> String {
        self.ask(request_line).await.0[9..12].to_owned()
    }
}

#[tokio::test]
async fn metrics_are_served_as_prometheus_text() {
    let served = serve().await;
    served.metrics.event_settled(None, Outcome::Dropped);
    served.metrics.poll_error(QueueErrorKind::Timeout);
    let (head, body) = served.ask("GET /metrics").await;
    assert!(head.starts_with("HTTP/1.1 200 OK"));
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"));
    assert!(body.contains("worker_events_total{outcome=\"dropped\",type=\"unknown\"} 1\n"));
    assert!(body.contains("sqs_poll_errors_total 1\n"));
}

#[tokio::test]
async fn health_and_readiness_have_two_paths_each() {
    let served = serve().await;
    for path in ["/healthz", "/health", "/healthz?verbose=1"] {
        assert_eq!(served.ask(&format!("GET {path}")).await.1, "{\"status\":\"ok\"}\n");
    }
    for path in ["/readyz", "/ready"] {
        let (head, body) = served.ask(&format!("GET {path}")).await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        assert!(head.contains("content-type: application/json"));
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(
            body["reason"],
            "no receive from the queue has been answered yet, or the last ones failed"
        );
        served.health.polling(true);
        let (head, body) = served.ask(&format!("GET {path}")).await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(!body.contains("reason"), "{body}");
        served.health.polling(false);
    }
}

#[tokio::test]
async fn readiness_reports_each_part_and_ignores_an_outage_of_a_service() {
    let served = serve().await;
    served.health.polling(true);
    served.health.store(false);
    served.metrics.breaker(Service::Inventory, BreakerState::Open);
    let parts = |body: &str| -> serde_json::Value { serde_json::from_str(body).unwrap() };
    let (head, body) = served.ask("GET /readyz").await;
    assert!(head.starts_with("HTTP/1.1 503"), "{head}");
    let expected = serde_json::json!({
        "status": "error", "reason": "the idempotency store is away",
        "needs": {"polling": "ok", "store": "failing"},
        "queue": {
            "receive": "ok", "extend": "ok", "delete": "ok", "dead_letter": "ok", "attributes": "ok",
        },
        "services": {"reservation": "closed", "inventory": "open"},
    });
    assert_eq!(parts(&body), expected);
    assert!(served.ask("GET /metrics").await.1.contains("\nworker_ready 0\n"));
    served.health.store(true);
    let (head, body) = served.ask("GET /readyz").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(parts(&body)["services"]["inventory"], "open");
    let (_, metrics) = served.ask("GET /metrics").await;
    assert!(metrics.contains("\nworker_ready 1\n") && metrics.contains("\nworker_alive 1\n"));
}

#[tokio::test]
async fn a_stale_part_fails_healthz_and_the_probe_names_it() {
    let served = serve().await;
    assert_eq!(health_probe(served.port).await, Ok(()));
    let _beat = served.health.register("poll loop", Duration::ZERO);
    let mut said = health_probe(served.port).await;
    while said.is_ok() {
        // The clock has a resolution of one millisecond.
        said = health_probe(served.port).await;
    }
    let said = said.unwrap_err();
    assert!(said.contains("not alive: poll loop: no progress for 0 s"), "{said}");
}

#[tokio::test]
async fn other_paths_and_methods_are_rejected() {
    let served = serve().await;
    for path in ["/", "/metrics/", "/metricsx", "//healthz", "/admin", "/%6detrics"] {
        assert_eq!(served.status(&format!("GET {path}")).await, "404", "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let (head, _) = served.ask(&format!("{method} /metrics")).await;
        assert!(head.starts_with("HTTP/1.1 405") && head.contains("allow: GET, HEAD"), "{head}");
    }
    let (head, body) = served.ask("HEAD /healthz").await;
    assert!(head.starts_with("HTTP/1.1 200") && head.contains("content-length: 16"), "{head}");
    assert_eq!(body, "");
}

#[tokio::test]
async fn concurrent_scrapes_are_all_answered() {
    let served = Arc::new(serve().await);
    let mut scrapes = JoinSet::new();
    for _ in 0..3 * CONNECTIONS_MAX {
        let served = served.clone();
        scrapes.spawn(async move { served.status("GET /metrics").await });
    }
    while let Some(status) = scrapes.join_next().await {
        assert_eq!(status.unwrap(), "200");
    }
}

#[tokio::test]
async fn slow_clients_do_not_block_others() {
    let served = serve().await;
    let mut dawdlers = Vec::new();
    for half in [
        "",
        "GET /hea",
        "GET /metrics HTTP/1.1\r\nHost: x\r\n",
        "\u{0}\u{1}\u{2}",
        "POST /metrics HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
    ] {
        let mut stream = served.connect().await;
        stream.write_all(half.as_bytes()).await.unwrap();
        dawdlers.push(stream);
    }
    assert_eq!(served.status("GET /healthz").await, "200");
}

#[tokio::test(start_paused = true)]
async fn slow_clients_at_the_connection_limit_are_closed_after_a_timeout() {
    let served = serve().await;
    let mut dawdlers = Vec::new();
    for _ in 0..CONNECTIONS_MAX {
        let mut stream = served.connect().await;
        stream.write_all(b"GET /metrics HTTP/1.1\r\n").await.unwrap();
        dawdlers.push(stream);
    }
    let began = tokio::time::Instant::now();
    assert_eq!(served.status("GET /healthz").await, "200");
    // The probe waited for a connection until the first request head timed out.
    let waited = began.elapsed();
    assert!((HEAD_TIMEOUT / 2..HEAD_TIMEOUT * 2).contains(&waited), "{waited:?}");
    let mut rest = Vec::new();
    for mut stream in dawdlers {
        // The server closes it with or without a response, and possibly with a reset.
        let _ = stream.read_to_end(&mut rest).await;
    }
}

#[tokio::test]
async fn a_request_head_that_is_too_long_is_rejected() {
    let served = serve().await;
    let (head, _) = served.ask(&format!("GET /{}", "a".repeat(2 * HEAD_BYTES_MAX))).await;
    assert!(head.starts_with("HTTP/1.1 4"), "{head}");
    assert_eq!(served.status("GET /healthz").await, "200");
}

#[tokio::test]
async fn a_stop_closes_idle_connections() {
    let served = serve().await;
    let mut idle = served.connect().await;
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    idle.read_exact(&mut first).await.unwrap();
    served.stop.cancel();
    timeout(2 * CLOSE_TIMEOUT, served.task).await.unwrap().unwrap();
    idle.read_to_end(&mut Vec::new()).await.unwrap();
    assert!(TcpStream::connect((Ipv4Addr::LOCALHOST, served.port)).await.is_err());
}

#[tokio::test]
async fn a_client_that_never_reads_does_not_delay_the_stop() {
    let served = serve().await;
    let mut deaf = served.connect().await;
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    // Writes until responses fill the socket and the server reads no more requests.
    let stuck = Duration::from_millis(200);
    while timeout(stuck, deaf.write_all(&request.repeat(100))).await.is_ok() {}
    assert_eq!(served.status("GET /healthz").await, "200");
    served.stop.cancel();
    timeout(3 * CLOSE_TIMEOUT, served.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_used_port_is_an_error() {
    let first = AdminServer::bind(0).await.unwrap();
    let port = first.local_addr().unwrap().port();
    let error = AdminServer::bind(port).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    let v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = v4.local_addr().unwrap().port();
    assert!(AdminServer::bind(port).await.is_err());
}

#[tokio::test]
async fn a_failed_probe_names_the_fault() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for (answer, said) in [
        (&b"SSH-2.0-OpenSSH_9.6\r\n"[..], "not an HTTP answer"),
        (b"", "not an HTTP answer"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", "not the worker's"),
        (b"HTTP/1.1 503 x\r\n\r\n<html>", "no reason given"),
    ] {
        let reply = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            assert!(stream.read(&mut [0; 512]).await.unwrap() > 0);
            stream.write_all(answer).await.unwrap();
        };
        let (probed, ()) = tokio::join!(health_probe(port), reply);
        assert!(probed.as_ref().unwrap_err().contains(said), "{probed:?}");
    }
    drop(listener);
    assert!(health_probe(port).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_probe_without_an_answer_times_out() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let probed = health_probe(listener.local_addr().unwrap().port()).await;
    assert!(probed.unwrap_err().contains("no answer within 2s"));
}

async fn ask_as(served: &Served, host: &str, request_line: &str) -> String {
    let mut stream = served.connect().await;
    let request = format!("{request_line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn the_status_is_shown_to_this_machine_only() {
    let served = serve().await;
    for path in ["/status", "/status.json"] {
        let answer = ask_as(&served, "localhost:8040", &format!("GET {path}")).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for header in [
            "content-security-policy: default-src 'none'; style-src 'sha256-",
            "frame-ancestors 'none'",
            "form-action 'none'",
            "x-content-type-options: nosniff",
            "cache-control: no-store",
        ] {
            assert!(answer.contains(header), "{path}: {header}: {answer}");
        }
        assert!(!answer.contains("access-control-"), "{answer}");
        let refused = ask_as(&served, "rebound.example", &format!("GET {path}")).await;
        assert!(
            refused.starts_with("HTTP/1.1 403") && refused.contains("STATUS_PAGE=local"),
            "{refused}"
        );
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
            let answer = ask_as(&served, "localhost", &format!("{method} {path}")).await;
            assert!(answer.starts_with("HTTP/1.1 405"), "{method} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn the_page_is_whole_without_its_script_and_small() {
    let served = serve().await;
    let answer = ask_as(&served, "127.0.0.1", "GET /status").await;
    let (_, page) = answer.split_once("\r\n\r\n").unwrap();
    assert!(page.len() < 20 * 1024, "{}", page.len());
    for expected in [
        "<caption>Services</caption>",
        "<caption>Held events</caption>",
        "Not ready",
        "SQS_QUEUE_URL",
    ] {
        assert!(page.contains(expected), "{expected}: {page}");
    }
    for foreign in ["src=", "href=", "style=", "onclick", "http-equiv", "<form", "<iframe"] {
        assert!(!page.contains(foreign), "{foreign}");
    }
}
