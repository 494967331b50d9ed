//! Root certificates, client certificate with key, and bearer token.
//!
//! They are read from files at startup, and again when the files change. The clients decide which
//! service gets them and how they are sent.
//!
//! The contents are never printed: `Debug` and all messages contain only variables and paths.

mod pem;
#[cfg(test)]
pub(crate) mod tests;
mod token;
mod watched;

use std::path::PathBuf;
use std::sync::Arc;

use http::HeaderValue;
use rustls::client::WebPkiServerVerifier;
use rustls::sign::CertifiedKey;

pub use watched::{FileError, LOOK_INTERVAL, Watched};

/// A file, and the environment variable that contains its path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFile {
    /// The environment variable.
    pub variable: &'static str,
    /// The path as configured.
    pub path: PathBuf,
}

/// Verifier of a service's certificate.
pub type Roots = Watched<WebPkiServerVerifier>;

/// This worker's client certificate with its key.
pub type Identity = Watched<CertifiedKey>;

/// The value of the `authorization` header.
pub type BearerToken = Watched<HeaderValue>;

/// Credentials configured for one service.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Root certificates to verify the service with, instead of the system's.
    pub roots: Option<Arc<Roots>>,
    /// The client certificate for the service.
    pub identity: Option<Arc<Identity>>,
    /// The bearer token to send with each call.
    pub token: Option<Arc<BearerToken>>,
}

/// Reads root certificates from a PEM file.
///
/// # Errors
/// If the file cannot be read, has no certificate, or has a damaged one.
pub fn roots(file: CredentialFile) -> Result<Roots, FileError> {
    Watched::read([file], pem::roots)
}

/// Reads a certificate and its private key from PEM files. Intermediate certificates, if any,
/// follow the certificate in its file.
///
/// # Errors
/// If a file cannot be read, or certificate and key do not match.
pub fn identity(certificate: CredentialFile, key: CredentialFile) -> Result<Identity, FileError> {
    Watched::read([certificate, key], pem::identity)
}

/// Reads a bearer token (RFC 6750, section 2.1). Surrounding white space is ignored.
///
/// # Errors
/// If the file cannot be read, or is not a valid token.
pub fn token(file: CredentialFile) -> Result<BearerToken, FileError> {
    Watched::read([file], token::bearer)
}
