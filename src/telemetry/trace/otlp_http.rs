//! HTTP client of the OTLP exporter. The exporter's thread has no Tokio reactor, so requests run in
//! the worker's runtime.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use opentelemetry_http::HttpError;
use tokio::runtime::Handle;

use crate::config::OtlpTransport;

/// Connect timeout. The collector is nearby: a longer connect means that it is unavailable.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Stops reading a response body after this many bytes: a collector's response is short.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Idle timeout of connections: below the 5 s keep-alive timeout of a Node server. Batches are 5 s
/// apart.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// HTTP client for the collector.
#[derive(Debug)]
pub(super) struct HttpClient {
    client: reqwest::Client,
    headers: HeaderMap,
    runtime: Handle,
}

impl HttpClient {
    /// Creates a client without connecting. It uses no proxy and follows no redirects, like the
    /// other clients.
    ///
    /// # Errors
    /// If TLS cannot be set up for an https endpoint.
    ///
    /// # Panics
    /// If called outside a Tokio runtime.
    pub(super) fn new(endpoint: &str, transport: &OtlpTransport) -> reqwest::Result<Self> {
        let builder = reqwest::Client::builder()
            .timeout(transport.timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(transport.timeout))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http1_only()
            .referer(false)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        // Without TLS, the system's root certificates are not needed and may be missing.
        let plain = endpoint.starts_with("http://");
        let builder = if plain { builder.tls_certs_only([]) } else { builder };
        let (client, headers) = (builder.build()?, transport.headers.clone());
        Ok(Self { client, headers, runtime: Handle::current() })
    }
}

#[async_trait]
impl opentelemetry_http::HttpClient for HttpClient {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        request.headers_mut().extend(self.headers.clone());
        let request = reqwest::Request::try_from(request)?;
        let client = self.client.clone();
        let answer = self.runtime.spawn(async move {
            let mut answer = client.execute(request).await?;
            let mut body = BytesMut::new();
            while body.len() < ANSWER_BYTES_MAX
                && let Some(part) = answer.chunk().await?
            {
                body.extend_from_slice(&part);
            }
            let mut response = Response::new(body.freeze());
            *response.status_mut() = answer.status();
            *response.headers_mut() = std::mem::take(answer.headers_mut());
            Ok::<_, reqwest::Error>(response)
        });
        Ok(answer.await??)
    }
}
