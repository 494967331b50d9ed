//! A trace collector: OTLP over gRPC from the protocol's own service definition. It counts spans.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tonic::transport::server::{Server, TcpIncoming};

/// The running collector; it stops on drop.
#[derive(Debug)]
pub struct Collector {
    addr: SocketAddr,
    spans: Spans,
    _task: JoinSet<()>,
}

#[derive(Clone, Debug, Default)]
struct Spans(Arc<AtomicUsize>);

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_spans);
        let count = scopes.map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(count, Ordering::Relaxed);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Starts on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let spans = Spans::default();
        let service = TraceServiceServer::new(spans.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let incoming = TcpIncoming::from(listener);
            // It ends only with the listener, which stays open.
            let _ = Server::builder().serve_with_incoming(service, incoming).await;
        });
        Ok(Self { addr, spans, _task: task })
    }

    /// Returns the address it listens on.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Returns the number of received spans.
    #[must_use]
    pub fn spans(&self) -> usize {
        self.spans.0.load(Ordering::Relaxed)
    }
}
