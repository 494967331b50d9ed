//! What the SDK sends its calls with. TLS is set up at the first call to an `https` address, and not before: to read a machine's root
//! certificates takes longer than all else that a start does, and to keep them takes most of a megabyte.

use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use aws_sdk_sqs::config::{HttpClient, RuntimeComponents, SharedAsyncSleep, SharedHttpClient};
use aws_smithy_http_client::{Connector, ConnectorBuilder, tls};
use aws_smithy_runtime_api::client::http::{
    HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;

/// A client whose connections close after `idle_timeout` without use.
pub(super) fn client(idle_timeout: Duration) -> SharedHttpClient {
    SharedHttpClient::new(Client { idle_timeout, connectors: Mutex::default() })
}

/// Has one connector for each kind of timeouts, of which there are few.
#[derive(Debug)]
struct Client {
    idle_timeout: Duration,
    connectors: Mutex<Vec<(Timeouts, SharedHttpConnector)>>,
}

/// To connect, and to read.
type Timeouts = (Option<Duration>, Option<Duration>);

impl HttpClient for Client {
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
        // Of the components no more than this: they hold this client.
        let make = Make {
            idle_timeout: self.idle_timeout,
            settings: settings.clone(),
            sleep: components.sleep_impl(),
        };
        let http = make.builder().build_http();
        let connector = SharedHttpConnector::new(ByScheme { http, https: OnceLock::new(), make });
        connectors.push((timeouts, connector.clone()));
        connector
    }
}

/// What connectors are made of.
#[derive(Debug)]
struct Make {
    idle_timeout: Duration,
    settings: HttpConnectorSettings,
    sleep: Option<SharedAsyncSleep>,
}

impl Make {
    fn builder(&self) -> ConnectorBuilder {
        let mut builder = Connector::builder()
            .connector_settings(self.settings.clone())
            .pool_idle_timeout(self.idle_timeout);
        builder.set_sleep_impl(self.sleep.clone());
        builder
    }
}

/// Sends by the scheme of the address.
#[derive(Debug)]
struct ByScheme {
    http: Connector,
    https: OnceLock<Connector>,
    make: Make,
}

impl HttpConnector for ByScheme {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if request.uri().starts_with("http:") {
            return self.http.call(request);
        }
        let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
        self.https.get_or_init(|| self.make.builder().tls_provider(ring).build()).call(request)
    }
}
