//! The wire protocol of the Reservation API: routing, headers, bodies, and incomplete responses.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Channel, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use super::reply::{Kind, Reply};
use super::state::{Change, Verdict};
use super::{Inner, reply};
use crate::course::{self, Outcome};
use crate::ledger::{self, Answer, Arrival, Service};

const PATH: &str = "/internal/reservations/";
/// Body limit: a `PATCH` has only a status and a payment id.
const BODY_BYTES_MAX: usize = 64 * 1024;

type Body = BoxBody<Bytes, Dropped>;

/// Ends a connection without a complete response.
#[derive(Debug)]
pub(super) struct Dropped;

impl fmt::Display for Dropped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the answer is dropped on purpose")
    }
}

impl std::error::Error for Dropped {}

/// Serves one connection to its end.
pub(super) async fn serve(stream: TcpStream, inner: Arc<Inner>) {
    let service = service_fn(move |request| handle(Arc::clone(&inner), request));
    // The end of a connection, including dropped responses, concerns only its client.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// A call after its path, headers and body were read.
enum Asked {
    Get,
    Patch(String, Change),
    /// Refused in any state.
    Refused(Verdict),
}

async fn handle(inner: Arc<Inner>, request: Request<Incoming>) -> Result<Response<Body>, Dropped> {
    let (head, body) = request.into_parts();
    let raw_path = head.uri.path().to_owned();
    let (id, known_path) = reservation_id(&raw_path);
    let body = Limited::new(body, BODY_BYTES_MAX)
        .collect()
        .await
        .ok()
        .map(http_body_util::Collected::to_bytes);
    let json =
        body.as_deref().and_then(|body| serde_json::from_slice(body).ok()).unwrap_or(Value::Null);

    let traceparent = text(&head.headers, "traceparent");
    let trace_id =
        traceparent.as_deref().and_then(|parent| parent.split('-').nth(1)).unwrap_or("").to_owned();
    let arrival = Arrival {
        service: Service::ReservationApi,
        reservation_id: id.clone(),
        raw_path: raw_path.clone(),
        key: text(&head.headers, "idempotency-key"),
        traceparent,
        tracestate: text(&head.headers, "tracestate"),
        baggage: text(&head.headers, "baggage"),
        xray: text(&head.headers, "x-amzn-trace-id"),
        request: match (known_path, &head.method) {
            (true, &Method::GET) => ledger::Request::GetReservation,
            (true, &Method::PATCH) => ledger::Request::PatchReservation(json.clone()),
            (_, method) => ledger::Request::Unknown(format!("{method} {raw_path}")),
        },
    };
    let asked = if known_path {
        read(&head.method, &head.headers, &json)
    } else {
        Asked::Refused(Verdict::NoSuchRoute(StatusCode::NOT_FOUND))
    };
    let state = Arc::clone(&inner);
    let apply = move || match asked {
        Asked::Get => (state.state().get(&id), None),
        Asked::Patch(key, change) => state.state().patch(&id, &key, &change),
        Asked::Refused(verdict) => (verdict, None),
    };
    let answer = move |outcome| match outcome {
        Outcome::Truth(verdict) => truth(&verdict, &trace_id),
        Outcome::Instead(Reply(kind), verdict) => instead(kind, verdict, &trace_id),
    };
    course::run(&inner.ledger, &inner.knobs, arrival, apply, answer).await
}

/// Returns the decoded reservation id, and whether the path is a route of the API. An id is one
/// segment.
fn reservation_id(path: &str) -> (String, bool) {
    let segment = path.strip_prefix(PATH).unwrap_or("");
    let id = percent_decode_str(segment).decode_utf8().map(std::borrow::Cow::into_owned);
    let is_one = !segment.is_empty() && !segment.contains('/');
    match id {
        Ok(id) => (id, is_one),
        Err(_) => (String::new(), false),
    }
}

fn read(method: &Method, headers: &HeaderMap, body: &Value) -> Asked {
    match *method {
        Method::GET => Asked::Get,
        Method::PATCH => read_patch(headers, body).unwrap_or_else(|(status, code, message)| {
            Asked::Refused(Verdict::Refused(status, code, message.to_owned()))
        }),
        _ => Asked::Refused(Verdict::NoSuchRoute(StatusCode::METHOD_NOT_ALLOWED)),
    }
}

fn read_patch(
    headers: &HeaderMap,
    body: &Value,
) -> Result<Asked, (StatusCode, &'static str, &'static str)> {
    let content_type = text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    if content_type.split(';').next().map(str::trim) != Some("application/json") {
        return Err((
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UNSUPPORTED_MEDIA_TYPE",
            "Content-Type must be application/json",
        ));
    }
    let key = text(headers, "idempotency-key").filter(|key| !key.is_empty());
    let key = key.ok_or((
        StatusCode::BAD_REQUEST,
        "MISSING_IDEMPOTENCY_KEY",
        "a PATCH needs an Idempotency-Key",
    ))?;
    let change = Change::parse(body)
        .map_err(|message| (StatusCode::BAD_REQUEST, "INVALID_REQUEST", message))?;
    Ok(Asked::Patch(key, change))
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}

type Sent = (Answer, Result<Response<Body>, Dropped>);

fn truth(verdict: &Verdict, trace_id: &str) -> Sent {
    let body = match verdict {
        Verdict::Ok(body) => body.to_string().into(),
        Verdict::Refused(_, code, message) => error_body(code, message, trace_id),
        Verdict::NoSuchRoute(_) => Bytes::from_static(b"page not found\n"),
    };
    send(verdict.status(), &[], body)
}

fn instead(kind: Kind, verdict: Option<Verdict>, trace_id: &str) -> Sent {
    match kind {
        Kind::Answer(reply::Answer { status, headers, body }) => {
            let own = || error_body("SCRIPTED", "as scripted", trace_id);
            send(status, &headers, body.map_or_else(own, Bytes::from))
        }
        Kind::Lost => (Answer::Lost, Err(Dropped)),
        Kind::CutShort => {
            let status = verdict.expect("a call that is cut short is processed").status();
            (Answer::CutShort(status.as_u16()), Ok(cut_short(status)))
        }
    }
}

fn error_body(code: &str, message: &str, trace_id: &str) -> Bytes {
    json!({"error": {"code": code, "message": message, "trace_id": trace_id}}).to_string().into()
}

fn send(status: StatusCode, headers: &[(String, String)], body: Bytes) -> Sent {
    let mut response = Response::builder().status(status);
    if body.starts_with(b"{") {
        response = response.header(header::CONTENT_TYPE, "application/json");
    }
    for (name, value) in headers {
        response = response.header(name, value);
    }
    let body = Full::new(body).map_err(|never: Infallible| match never {}).boxed();
    (Answer::Http(status.as_u16()), Ok(response.body(body).expect("a script names valid headers")))
}

/// Builds a response whose body ends before its announced length.
fn cut_short(status: StatusCode) -> Response<Body> {
    let (mut sender, body) = Channel::<Bytes, Dropped>::new(1);
    tokio::spawn(async move {
        if sender.send_data(Bytes::from_static(b"{\"reservation_id\":")).await.is_ok() {
            sender.abort(Dropped);
        }
    });
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, 1000)
        .body(body.boxed())
        .expect("the headers are valid")
}
