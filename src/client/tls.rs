//! TLS to the two services: whom to trust, and what to show. Certificates that have changed hold for every connection made from then
//! on, and for none that is open. Reading files is left to `credentials`, connecting to the clients.
//!
//! Without roots of its own a service's certificate must come from the machine's, or from those that `SSL_CERT_FILE` and
//! `SSL_CERT_DIR` name, as OpenSSL reads them.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::credentials::{Credentials, Identity, Roots};

/// How to speak TLS with one service, by the protocol that `alpn` names.
///
/// # Errors
/// Where there are neither roots of its own nor any on this machine: what is wrong, and what to do.
pub(super) fn client_config(
    credentials: &Credentials,
    alpn: &[u8],
) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has what TLS 1.2 and 1.3 need");
    let builder = match &credentials.roots {
        // Dangerous is a verifier that accepts what it should not. This one only asks the usual one, which may be another tomorrow.
        Some(roots) => builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(CurrentRoots(Arc::clone(roots)))),
        None => builder.with_root_certificates(machine_roots()?),
    };
    let mut config = match &credentials.identity {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(CurrentIdentity(Arc::clone(identity))))
        }
        None => builder.with_no_client_auth(),
    };
    if credentials.roots.is_some() || credentials.identity.is_some() {
        // A resumed session is not verified again: it would outlive the certificates that it was made with.
        config.resumption = Resumption::disabled();
    }
    config.alpn_protocols = vec![alpn.to_vec()];
    Ok(config)
}

fn machine_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _unreadable) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map_or_else(String::new, |error| format!(" ({error})"));
    Err(format!(
        "this machine has no root certificates{why}: set SSL_CERT_FILE, or the service's own CA file"
    ))
}

/// Verifies with the roots as they are now.
#[derive(Debug)]
struct CurrentRoots(Arc<Roots>);

impl ServerCertVerifier for CurrentRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verifier = self.0.current();
        verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.current().verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.current().verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.current().supported_verify_schemes()
    }
}

/// Shows the certificate as it is now.
#[derive(Debug)]
struct CurrentIdentity(Arc<Identity>);

impl ResolvesClientCert for CurrentIdentity {
    fn resolve(
        &self,
        _root_hint_subjects: &[&[u8]],
        _sigschemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests;
