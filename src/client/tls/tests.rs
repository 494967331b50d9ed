//! Tests of both clients against TLS servers: trust, client certificates, changed files.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;

use super::*;
use crate::client::inventory::GrpcSettings;
use crate::client::lookup::Lookup;
use crate::client::reservation::HttpSettings;
use crate::client::test_server::{
    Asked, End, TestBody, TestServer, fixed_lookup, install_crypto_provider,
};
use crate::client::{
    CallContext, CallError, Class, GrpcInventory, HttpReservationApi, Inventory, ReleaseHold,
    ReleaseReason, ReservationApi, TargetStatus,
};
use crate::credentials::tests::authority::{Authority, Folder, Leaf};
use crate::credentials::tests::look_again;
use crate::credentials::{CredentialFile, identity, roots, token};
use crate::event::{ReservationId, Seats, ShowId};

mod addresses;

const LONG: Duration = Duration::from_secs(10);

/// The service under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Http,
    Grpc,
}

const BOTH: [Kind; 2] = [Kind::Http, Kind::Grpc];

enum Client {
    Http(HttpReservationApi),
    Grpc(GrpcInventory),
}

impl Client {
    fn new(kind: Kind, url: &str, credentials: Credentials, lookup: Lookup) -> Self {
        install_crypto_provider();
        match kind {
            Kind::Http => {
                let base = url.parse().unwrap();
                let idle_connections_max = 4;
                let settings =
                    HttpSettings { base, credentials, timeout: LONG, idle_connections_max };
                Self::Http(HttpReservationApi::with_lookup(settings, lookup).unwrap())
            }
            Kind::Grpc => {
                let settings = GrpcSettings { uri: url.to_owned(), credentials, timeout: LONG };
                Self::Grpc(GrpcInventory::with_lookup(settings, lookup).unwrap())
            }
        }
    }

    async fn call(&self) -> Result<(), CallError> {
        let key = uuid::uuid!("43e622ac-f4c7-5c4b-8456-802403703e17");
        let call = CallContext {
            idempotency_key: key,
            traceparent: None,
            tracestate: None,
            baggage: None,
            xray: None,
            answered: None,
        };
        let reservation_id = &ReservationId::new("rsv_abc123").unwrap();
        match self {
            Self::Http(api) => {
                api.set_status(&call, reservation_id, TargetStatus::Expired, None).await
            }
            Self::Grpc(api) => {
                let show_id = &ShowId::new("evt_2025_1001").unwrap();
                let seats = &Seats { seat_ids: [].into_iter().collect(), quantity: 2 };
                let reason = ReleaseReason::Expired;
                let release = ReleaseHold { reservation_id, show_id, seats, reason };
                api.release_hold(&call, release).await
            }
        }
    }

    async fn probe(&self) -> Result<String, String> {
        match self {
            Self::Http(api) => api.probe().await,
            Self::Grpc(api) => api.probe().await,
        }
    }
}

/// Returns the service's success answer.
fn done(kind: Kind) -> Response<TestBody> {
    match kind {
        Kind::Http => {
            // Longer than the interval at which credential files are read again.
            let kept = Response::builder().header("keep-alive", "timeout=60");
            kept.body(TestBody::new("{}", End::Clean)).unwrap()
        }
        Kind::Grpc => {
            // Field 2, varint: 1.
            let frame = Bytes::from_static(&[0, 0, 0, 0, 2, 0x10, 1]);
            let status = HeaderName::from_static("grpc-status");
            let trailers = HeaderMap::from_iter([(status, HeaderValue::from_static("0"))]);
            let body = TestBody::new(frame, End::Clean).with_trailers(trailers);
            Response::builder().header("content-type", "application/grpc").body(body).unwrap()
        }
    }
}

