//! The requests of the corpus's events, as the worker's client sends them: none leaves its path or
//! adds a header.

use std::time::{Duration, SystemTime};

use reservation_worker::client::reservation::HttpSettings;
use reservation_worker::client::{CallContext, HttpReservationApi, ReservationApi, TargetStatus};
use reservation_worker::credentials::Credentials;
use reservation_worker::event::{Event, Payload, Step, decode, idempotency_key};
use reservation_worker::intake;
use reservation_worker::queue::{Attribute, AttributeValue, Message, MessageId, ReceiptHandle};
use reservation_worker::telemetry::{CallStart, EventStart, Tracing};
use serde_json::{Map, Value};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::corpus::{Case, Expected};

const PATH: &str = "/internal/reservations/";

/// All headers that a request may have.
const HEADERS: [&str; 10] = [
    "accept",
    "baggage",
    "content-length",
    "content-type",
    "host",
    "idempotency-key",
    "traceparent",
    "tracestate",
    "user-agent",
    "connection",
];

/// Answers the requests of one connection and returns each as received.
struct Server {
    listener: TcpListener,
    connection: Option<TcpStream>,
}

impl Server {
    /// Returns the next request, as bytes on the wire.
    async fn next(&mut self) -> Vec<u8> {
        let mut request = Vec::new();
        // The body is JSON and ends with a brace, after an empty line.
        while !(request.ends_with(b"}") && request.windows(4).any(|four| four == b"\r\n\r\n")) {
            if self.connection.is_none() {
                self.connection = Some(self.listener.accept().await.unwrap().0);
            }
            let connection = self.connection.as_mut().unwrap();
            if connection.read_buf(&mut request).await.unwrap() == 0 {
                // The client closes a connection that was idle while a long body was decoded.
                assert!(request.is_empty(), "closed in a request");
                self.connection = None;
            }
        }
        let connection = self.connection.as_mut().unwrap();
        connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
        request
    }
}

fn message(case: &Case) -> Message {
    let mut message = Message {
        id: MessageId("m".into()),
        handle: ReceiptHandle("h".into()),
        body: case.body.clone(),
        receive_count: 1,
        sent_at: None,
        group: None,
        trace_header: None,
        source_arn: None,
        attributes: Vec::new(),
    };
    for (name, value) in case.attributes.clone() {
        if name == "AWSTraceHeader" {
            message.trace_header = Some(value.into());
        } else {
            let value = AttributeValue::Text(value);
            message.attributes.push(Attribute { name, data_type: "String".into(), value });
        }
    }
    message
}

/// Sends the event's first step and returns the request.
async fn request(
    server: &mut Server,
    api: &HttpReservationApi,
    message: &Message,
    event: &Event,
) -> Vec<u8> {
    let parent = intake::parent(message, event.trace.as_ref());
    let span = Tracing::disabled().start_event(EventStart {
        queue_name: "events",
        message_id: &message.id.0,
        parent: parent.as_ref(),
        baggage: message.text_attribute("baggage").or(event.baggage.as_deref()),
        received_at: SystemTime::now(),
    });
    let (target, payment) = match &event.payload {
        Payload::ReservationExpired(_) => (TargetStatus::Expired, None),
        Payload::PaymentApproved(payment) => (TargetStatus::Confirmed, Some(payment)),
        Payload::PaymentFailed(payment) => (TargetStatus::Cancelled, Some(payment)),
    };
    let payment_intent_id = payment.and_then(|payment| payment.payment_intent_id.as_deref());
    let call_span = span.start_call(CallStart::Http {
        method: "PATCH",
        url_template: "/internal/reservations/{reservation_id}",
        url: "http://127.0.0.1/",
        server_address: "127.0.0.1",
        server_port: 80,
    });
    let call = CallContext {
        idempotency_key: idempotency_key(&event.id, Step::ReservationStatus),
        traceparent: Some(call_span.traceparent()),
        tracestate: call_span.tracestate(),
        baggage: call_span.baggage(),
        xray: None,
        answered: None,
    };
    let sent = api.set_status(&call, &event.reservation_id, target, payment_intent_id);
    let (sent, request) = tokio::join!(sent, server.next());
    sent.unwrap();
    request
}

