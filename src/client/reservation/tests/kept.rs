//! Idle connections: their timeout, and a connection that closes while a call is sent.

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::client::test_server::fixed_lookup;
use crate::credentials::tests::authority::{Authority, Folder, Leaf};
use crate::credentials::{CredentialFile, roots};

const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n";

/// Reads one request; `None` if the connection ended instead.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut request = Vec::new();
    while !request.ends_with(b"}") {
        if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
            return None;
        }
    }
    Some(String::from_utf8(request).unwrap().to_ascii_lowercase())
}

/// Starts a server that answers `answers` requests per connection and closes it on the next one.
///
/// The receiver returns each request that the server read.
async fn closes_after(answers: usize) -> (HttpReservationApi, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = client(&format!("http://{}", listener.local_addr().unwrap()), LONG);
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let sender = sender.clone();
            tokio::spawn(async move {
                for count in 0.. {
                    let Some(request) = request(&mut stream).await else { return };
                    // The receiver is dropped when the test has ended.
                    let _ = sender.send(request);
                    if count == answers {
                        return;
                    }
                    stream.write_all(format!("{ANSWER}\r\n{{}}").as_bytes()).await.unwrap();
                }
            });
        }
    });
    (api, receiver)
}

#[tokio::test]
async fn a_call_on_a_closing_idle_connection_is_repeated_at_once() {
    let (api, mut requests) = closes_after(1).await;
    set(&api).await.unwrap();
    set(&api).await.unwrap();
    let mut keys = Vec::new();
    for _ in 0..3 {
        let request = requests.recv().await.unwrap();
        keys.extend(
            request.lines().find(|line| line.starts_with("idempotency-key")).map(str::to_owned),
        );
    }
    assert!(requests.try_recv().is_err());
    assert!(keys.len() == 3 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
}

fn acceptor(leaf: &Leaf) -> TlsAcceptor {
    let certificate = CertificateDer::from_pem_slice(leaf.certificate.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let builder = ServerConfig::builder().with_no_client_auth();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![certificate], key).unwrap()))
}

/// A call may open a connection, but use an idle one that becomes free first.
#[tokio::test]
async fn a_call_that_switches_to_a_closing_idle_connection_is_repeated() {
    install_crypto_provider();
    let (folder, authority) = (Folder::new(), Authority::new("authority"));
    let ca = CredentialFile { variable: "THE_FILE", path: folder.write("ca.pem", authority.pem()) };
    let credentials =
        Credentials { roots: Some(Arc::new(roots(ca).unwrap())), ..Credentials::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let base = format!("https://localhost:{}", address.port()).parse().unwrap();
    let settings = HttpSettings { base, credentials, timeout: LONG, idle_connections_max: 4 };
    let api = HttpReservationApi::with_lookup(settings, fixed_lookup(vec![address])).unwrap();
    let tls = acceptor(&authority.signs("localhost"));
    let done = format!("{ANSWER}\r\n{{}}");
    let (is_asked, asked) = oneshot::channel();
    let server = async {
        let mut first = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
        request(&mut first).await.unwrap();
        is_asked.send(()).unwrap();
        // The second call opens a connection whose handshake is not answered.
        let _second = listener.accept().await.unwrap();
        first.write_all(done.as_bytes()).await.unwrap();
        request(&mut first).await.unwrap();
        drop(first);
        let mut third = tls.accept(listener.accept().await.unwrap().0).await.unwrap();
        request(&mut third).await.unwrap();
        third.write_all(done.as_bytes()).await.unwrap();
    };
    let second_call = async {
        asked.await.unwrap();
        set(&api).await
    };
    let (first, second, ()) =
        timeout(LONG, async { tokio::join!(set(&api), second_call, server) }).await.unwrap();
    assert_eq!((first, second), (Ok(()), Ok(())));
}

#[tokio::test]
async fn a_call_that_is_cut_off_on_a_new_connection_fails() {
    let (api, mut requests) = closes_after(0).await;
    let error = set(&api).await.unwrap_err();
    assert_eq!((error.class, error.code.as_ref()), (Class::Outage, "transport"));
    assert!(requests.recv().await.is_some() && requests.try_recv().is_err(), "more than one call");
}

#[tokio::test]
async fn connections_are_kept_as_long_as_the_keep_alive_header_allows() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let api = client(&format!("http://{}", listener.local_addr().unwrap()), LONG);
    let shown = |api: &HttpReservationApi| format!("{:?}", api.connections);
    assert!(shown(&api).contains("4s"), "{}", shown(&api));
    for (told, kept) in
        [(None, "4s"), (Some(20), "19s"), (Some(30), "19s"), (Some(3), "2s"), (Some(1), "500ms")]
    {
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            request(&mut stream).await.unwrap();
            let told =
                told.map_or_else(String::new, |s| format!("Keep-Alive: timeout={s}, max=9\r\n"));
            let answer = format!("{ANSWER}{told}Connection: close\r\n\r\n{{}}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        };
        let (done, ()) = tokio::join!(set(&api), server);
        done.unwrap();
        assert!(shown(&api).contains(kept), "{told:?}: {}", shown(&api));
    }
    // The client closes this connection after the idle timeout.
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        request(&mut stream).await.unwrap();
        stream.write_all(format!("{ANSWER}\r\n{{}}").as_bytes()).await.unwrap();
        timeout(LONG, request(&mut stream)).await
    };
    let (done, ended) = tokio::join!(set(&api), server);
    done.unwrap();
    assert_eq!(ended.unwrap(), None);
}
