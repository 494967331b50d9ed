//! TLS configuration for the two services: trusted roots and client certificate.
//!
//! Changed certificates apply to every new connection. Open connections keep the old ones.
//! `credentials` reads the files; the clients connect.
//!
//! If no roots are configured, those of the machine apply, or those that `SSL_CERT_FILE` and
//! `SSL_CERT_DIR` name, as with OpenSSL.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::ring::default_provider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};

use crate::credentials::{Credentials, Identity, Roots};

/// Returns the TLS configuration for one service and the ALPN protocol `alpn`.
///
/// # Errors
/// Where no roots are configured and this machine has none. The text contains the remedy.
pub(super) fn client_config(
    credentials: &Credentials,
    alpn: &[u8],
) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has what TLS 1.2 and 1.3 need");
    let builder = match &credentials.roots {
        // A custom verifier is dangerous if it accepts too much. This one only delegates to the
        // standard verifier with the current roots.
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
        // A resumed session is not verified again, so it would outlive the certificates that it was
        // made with.
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

/// Server certificate verifier that uses the current roots.
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

/// Client certificate resolver that returns the current certificate.
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
