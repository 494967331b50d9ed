//! The program with its queue at an `https` address: which certificates it accepts.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use sandbox::testing::program::{Env, Running, env, run, stdout};
use sandbox::testing::world::{World, eventually, expired};

/// Makes a certificate authority that no client trusts by default.
fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A TLS proxy in front of SQS, until it is dropped.
struct Https {
    address: SocketAddr,
    /// The certificate of its authority: PEM.
    authority: String,
    _tasks: JoinSet<()>,
}

impl Https {
    async fn before(world: &World) -> Self {
        let authority = authority();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &authority).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let sqs = world.sqs.endpoint_url().trim_start_matches("http://").to_owned();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (tls, sqs) = (tls.clone(), sqs.clone());
                open.spawn(async move {
                    // The client may reject the certificate.
                    let Ok(mut client) = tls.accept(client).await else { return };
                    let mut server = TcpStream::connect(sqs).await.unwrap();
                    // Errors are seen at the other end of the connection.
                    drop(copy_bidirectional(&mut client, &mut server).await);
                });
            }
        });
        Self { address, authority: authority.pem(), _tasks: tasks }
    }

    fn env(&self, world: &World) -> Env {
        let mut variables = env(world);
        let endpoint = format!("https://{}", self.address);
        let queue = world.queue.replace(&world.sqs.endpoint_url(), &endpoint);
        variables.extend([("AWS_ENDPOINT_URL", endpoint), ("SQS_QUEUE_URL", queue)]);
        variables
    }
}

#[tokio::test]
async fn a_queue_over_https_needs_a_certificate_of_a_trusted_authority() {
    let world = World::start().await;
    let https = Https::before(&world).await;
    let mut variables = https.env(&world);
    let name = format!("https-{}.pem", std::process::id());
    let trusted = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    variables.insert("SSL_CERT_FILE", trusted.to_string_lossy().into_owned());

    std::fs::write(&trusted, authority().pem()).unwrap();
    let output = run(&["check"], &variables).await;
    let said = stdout(&output);
    let line = said.lines().find(|line| line.contains("FAIL")).unwrap_or_else(|| panic!("{said}"));
    assert!(line.to_lowercase().contains("certificate"), "{said}");
    assert_eq!(output.status.code(), Some(1));

    std::fs::write(&trusted, &https.authority).unwrap();
    let output = run(&["check"], &variables).await;
    assert_eq!(output.status.code(), Some(0), "{}", stdout(&output));
    let mut worker = Running::started(&variables).await;
    world.send(&expired("evt-1", "a"));
    eventually("the event is handled", || worker.log().contains("Event processed successfully"))
        .await;
    world.emptied().await;
    worker.process.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
    std::fs::remove_file(trusted).unwrap();
}