/// Starts a server with the certificate `leaf`.
///
/// If `clients` is set, the server requires a client certificate signed by it.
async fn serve_at(
    address: SocketAddr,
    kind: Kind,
    leaf: &Leaf,
    clients: Option<&Authority>,
) -> TestServer {
    let certificates =
        CertificateDer::pem_slice_iter(leaf.certificate.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let provider = Arc::new(default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(clients.pem().as_bytes()).unwrap()).unwrap();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let mut tls = builder.with_single_cert(certificates, key).unwrap();
    tls.alpn_protocols =
        vec![if kind == Kind::Grpc { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
    TestServer::start_tls(address, kind == Kind::Grpc, tls, move |_: &Asked| done(kind)).await
}

async fn serve(kind: Kind, leaf: &Leaf, clients: Option<&Authority>) -> TestServer {
    serve_at(SocketAddr::from(([127, 0, 0, 1], 0)), kind, leaf, clients).await
}

fn file(path: std::path::PathBuf) -> CredentialFile {
    CredentialFile { variable: "THE_FILE", path }
}

/// Returns credentials that trust the authority in `ca.pem`.
fn trusting(folder: &Folder, authority: &Authority) -> Credentials {
    let roots = roots(file(folder.write("ca.pem", authority.pem()))).unwrap();
    Credentials { roots: Some(Arc::new(roots)), ..Credentials::default() }
}

/// Returns the same with the client certificate `leaf`, in `me.pem` and `me.key`.
fn showing(folder: &Folder, authority: &Authority, leaf: &Leaf) -> Credentials {
    let (certificate, key) = write(folder, leaf);
    let identity = identity(file(certificate), file(key)).unwrap();
    Credentials { identity: Some(Arc::new(identity)), ..trusting(folder, authority) }
}

fn write(folder: &Folder, leaf: &Leaf) -> (std::path::PathBuf, std::path::PathBuf) {
    (folder.write("me.pem", &leaf.certificate), folder.write("me.key", &leaf.key))
}

fn client(kind: Kind, server: &TestServer, credentials: Credentials) -> Client {
    let url = format!("https://localhost:{}", server.address.port());
    Client::new(kind, &url, credentials, fixed_lookup(vec![server.address]))
}

/// Returns the text of the call's error, which must be an outage.
async fn refusal(client: &Client) -> String {
    let error = client.call().await.unwrap_err();
    assert_eq!(error.class, Class::Outage, "{error}");
    error.to_string()
}

/// Calls once, and once more if the first call fails.
///
/// A call on a connection that the server has closed may fail; the next one shows the real state.
async fn after_a_lost_connection(client: &Client) -> Result<(), CallError> {
    match client.call().await {
        Ok(()) => Ok(()),
        Err(_) => client.call().await,
    }
}

#[tokio::test]
async fn a_certificate_needs_the_right_authority_name_and_time() {
    for kind in BOTH {
        let folder = Folder::new();
        let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
        let server = serve(kind, &right.signs("localhost"), None).await;
        assert_eq!(client(kind, &server, trusting(&folder, &right)).call().await, Ok(()));
        assert_eq!(server.asked().len(), 1);
        let said = refusal(&client(kind, &server, trusting(&folder, &wrong))).await;
        assert!(said.starts_with("connect: ") && said.contains("UnknownIssuer"), "{said}");
        let strange = client(kind, &server, trusting(&folder, &wrong)).probe().await.unwrap_err();
        assert!(strange.contains("UnknownIssuer"), "{strange}");

        let late = serve(kind, &right.signed_long_ago("localhost"), None).await;
        let said = refusal(&client(kind, &late, trusting(&folder, &right))).await;
        assert!(said.contains("certificate expired"), "{said}");
        let other = serve(kind, &right.signs("elsewhere"), None).await;
        let said = refusal(&client(kind, &other, trusting(&folder, &right))).await;
        assert!(said.contains("not valid for"), "{said}");
        assert!(
            late.asked().is_empty() && other.asked().is_empty(),
            "a request was sent to an untrusted server"
        );
    }
}

#[test]
fn without_a_ca_file_public_roots_are_trusted() {
    match client_config(&Credentials::default(), b"h2") {
        Ok(config) => assert_eq!(config.alpn_protocols, [b"h2"]),
        // This machine has no root certificates.
        Err(why) => assert!(why.contains("SSL_CERT_FILE"), "{why}"),
    }
}

#[tokio::test]
async fn new_connections_trust_the_new_authority() {
    for kind in BOTH {
        let folder = Folder::new();
        let (old, new) = (Authority::new("old"), Authority::new("new"));
        let server = serve(kind, &old.signs("localhost"), None).await;
        let client = client(kind, &server, trusting(&folder, &old));
        client.call().await.unwrap();
        // The service's idle timeout applies only to connections made after it is known.
        client.call().await.unwrap();
        let connections = server.connections();
        folder.write("ca.pem", new.pem());
        look_again().await;
        client.call().await.unwrap();
        assert_eq!(server.connections(), connections, "an open connection was closed");
        let address = server.address;
        server.stop().await;
        let server = serve_at(address, kind, &old.signs("localhost"), None).await;
        let said = after_a_lost_connection(&client).await.unwrap_err().to_string();
        assert!(said.contains("UnknownIssuer"), "{kind:?}: {said}");
        server.stop().await;
        let _server = serve_at(address, kind, &new.signs("localhost"), None).await;
        assert_eq!(after_a_lost_connection(&client).await, Ok(()), "{kind:?}");
    }
}

#[tokio::test]
async fn the_current_client_certificate_is_presented() {
    for kind in BOTH {
        let folder = Folder::new();
        let (servers, old, new) =
            (Authority::new("servers"), Authority::new("old"), Authority::new("new"));
        let leaf = servers.signs("localhost");
        let server = serve(kind, &leaf, Some(&old)).await;
        refusal(&client(kind, &server, trusting(&folder, &servers))).await;
        refusal(&client(kind, &server, showing(&folder, &servers, &new.signs("me")))).await;
        assert!(server.asked().is_empty());

        let client = client(kind, &server, showing(&folder, &servers, &old.signs("me")));
        assert_eq!(client.call().await, Ok(()), "{kind:?}");
        let address = server.address;
        server.stop().await;
        let _server = serve_at(address, kind, &leaf, Some(&new)).await;
        assert!(after_a_lost_connection(&client).await.is_err(), "{kind:?}");
        // The new certificate does not fit the old key: the old pair stays until the key changes
        // too.
        let next = new.signs("me");
        folder.write("me.pem", &next.certificate);
        look_again().await;
        assert!(client.call().await.is_err(), "{kind:?}");
        folder.write("me.key", &next.key);
        look_again().await;
        assert_eq!(after_a_lost_connection(&client).await, Ok(()), "{kind:?}");
    }
}

#[tokio::test]
async fn each_call_sends_the_current_token() {
    for kind in BOTH {
        let folder = Folder::new();
        let authority = Authority::new("right");
        let server = serve(kind, &authority.signs("localhost"), None).await;
        let token = token(file(folder.write("token", "s3cr3t-1"))).unwrap();
        let token = Some(Arc::new(token));
        let client = client(kind, &server, Credentials { token, ..trusting(&folder, &authority) });
        client.call().await.unwrap();
        client.call().await.unwrap();
        let connections = server.connections();
        folder.write("token", "s3cr3t-2\n");
        client.call().await.unwrap();
        look_again().await;
        client.call().await.unwrap();
        // The answer does not matter here, only the request.
        drop(client.probe().await);
        let asked = server.asked();
        let sent: Vec<_> =
            asked.iter().map(|asked| asked.header("authorization").unwrap()).collect();
        let (one, two) = ("Bearer s3cr3t-1", "Bearer s3cr3t-2");
        assert_eq!(sent, [one, one, one, two, two], "{kind:?}");
        assert_eq!(server.connections(), connections);
    }
}
