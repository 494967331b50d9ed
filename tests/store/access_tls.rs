//! TLS with a private authority and a client certificate, and a change of both.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use reservation_worker::credentials::{
    CredentialFile, LOOK_INTERVAL, StoreCertificates, identity_text, roots_text,
};
use reservation_worker::idempotency::Store;
use reservation_worker::idempotency::redis::StoreAccess;
use sandbox::redis::{Redis, RedisOptions, TlsFiles, has_tls, is_installed};

use crate::bench::{Folder, LONG, claimed, eventually, id, store_with};

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.as_ref().pem()
    }

    /// Writes a certificate for 127.0.0.1, its key, and the authority's own certificate.
    fn files(&self, folder: &Folder, name: &str) -> TlsFiles {
        let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap().pem();
        TlsFiles {
            certificate: folder.write(&format!("{name}.pem"), &certificate),
            key: folder.write(&format!("{name}.key"), &key.serialize_pem()),
            authority: folder.write(&format!("{name}.ca"), &self.pem()),
        }
    }
}

fn file(path: &Path) -> CredentialFile {
    CredentialFile { variable: "THE_FILE", path: path.to_owned() }
}

/// Returns the access with these roots, and with a client certificate if there is one.
fn trusting(roots: &Path, client: Option<&TlsFiles>) -> StoreAccess {
    let identity = client
        .map(|files| Arc::new(identity_text(file(&files.certificate), file(&files.key)).unwrap()));
    let roots = Some(Arc::new(roots_text(file(roots)).unwrap()));
    let certificates = StoreCertificates { roots, identity };
    StoreAccess { certificates, ..StoreAccess::default() }
}

async fn server(files: TlsFiles, asks_clients: bool) -> Redis {
    let options = RedisOptions::default().tls(files).password("hunter2");
    let asks = if asks_clients { "yes" } else { "no" };
    options.setting("tls-auth-clients", asks).start().await.unwrap()
}

#[tokio::test]
async fn only_the_private_authority_is_trusted() {
    if !is_installed("a Redis with a private authority")
        || !has_tls("a Redis with a private authority").await
    {
        return;
    }
    let folder = Folder::new();
    let (right, wrong) = (Authority::new("right"), Authority::new("wrong"));
    let redis = server(right.files(&folder, "server"), false).await;
    let ca = folder.write("right.pem", &right.pem());
    let store = store_with(&redis.url(), trusting(&ca, None));
    claimed(&store, &id("e"), LONG).await;
    assert!(store.probe().await.is_ok());
    let valkeys = redis.url().replace("rediss://", "valkeys://");
    store_with(&valkeys, trusting(&ca, None)).ping().await.unwrap();

    let other: PathBuf = folder.write("wrong.pem", &wrong.pem());
    let said = store_with(&redis.url(), trusting(&other, None)).ping().await.unwrap_err();
    let said = said.to_string();
    assert!(said.contains("certificate") && !said.contains("hunter2"), "{said}");
    let said = store_with(&redis.url(), StoreAccess::default()).ping().await;
    assert!(said.is_err(), "the machine's roots were enough");
}

#[tokio::test]
async fn a_server_that_asks_for_a_client_certificate_gets_it() {
    if !is_installed("a Redis that asks for certificates")
        || !has_tls("a Redis that asks for certificates").await
    {
        return;
    }
    let folder = Folder::new();
    let authority = Authority::new("authority");
    let redis = server(authority.files(&folder, "server"), true).await;
    let ca = folder.write("ca.pem", &authority.pem());
    let client = authority.files(&folder, "client");
    let store = store_with(&redis.url(), trusting(&ca, Some(&client)));
    claimed(&store, &id("e"), LONG).await;
    assert!(store_with(&redis.url(), trusting(&ca, None)).ping().await.is_err());
    let stranger = Authority::new("stranger").files(&folder, "stranger");
    let store = store_with(&redis.url(), trusting(&ca, Some(&stranger)));
    assert!(store.ping().await.is_err());
}

#[tokio::test]
async fn changed_certificates_are_used_without_a_fault() {
    if !is_installed("a Redis whose authority changes")
        || !has_tls("a Redis whose authority changes").await
    {
        return;
    }
    let folder = Folder::new();
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let mut redis = server(old.files(&folder, "server"), false).await;
    let ca = folder.write("ca.pem", &old.pem());
    let store = store_with(&redis.url(), trusting(&ca, None));
    store.ping().await.unwrap();
    // The file is ahead of the server: the connection cannot be renewed, and stays in use.
    folder.write("ca.pem", &new.pem());
    let read_at = Instant::now() + LOOK_INTERVAL;
    eventually("the file was read again", || async {
        store.ping().await.unwrap();
        (Instant::now() > read_at).then_some(())
    })
    .await;
    store.ping().await.unwrap();
    // The server follows.
    redis.stop().await.unwrap();
    new.files(&folder, "server");
    redis.start().await.unwrap();
    let _ = store.ping().await;
    store.ping().await.unwrap();
}
