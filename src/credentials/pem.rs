//! Parses certificates and keys from PEM text.

use std::fmt;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{Error, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::watched::FileFault;

/// Used instead of the parser's error, which may contain the invalid line.
const DAMAGED: &str = "is damaged: its PEM cannot be read";

/// Builds a certificate verifier from the root certificates in the first file.
pub(super) fn roots(files: &[Vec<u8>]) -> Result<Arc<WebPkiServerVerifier>, FileFault> {
    let fault = |what| FileFault { file: 0, what };
    let mut roots = RootCertStore::empty();
    for (index, certificate) in certificates(&files[0]).map_err(fault)?.into_iter().enumerate() {
        roots
            .add(certificate)
            .map_err(|error| fault(format!("certificate {}: {error}", index + 1)))?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::new(default_provider()))
        .build()
        .map_err(|error| fault(error.to_string()))
}

/// Parses the certificates in the first file and the private key in the second.
pub(super) fn identity(files: &[Vec<u8>]) -> Result<Arc<CertifiedKey>, FileFault> {
    let chain = certificates(&files[0]).map_err(|what| FileFault { file: 0, what })?;
    let fault = |what| FileFault { file: 1, what };
    let key = PrivateKeyDer::from_pem_slice(&files[1]).map_err(|error| {
        let is_other = matches!(error, Error::NoItemsFound);
        fault(if is_other { "holds no PEM private key" } else { DAMAGED }.to_owned())
    })?;
    let certified = CertifiedKey::from_der(chain, key, &default_provider());
    certified.map(Arc::new).map_err(|error| fault(error.to_string()))
}

/// PEM text of a certificate with its private key. `Debug` shows neither.
pub struct IdentityText {
    /// The certificate, then intermediate certificates, if any.
    pub certificate: Vec<u8>,
    /// The private key.
    pub key: Vec<u8>,
}

impl fmt::Debug for IdentityText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentityText")
    }
}

/// Returns the text of the first file, if it contains root certificates.
pub(super) fn roots_text(files: &[Vec<u8>]) -> Result<Arc<Vec<u8>>, FileFault> {
    roots(files)?;
    Ok(Arc::new(files[0].clone()))
}

/// Returns the texts of both files, if they are a certificate and its key.
pub(super) fn identity_text(files: &[Vec<u8>]) -> Result<Arc<IdentityText>, FileFault> {
    identity(files)?;
    Ok(Arc::new(IdentityText { certificate: files[0].clone(), key: files[1].clone() }))
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if found.is_empty() => Err("holds no PEM certificate".to_owned()),
        Ok(found) => Ok(found),
        Err(_) => Err(DAMAGED.to_owned()),
    }
}
