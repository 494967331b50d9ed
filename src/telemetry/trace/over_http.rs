//! Posts a batch of spans. The exporter runs on a thread of its own, without a reactor: calls are made in the worker's runtime.

use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, Request, Response};
use opentelemetry_http::HttpError;
use tokio::runtime::Handle;

use super::export::CONNECT_TIMEOUT;
use crate::config::OtlpTransport;

/// Of an answer no more than this is read: what a collector says is a few words.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Idle connections end before a Node server's five seconds; a batch is sent each five.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// A client of the collector.
#[derive(Debug)]
pub(super) struct HttpClient {
    client: reqwest::Client,
    headers: HeaderMap,
    runtime: Handle,
}

impl HttpClient {
    /// Connects to nothing yet. Goes through no proxy and follows no redirect, like the other clients.
    ///
    /// # Errors
    /// Where, for https, TLS cannot be had.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub(super) fn new(endpoint: &str, transport: &OtlpTransport) -> reqwest::Result<Self> {
        let builder = reqwest::Client::builder()
            .timeout(transport.timeout)
            .connect_timeout(CONNECT_TIMEOUT.min(transport.timeout))
            .pool_idle_timeout(IDLE_TIMEOUT)
            .http1_only()
            .referer(false)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy();
        // No TLS is spoken: do not load, or miss, the machine's root certificates.
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
