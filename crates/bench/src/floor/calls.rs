//! The calls, each on a persistent connection.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, TE};
use hyper::rt::Executor;
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use super::Failure;
use super::text::{Job, patch_body, rpc_body};

const TRACEPARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00";

/// An HTTP/1.1 connection.
pub(super) struct Plain {
    sender: http1::SendRequest<Full<Bytes>>,
    host: HeaderValue,
}

impl Plain {
    pub(super) async fn connect(host: &str) -> Result<Self, Failure> {
        let (sender, connection) = http1::handshake(TokioIo::new(open(host).await?)).await?;
        spawn_local(connection);
        Ok(Self { sender, host: HeaderValue::from_str(host)? })
    }

    /// Calls SQS and returns the response body.
    pub(super) async fn sqs(
        &mut self,
        target: &'static str,
        body: Bytes,
    ) -> Result<Bytes, Failure> {
        let mut request = Request::post("/").body(Full::new(body))?;
        let headers = request.headers_mut();
        headers.insert("x-amz-target", HeaderValue::from_static(target));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.0"));
        self.send(request).await
    }

    /// Sets the reservation's status.
    pub(super) async fn patch(&mut self, job: &Job) -> Result<(), Failure> {
        let path = format!("/internal/reservations/{}", job.reservation_id);
        let mut request = Request::patch(path).body(Full::new(patch_body(job)))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("idempotency-key", HeaderValue::from_str(&job.id)?);
        headers.insert("traceparent", HeaderValue::from_static(TRACEPARENT));
        self.send(request).await.map(drop)
    }

    async fn send(&mut self, mut request: Request<Full<Bytes>>) -> Result<Bytes, Failure> {
        request.headers_mut().insert(HOST, self.host.clone());
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        if !answer.status().is_success() {
            return Err(format!("HTTP {}", answer.status()).into());
        }
        Ok(answer.into_body().collect().await?.to_bytes())
    }
}

/// The shared HTTP/2 connection to the Inventory service.
#[derive(Clone)]
pub(super) struct Inventory {
    sender: http2::SendRequest<Full<Bytes>>,
    release: Uri,
    commit: Uri,
}

impl Inventory {
    pub(super) async fn connect(host: &str) -> Result<Self, Failure> {
        let io = TokioIo::new(open(host).await?);
        let (sender, connection) = http2::handshake(Local, io).await?;
        spawn_local(connection);
        let uri =
            |method| format!("http://{host}/reservation.v1.InventoryService/{method}").parse();
        Ok(Self { sender, release: uri("ReleaseHold")?, commit: uri("CommitReservation")? })
    }

    /// Releases or commits the seats.
    pub(super) async fn call(&mut self, job: &Job) -> Result<(), Failure> {
        let uri = if job.is_payment() { &self.commit } else { &self.release };
        let mut request = Request::post(uri.clone()).body(Full::new(rpc_body(job)))?;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert("traceparent", HeaderValue::from_static(TRACEPARENT));
        self.sender.ready().await?;
        let answer = self.sender.send_request(request).await?;
        let whole = answer.into_body().collect().await?;
        let status = whole.trailers().and_then(|end| end.get("grpc-status"));
        if status.is_none_or(|status| status != "0") {
            return Err("the call failed".into());
        }
        Ok(())
    }
}

async fn open(host: &str) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(host).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// An executor on the current thread.
#[derive(Clone)]
struct Local;

impl<F: Future<Output = ()> + 'static> Executor<F> for Local {
    fn execute(&self, future: F) {
        spawn_local(future);
    }
}
