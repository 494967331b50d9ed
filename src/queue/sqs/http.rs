//! The HTTP client of the SDK.
//!
//! TLS is set up at the first call to an `https` address, not before: reading the root certificates
//! takes longer than the rest of the start, and keeping them takes most of a megabyte.

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use aws_sdk_sqs::config::{HttpClient, RuntimeComponents, SharedAsyncSleep, SharedHttpClient};
use aws_smithy_http_client::proxy::{ProxyConfig, ProxyError};
use aws_smithy_http_client::{Connector, ConnectorBuilder, tls};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use rustls::RootCertStore;

use crate::config::{Proxies, SecretUrl};

/// Prefixes of instance, task and pod metadata addresses: link-local (RFC 3927).
const LINK_LOCAL: [&str; 2] = ["http://169.254.", "http://[fd00:ec2::"];

/// Creates a client whose connections close after `idle_timeout` without use.
pub(super) fn client(idle_timeout: Duration, proxies: Proxies) -> SharedHttpClient {
    SharedHttpClient::new(SqsHttpClient { idle_timeout, proxies, connectors: Mutex::default() })
}

/// Returns the proxy for `address`, without its password.
pub(super) fn proxy_for(proxies: &Proxies, address: &str) -> Option<String> {
    let proxy = if address.starts_with("http:") { &proxies.http } else { &proxies.https };
    let proxy = proxy.as_ref()?;
    let matcher = hyper_util::client::proxy::matcher::Matcher::builder()
        .all(proxy.expose().as_str())
        .no(proxies.no_proxy.as_str())
        .build();
    matcher.intercept(&address.parse().ok()?).map(|_| proxy.without_user())
}

/// Whether the proxy for `address` needs TLS but the call has none: calls to `http` addresses do
/// not use TLS.
pub(super) fn lacks_tls(proxies: &Proxies, address: &str) -> bool {
    let is_secure = |proxy: &SecretUrl| proxy.expose().scheme() == "https";
    address.starts_with("http:")
        && proxies.http.as_ref().is_some_and(is_secure)
        && proxy_for(proxies, address).is_some()
}

/// Whether the address is on this machine or link-local.
fn is_near(proxies: &Proxies, address: &str) -> bool {
    let is_of = |origin: &String| {
        let rest = address.strip_prefix(&**origin);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['/', '?']))
    };
    LINK_LOCAL.iter().any(|start| address.starts_with(start)) || proxies.near.iter().any(is_of)
}

/// Keeps one connector for each combination of timeouts; there are few.
#[derive(Debug)]
struct SqsHttpClient {
    idle_timeout: Duration,
    proxies: Proxies,
    connectors: Mutex<Vec<(HttpTimeouts, SharedHttpConnector)>>,
}

/// Connect timeout and read timeout.
type HttpTimeouts = (Option<Duration>, Option<Duration>);

impl HttpClient for SqsHttpClient {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let timeouts = (settings.connect_timeout(), settings.read_timeout());
        let mut connectors = self.connectors.lock().expect("no panic happens under this lock");
        if let Some((_, known)) = connectors.iter().find(|(known, _)| *known == timeouts) {
            return known.clone();
        }
        // Only this component is kept: the components hold this client, which would be a cycle.
        let make = ConnectorFactory {
            idle_timeout: self.idle_timeout,
            proxies: self.proxies.clone(),
            settings: settings.clone(),
            sleep: components.sleep_impl(),
        };
        let near = make.builder().build_http();
        let proxy = make.proxy(&make.proxies.http, ProxyConfig::http);
        let http = make.builder().proxy_config(proxy).build_http();
        let by_scheme = ByScheme { near, http, https: OnceLock::new(), make };
        let connector = SharedHttpConnector::new(by_scheme);
        connectors.push((timeouts, connector.clone()));
        connector
    }
}

/// The inputs of a connector.
#[derive(Debug)]
struct ConnectorFactory {
    idle_timeout: Duration,
    proxies: Proxies,
    settings: HttpConnectorSettings,
    sleep: Option<SharedAsyncSleep>,
}

impl ConnectorFactory {
    fn builder(&self) -> ConnectorBuilder {
        let mut builder = Connector::builder()
            .connector_settings(self.settings.clone())
            .pool_idle_timeout(self.idle_timeout);
        builder.set_sleep_impl(self.sleep.clone());
        builder
    }

    /// Builds the proxy configuration.
    fn proxy(
        &self,
        proxy: &Option<SecretUrl>,
        kind: impl FnOnce(String) -> Result<ProxyConfig, ProxyError>,
    ) -> ProxyConfig {
        let config = proxy.as_ref().map_or_else(ProxyConfig::disabled, |url| {
            let config = kind(url.expose().to_string());
            config.expect("the configuration takes only a proxy's URL that is a `Uri`")
        });
        config.no_proxy(&self.proxies.no_proxy)
    }

    fn https(&self) -> Connector {
        let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
        let proxy = self.proxy(&self.proxies.https, ProxyConfig::https);
        self.builder().proxy_config(proxy).tls_provider(ring).build()
    }
}

/// Selects the connector by the scheme of the address.
#[derive(Debug)]
struct ByScheme {
    /// For addresses on this machine or link-local: never through a proxy.
    near: Connector,
    http: Connector,
    https: OnceLock<Connector>,
    make: ConnectorFactory,
}

impl HttpConnector for ByScheme {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if request.uri().starts_with("http:") {
            let is_near = is_near(&self.make.proxies, request.uri());
            return if is_near { self.near.call(request) } else { self.http.call(request) };
        }
        match self.https.get() {
            Some(https) => https.call(request),
            None if has_roots() => self.https.get_or_init(|| self.make.https()).call(request),
            // Not built yet: without roots the SDK would trust no certificate, or panic; the file
            // may appear later.
            None => HttpConnectorFuture::ready(Err(ConnectorError::user(Box::new(NoRoots)))),
        }
    }
}

/// Whether this machine has root certificates.
fn has_roots() -> bool {
    let found = rustls_native_certs::load_native_certs().certs;
    RootCertStore::empty().add_parsable_certificates(found).0 > 0
}

/// No root certificate is available to verify SQS.
#[derive(Debug, thiserror::Error)]
#[error(
    "this machine has no root certificates to know SQS by: SSL_CERT_FILE (or SSL_CERT_DIR) must name a file of PEM certificates that can be read, or the image must bring some (ca-certificates)"
)]
pub(super) struct NoRoots;
