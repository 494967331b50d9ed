//! The soak test's servers: the needed parts of SQS, the Reservation API and the Inventory service,
//! with little work per call. Every call succeeds; faults come from the proxies.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::queue::{Part, Queue, event};

/// The running servers; they stop on drop.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) sqs: SocketAddr,
    pub(super) api: SocketAddr,
    pub(super) inventory: SocketAddr,
    _tasks: JoinSet<()>,
}

impl Servers {
    pub(super) async fn start(queue: &Arc<Queue>) -> std::io::Result<Self> {
        let mut tasks = JoinSet::new();
        let (sqs, sqs_at) = listen().await?;
        let (api, api_at) = listen().await?;
        let (inventory, inventory_at) = listen().await?;
        let its = Arc::clone(queue);
        tasks.spawn(accept(sqs, move |stream| serve_sqs(stream, Arc::clone(&its))));
        let its = Arc::clone(queue);
        tasks.spawn(accept(api, move |stream| serve_api(stream, Arc::clone(&its))));
        let its = Arc::clone(queue);
        tasks.spawn(accept(inventory, move |stream| serve_inventory(stream, Arc::clone(&its))));
        Ok(Self { sqs: sqs_at, api: api_at, inventory: inventory_at, _tasks: tasks })
    }
}

async fn listen() -> std::io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

async fn accept<F>(listener: TcpListener, serve: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                // Small responses must not wait for Nagle's algorithm.
                let _ = stream.set_nodelay(true);
                open.spawn(serve(stream));
            },
            Some(_) = open.join_next() => {}
        }
    }
}

type Answer = Response<Full<Bytes>>;

fn json(status: StatusCode, body: String) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from(body)));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

async fn serve_sqs(stream: TcpStream, queue: Arc<Queue>) {
    let service = service_fn(|request: Request<Incoming>| {
        let queue = Arc::clone(&queue);
        async move { Ok::<_, Infallible>(sqs(request, &queue).await) }
    });
    // A connection error concerns only its client.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

async fn sqs(request: Request<Incoming>, queue: &Queue) -> Answer {
    let target = request.headers().get("x-amz-target").cloned();
    let target = target.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let target = target.strip_prefix("AmazonSQS.").unwrap_or_default().to_owned();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let asked: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let seconds = |value: &Value, default| Duration::from_secs(value.as_u64().unwrap_or(default));
    let text = match target.as_str() {
        "ReceiveMessage" => {
            let max = asked["MaxNumberOfMessages"].as_u64().and_then(|max| max.try_into().ok());
            let wait = seconds(&asked["WaitTimeSeconds"], 0);
            let visibility = seconds(&asked["VisibilityTimeout"], 30);
            messages(&queue.receive(max.unwrap_or(1), wait, visibility).await)
        }
        "DeleteMessageBatch" => each(&asked, |number, _| queue.delete(number)),
        "ChangeMessageVisibilityBatch" => each(&asked, |number, entry| {
            queue.hide(number, seconds(&entry["VisibilityTimeout"], 0));
        }),
        "SendMessage" => {
            let id = asked["MessageAttributes"]["dlq_message_id"]["StringValue"].as_str();
            id.and_then(number_of_message).into_iter().for_each(|it| queue.dead_letter(it));
            r#"{"MessageId":"00000000-0000-4000-9000-000000000000"}"#.to_owned()
        }
        "GetQueueAttributes" => r#"{"Attributes":{"MessageRetentionPeriod":"345600"}}"#.to_owned(),
        _ => {
            let error = r#"{"__type":"com.amazonaws.sqs#UnsupportedOperation","message":"no"}"#;
            return json(StatusCode::BAD_REQUEST, error.to_owned());
        }
    };
    json(StatusCode::OK, text)
}

/// Applies `act` to every message of a batch; every entry succeeds.
fn each(asked: &Value, act: impl Fn(u64, &Value)) -> String {
    let mut done = Vec::new();
    for entry in asked["Entries"].as_array().into_iter().flatten() {
        let number = entry["ReceiptHandle"].as_str().and_then(|handle| handle.parse().ok());
        if let Some(number) = number {
            act(number, entry);
        }
        done.push(serde_json::json!({"Id": entry["Id"]}));
    }
    serde_json::json!({"Successful": done, "Failed": []}).to_string()
}

fn messages(numbers: &[u64]) -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut text = String::from("{\"Messages\":[");
    for (at, number) in numbers.iter().enumerate() {
        let body = event(*number).map_or_else(|| "no event".to_owned(), |event| event.body());
        let body = Value::String(body);
        let comma = if at > 0 { "," } else { "" };
        write!(
            text,
            r#"{comma}{{"MessageId":"00000000-0000-4000-8000-{number:012x}","ReceiptHandle":"{number}","Body":{body},"Attributes":{{"ApproximateReceiveCount":"1","SentTimestamp":"{}"}}}}"#,
            now.as_millis()
        )
        .expect("writing to a String never fails");
    }
    text.push_str("]}");
    text
}

