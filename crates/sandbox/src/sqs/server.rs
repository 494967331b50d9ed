//! The HTTP server: selects the action, applies faults, and formats results and errors. Signatures
//! are not checked: any credentials are accepted.

use std::sync::Arc;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, DefaultBodyLimit, State};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::action::Action;
use super::connection::{Acceptor, Connection};
use super::error::{ErrorCode, SqsError};
use super::faults::Fault;
use super::ledger::Outcome;
use super::permissions::denial;
use super::wire::{self, Request};
use super::world::Shared;
use super::{queues, receive, send, settle};

/// JSON can encode each byte of a message with six bytes.
const REQUEST_BYTES_MAX: usize = 8 * 1_048_576;
const CONTENT_TYPE: &str = "application/x-amz-json-1.0";

/// Serves until `stop` is cancelled, which also closes open connections.
pub(crate) async fn serve(shared: Arc<Shared>, listener: TcpListener, stop: CancellationToken) {
    let router = Router::new()
        .fallback(handle)
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(shared)
        .into_make_service_with_connect_info::<Connection>();
    let server = axum::serve(Acceptor::new(listener, stop.clone()), router);
    tokio::select! {
        () = stop.cancelled() => {}
        // Never ends by itself: accept errors are retried.
        _ = server => {}
    }
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(connection): ConnectInfo<Connection>,
    method: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let target = headers.get("x-amz-target").and_then(|value| value.to_str().ok());
    let Some(action) = target.and_then(Action::from_target).filter(|_| method == Method::POST)
    else {
        let unknown = SqsError::new(
            ErrorCode::InvalidAction,
            "The action or operation requested is invalid.",
        );
        return failure(&unknown);
    };
    let call = Call { shared: &shared, connection: &connection, action, body: &body };
    call.dispatch().await
}

/// A request in progress.
struct Call<'a> {
    shared: &'a Shared,
    connection: &'a Connection,
    action: Action,
    body: &'a [u8],
}

impl Call<'_> {
    async fn dispatch(&self) -> Response<Body> {
        match self.action {
            Action::ChangeMessageVisibility => self.run(settle::change_visibility).await,
            Action::ChangeMessageVisibilityBatch => self.run(settle::change_visibility_batch).await,
            Action::CreateQueue => self.run(queues::create).await,
            Action::DeleteMessage => self.run(settle::delete).await,
            Action::DeleteMessageBatch => self.run(settle::delete_batch).await,
            Action::DeleteQueue => self.run(queues::delete).await,
            Action::GetQueueAttributes => self.run(queues::get_attributes).await,
            Action::GetQueueUrl => self.run(queues::get_url).await,
            Action::ListDeadLetterSourceQueues => self.run(queues::list_sources).await,
            Action::ListQueues => self.run(queues::list).await,
            Action::PurgeQueue => self.run(queues::purge).await,
            Action::ReceiveMessage => self.receive().await,
            Action::SendMessage => self.run(send::send).await,
            Action::SendMessageBatch => self.run(send::send_batch).await,
            Action::SetQueueAttributes => self.run(queues::set_attributes).await,
            Action::StartMessageMoveTask => self.run(queues::start_move).await,
        }
    }

    /// Runs an action without waiting.
    async fn run<I, O>(&self, action: impl Fn(&Shared, I) -> Result<O, SqsError>) -> Response<Body>
    where
        I: Request + DeserializeOwned,
        O: Serialize,
    {
        let (input, reply_lost) = match self.begin::<I>().await {
            Ok(begun) => begun,
            Err(response) => return *response,
        };
        let response = match action(self.shared, input) {
            Ok(output) => success(&output),
            Err(error) => failure(&error),
        };
        self.end(response, reply_lost)
    }

    async fn receive(&self) -> Response<Body> {
        let (input, reply_lost) = match self.begin::<wire::ReceiveMessage>().await {
            Ok(begun) => begun,
            Err(response) => return *response,
        };
        let response = match receive::receive(self.shared, &input).await {
            Ok(deliveries) => success(&receive::render(&input, &deliveries)),
            Err(error) => failure(&error),
        };
        self.end(response, reply_lost)
    }

    /// Parses the request and applies its faults. The flag tells whether to drop the response.
    async fn begin<I: Request + DeserializeOwned>(&self) -> Result<(I, bool), Box<Response<Body>>> {
        let input: I = serde_json::from_slice(self.body).map_err(|error| {
            let text = format!(
                "The request does not fit {}: {:?} error at column {}.",
                self.action.name(),
                error.classify(),
                error.column()
            );
            Box::new(failure(&SqsError::new(ErrorCode::Serialization, text)))
        })?;
        let allowed = self.shared.lock().permissions.check(self.action, input.queue());
        allowed.map_err(|error| Box::new(failure(&error)))?;
        let (latency, fault) = self.faults(input.queue());
        if !latency.is_zero() {
            tokio::time::sleep(latency).await;
        }
        match fault {
            None => Ok((input, false)),
            Some(Fault::ReplyLost) => Ok((input, true)),
            Some(Fault::Reset) => Err(Box::new(self.end(success(&wire::Nothing {}), true))),
            Some(Fault::Error(code)) => {
                let text = if code == ErrorCode::AccessDenied {
                    denial(self.action, input.queue())
                } else {
                    "This error was asked for.".to_owned()
                };
                let error = SqsError::new(code, text);
                Err(Box::new(failure(&error)))
            }
            Some(Fault::Http(status)) => Err(Box::new(bare(status))),
        }
    }

    fn faults(&self, queue: Option<&str>) -> (tokio::time::Duration, Option<Fault>) {
        let now = self.shared.now();
        let mut world = self.shared.lock();
        let Some(queue) = queue.and_then(|url| world.queue_mut(url)) else {
            return (tokio::time::Duration::ZERO, None);
        };
        queue.ledger.requests += 1;
        let (latency, fault) = queue.faults.call(self.action);
        if let Some(fault) = fault {
            queue.book(now, self.action, None, None, Outcome::Fault(fault.kind()));
        }
        (latency, fault)
    }

    fn end(&self, response: Response<Body>, reply_lost: bool) -> Response<Body> {
        if reply_lost {
            self.connection.reset();
        }
        response
    }
}

fn success(output: &impl Serialize) -> Response<Body> {
    let body = serde_json::to_vec(output).expect("responses can be serialized as JSON");
    answer(StatusCode::OK, body)
}

fn failure(error: &SqsError) -> Response<Body> {
    let body = serde_json::json!({
        "__type": format!("com.amazonaws.sqs#{}", error.code.shape()),
        "message": error.message,
    });
    let status =
        StatusCode::from_u16(error.code.http_status()).expect("every code has a valid status");
    let fault = if error.code.is_sender_fault() { "Sender" } else { "Receiver" };
    let query_error = format!("{};{fault}", error.code.query_code());
    let mut response = answer(status, body.to_string().into_bytes());
    response.headers_mut().insert(
        "x-amzn-query-error",
        HeaderValue::from_str(&query_error).expect("error codes are ASCII"),
    );
    response
}

/// Builds a response with a status but without an SQS error, as from a proxy.
fn bare(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    response
}

fn answer(status: StatusCode, body: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
    let request_id = uuid::Uuid::new_v4().to_string();
    headers
        .insert("x-amzn-requestid", HeaderValue::from_str(&request_id).expect("a UUID is ASCII"));
    response
}