/// Returns the facts of a request, or what is wrong with it.
fn read(request: &[u8], event: &Event) -> Result<Map<String, Value>, String> {
    let request = std::str::from_utf8(request).map_err(|_| "not UTF-8")?;
    let (head, body) = request.split_once("\r\n\r\n").ok_or("no empty line")?;
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let target = line.strip_prefix("PATCH ").and_then(|line| line.strip_suffix(" HTTP/1.1"));
    let segment = target.and_then(|target| target.strip_prefix(PATH)).ok_or("another path")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%".contains(&byte);
    if segment.is_empty() || matches!(segment, "." | "..") || !segment.bytes().all(is_plain) {
        return Err(format!("the segment is {segment:?}"));
    }
    let decoded = percent_encoding::percent_decode_str(segment).decode_utf8();
    if decoded.as_deref() != Ok(event.reservation_id.as_str()) {
        return Err(format!("{segment:?} is another id"));
    }
    let mut facts = Map::new();
    facts.insert("path".into(), segment.into());
    for header in lines {
        let (name, value) = header.split_once(": ").ok_or("a header without a value")?;
        if !HEADERS.contains(&name) || value.contains(char::is_control) || facts.contains_key(name)
        {
            return Err(format!("the header {header:?}"));
        }
        facts.insert(name.into(), value.into());
    }
    serde_json::from_str::<Map<String, Value>>(body).map_err(|error| error.to_string())?;
    Ok(facts)
}

/// Returns the difference between the case's facts and the request's.
fn mistake(case: &Case, facts: &Map<String, Value>) -> Option<String> {
    let Expected::Event(expected) = &case.expected else { return None };
    let given = format!("{:?} {}", case.attributes, case.body).to_ascii_lowercase();
    let text = |name: &str| facts.get(name).and_then(Value::as_str).unwrap_or_default();
    let found = |key: &str| match key {
        "path" => Some(text("path")),
        "tracestate" => Some(text("tracestate")),
        "trace_id" => Some(text("traceparent").get(3..35).unwrap_or_default()),
        _ => None,
    };
    expected.iter().find_map(|(key, value)| {
        let found = found(key)?;
        let is_so = match value.as_str() {
            Some(value) => value == found,
            // A new trace: its id does not occur in the message.
            None if key == "trace_id" => found.len() == 32 && !given.contains(found),
            None => found.is_empty(),
        };
        (!is_so).then(|| format!("{key} must be {value}, is {found:?}"))
    })
}

#[tokio::test]
async fn no_event_changes_the_path_or_adds_headers_to_its_request() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = HttpReservationApi::new(HttpSettings {
        base: format!("http://{}", listener.local_addr().unwrap()).parse().unwrap(),
        credentials: Credentials::default(),
        timeout: Duration::from_secs(30),
        idle_connections_max: 1,
    })
    .unwrap();
    let mut server = Server { listener, connection: None };
    let (mut sent, mut mistakes) = (0, Vec::new());
    for case in super::cases() {
        let (Expected::Event(_), Ok(event)) =
            (&case.expected, decode(&case.body, super::judge::MESSAGE_ID))
        else {
            continue;
        };
        let request = request(&mut server, &api, &message(&case), &event).await;
        sent += 1;
        let mistake = match read(&request, &event) {
            Ok(facts) => mistake(&case, &facts),
            Err(mistake) => Some(mistake),
        };
        mistakes.extend(mistake.map(|mistake| format!("{}: {mistake}", case.name)));
    }
    assert!(mistakes.is_empty(), "{} of {sent}:\n{}", mistakes.len(), mistakes.join("\n"));
    assert!(sent >= 150, "only {sent} events were sent");
}