fn number_of_message(id: &str) -> Option<u64> {
    u64::from_str_radix(id.rsplit('-').next()?, 16).ok()
}

async fn serve_api(stream: TcpStream, queue: Arc<Queue>) {
    let service = service_fn(|request: Request<Incoming>| {
        let queue = Arc::clone(&queue);
        async move {
            let (head, body) = request.into_parts();
            // Read to the end so that the connection can be reused.
            if body.collect().await.is_ok() {
                let key = head.headers.get("idempotency-key").cloned();
                let reservation = head.uri.path().rsplit('/').next().unwrap_or_default();
                let has_key =
                    |it: &str| key.as_ref().is_some_and(|key| key.as_bytes() == it.as_bytes());
                queue.called(reservation, Part::Status, has_key);
            }
            Ok::<_, Infallible>(json(StatusCode::OK, r#"{"status":"OK"}"#.to_owned()))
        }
    });
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

/// `ReleaseHoldResponse { status: SUCCESS }`, in a gRPC frame.
const RELEASED: &[u8] = &[0, 0, 0, 0, 2, 0x10, 1];
/// `CommitReservationResponse { status: SUCCESS }`.
const COMMITTED: &[u8] = &[0, 0, 0, 0, 2, 0x18, 1];

async fn serve_inventory(stream: TcpStream, queue: Arc<Queue>) {
    let service = service_fn(move |request: Request<Incoming>| {
        let queue = Arc::clone(&queue);
        async move {
            let is_release = request.uri().path().ends_with("/ReleaseHold");
            if let Ok(whole) = request.into_body().collect().await {
                let frame = whole.to_bytes();
                let has_key =
                    |key: &str| frame.windows(key.len()).any(|window| window == key.as_bytes());
                queue.called(first_field(&frame).unwrap_or_default(), Part::Seats, has_key);
            }
            let message = Some(if is_release { RELEASED } else { COMMITTED });
            let mut answer = Response::new(Reply { message, is_ended: false });
            let grpc = HeaderValue::from_static("application/grpc");
            answer.headers_mut().insert(CONTENT_TYPE, grpc);
            Ok::<_, Infallible>(answer)
        }
    });
    let _ = http2::Builder::new(TokioExecutor::new())
        .max_concurrent_streams(2_000)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// Returns the first field of a gRPC message, a short text: the reservation id.
fn first_field(frame: &[u8]) -> Option<&str> {
    let [0x0a, length, rest @ ..] = frame.get(5..)? else { return None };
    std::str::from_utf8(rest.get(..usize::from(*length))?).ok()
}

/// A gRPC response with one message and status 0.
struct Reply {
    message: Option<&'static [u8]>,
    is_ended: bool,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(message)))));
        }
        if self.is_ended {
            return Poll::Ready(None);
        }
        self.is_ended = true;
        let mut end = HeaderMap::with_capacity(1);
        end.insert("grpc-status", HeaderValue::from_static("0"));
        Poll::Ready(Some(Ok(Frame::trailers(end))))
    }
}
