//! The wire protocol of the Inventory service: HTTP/2 connections, metadata, gRPC responses and
//! broken connections.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use hyper::server::conn::http2;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::Inner;
use super::reply::{Kind, Reply};
use crate::course::{self, Outcome};
use crate::ledger::{self, Answer, Arrival, Effect, Service};
use crate::proto::reservation::v1::inventory_service_server::{
    InventoryService, InventoryServiceServer,
};
use crate::proto::reservation::v1::{
    CommitReservationRequest, CommitReservationResponse, ReleaseHoldRequest, ReleaseHoldResponse,
};

/// Serves one connection to its end; `hang_up` closes it at once.
pub(super) async fn serve(stream: TcpStream, hang_up: CancellationToken, inner: Arc<Inner>) {
    let life = inner.connection_life();
    let rpcs = TowerToHyperService::new(InventoryServiceServer::new(Rpcs { inner }));
    let (calls, enough) = (AtomicU32::new(0), Arc::new(Notify::new()));
    let had_enough = Arc::clone(&enough);
    let service = service_fn(move |mut request| {
        if Some(calls.fetch_add(1, Ordering::Relaxed) + 1) == life.calls_max {
            enough.notify_one();
        }
        request.extensions_mut().insert(hang_up.clone());
        rpcs.call(request)
    });
    let served =
        http2::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let is_old = async {
        match life.age_max {
            Some(age) => sleep(age).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        // A connection error concerns only its client.
        _ = &mut served => return,
        () = is_old => {}
        () = had_enough.notified() => {}
    }
    // Sends GOAWAY; calls that have arrived are answered.
    served.as_mut().graceful_shutdown();
    let _ = served.await;
}

#[derive(Debug)]
struct Rpcs {
    inner: Arc<Inner>,
}

/// A response whose status field can have any number.
trait AnyStatus: Default + Send + 'static {
    fn status(&self) -> i32;
    fn with_status(status: i32) -> Self;
}

impl AnyStatus for ReleaseHoldResponse {
    fn status(&self) -> i32 {
        self.status
    }

    fn with_status(status: i32) -> Self {
        Self { status, ..Self::default() }
    }
}

impl AnyStatus for CommitReservationResponse {
    fn status(&self) -> i32 {
        self.status
    }

    fn with_status(status: i32) -> Self {
        Self { status, ..Self::default() }
    }
}

/// The metadata of a call.
struct Envelope {
    traceparent: Option<String>,
    tracestate: Option<String>,
    baggage: Option<String>,
    xray: Option<String>,
    hang_up: CancellationToken,
}

impl Envelope {
    fn of<M>(request: &Request<M>) -> Self {
        let hang_up = request.extensions().get::<CancellationToken>().cloned();
        Self {
            traceparent: text(request.metadata(), "traceparent"),
            tracestate: text(request.metadata(), "tracestate"),
            baggage: text(request.metadata(), "baggage"),
            xray: text(request.metadata(), "x-amzn-trace-id"),
            hang_up: hang_up.expect("each connection adds its token"),
        }
    }

    fn arrival(
        &self,
        rpc: &str,
        reservation_id: &str,
        key: &str,
        request: ledger::Request,
    ) -> Arrival {
        Arrival {
            service: Service::Inventory,
            reservation_id: reservation_id.to_owned(),
            raw_path: format!("/reservation.v1.InventoryService/{rpc}"),
            key: (!key.is_empty()).then(|| key.to_owned()),
            traceparent: self.traceparent.clone(),
            tracestate: self.tracestate.clone(),
            baggage: self.baggage.clone(),
            xray: self.xray.clone(),
            request,
        }
    }
}

impl Rpcs {
    async fn run<M: AnyStatus>(
        &self,
        envelope: Envelope,
        arrival: Arrival,
        apply: impl FnOnce(&Inner) -> (Result<M, Status>, Option<Effect>) + Send + 'static,
    ) -> Result<Response<M>, Status> {
        let inner = Arc::clone(&self.inner);
        let applied = move || apply(&inner);
        let (ledger, knobs) = (&self.inner.ledger, &self.inner.knobs);
        match course::run(ledger, knobs, arrival, applied, answer).await {
            Some(answer) => answer.map(Response::new),
            None => {
                envelope.hang_up.cancel();
                Err(Status::unavailable("never sent: the connection is closed"))
            }
        }
    }
}

/// Returns the response for the ledger and for the client.
///
/// `None` for the client means that the connection must break instead.
fn answer<M: AnyStatus>(
    outcome: Outcome<Reply, Result<M, Status>>,
) -> (Answer, Option<Result<M, Status>>) {
    let answer = match outcome {
        Outcome::Truth(answer) => answer,
        Outcome::Instead(Reply(Kind::Status(status)), _) => Ok(M::with_status(status)),
        Outcome::Instead(Reply(Kind::Code { code, retry_delay: None }), _) => {
            Err(Status::new(code, "as scripted"))
        }
        Outcome::Instead(Reply(Kind::Code { code, retry_delay }), _) => {
            Err(Status::with_error_details(
                code,
                "as scripted",
                ErrorDetails::with_retry_info(retry_delay),
            ))
        }
        Outcome::Instead(Reply(Kind::Lost), _) => return (Answer::Lost, None),
    };
    let entry = match &answer {
        Ok(message) => Answer::GrpcStatus(message.status()),
        Err(status) => Answer::Grpc(status.code()),
    };
    (entry, Some(answer))
}

#[tonic::async_trait]
impl InventoryService for Rpcs {
    async fn release_hold(
        &self,
        request: Request<ReleaseHoldRequest>,
    ) -> Result<Response<ReleaseHoldResponse>, Status> {
        let envelope = Envelope::of(&request);
        let message = request.into_inner();
        let asked = ledger::Request::ReleaseHold(message.clone());
        let arrival = envelope.arrival(
            "ReleaseHold",
            &message.reservation_id,
            &message.idempotency_key,
            asked,
        );
        self.run(envelope, arrival, move |inner| inner.state().release(&message)).await
    }

    async fn commit_reservation(
        &self,
        request: Request<CommitReservationRequest>,
    ) -> Result<Response<CommitReservationResponse>, Status> {
        let envelope = Envelope::of(&request);
        let message = request.into_inner();
        let asked = ledger::Request::CommitReservation(message.clone());
        let arrival = envelope.arrival(
            "CommitReservation",
            &message.reservation_id,
            &message.idempotency_key,
            asked,
        );
        self.run(envelope, arrival, move |inner| inner.state().commit(&message)).await
    }
}

fn text(metadata: &MetadataMap, name: &str) -> Option<String> {
    metadata.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
}
