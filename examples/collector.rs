//! A collector that accepts every span and stores none: OTLP over gRPC on 127.0.0.1. For
//! measurements (`tests/observe/bench`) and to check that spans arrive. Prints its address, and the
//! number of spans after Ctrl-C.
//!
//! ```sh
//! cargo run --example collector -- 4317
//! ```

#![allow(clippy::print_stdout, reason = "a program for the terminal")]

use std::error::Error;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tonic::transport::server::{Server, TcpIncoming};
use tonic::{Request, Response, Status};

/// Counts spans.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

#[tonic::async_trait]
impl TraceService for Counting {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let scopes = request.into_inner().resource_spans.into_iter().flat_map(|r| r.scope_spans);
        let spans = scopes.map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(spans, Ordering::Relaxed);
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let port = std::env::args().nth(1).map_or(Ok(4317), |port| port.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("http://{}", listener.local_addr()?);
    let counting = Counting::default();
    let service = TraceServiceServer::new(counting.clone());
    tokio::select! {
        served = Server::builder().serve_with_incoming(service, TcpIncoming::from(listener)) => served?,
        pressed = tokio::signal::ctrl_c() => pressed?,
    }
    println!("{} spans", counting.0.load(Ordering::Relaxed));
    Ok(())
}
