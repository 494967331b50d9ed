//! Who is trusted, and what proves who this worker is: roots, a certificate with its key, a token; each from files that are read
//! at the start, and again when they change. Which service they are for, and how they are sent, is left to the clients.
//!
//! Nothing of their contents is ever shown: `Debug` and every message name variables and paths only.

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

/// A file, and the variable that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialFile {
    /// The variable.
    pub variable: &'static str,
    /// The path, as given.
    pub path: PathBuf,
}

/// Verifies a service's certificate.
pub type Roots = Watched<WebPkiServerVerifier>;

/// This worker's own certificate with its key.
pub type Identity = Watched<CertifiedKey>;

/// The value of the `authorization` header.
pub type Token = Watched<HeaderValue>;

/// What is known of one service, as far as it was configured.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Roots that the service's certificate must come from, instead of the machine's.
    pub roots: Option<Arc<Roots>>,
    /// The certificate to show to the service.
    pub identity: Option<Arc<Identity>>,
    /// The bearer token to send with each call.
    pub token: Option<Arc<Token>>,
}

/// The roots in a file of PEM certificates.
///
/// # Errors
/// Where it cannot be read, or holds no certificate or one that is damaged.
pub fn roots(file: CredentialFile) -> Result<Roots, FileError> {
    Watched::read([file], pem::roots)
}

/// A certificate (with those between it and the root behind it, if any) and its private key, PEM both.
///
/// # Errors
/// Where one cannot be read, or they do not belong together.
pub fn identity(certificate: CredentialFile, key: CredentialFile) -> Result<Identity, FileError> {
    Watched::read([certificate, key], pem::identity)
}

/// A bearer token (RFC 6750, section 2.1); white space around it does not count.
///
/// # Errors
/// Where it cannot be read, or is no token.
pub fn token(file: CredentialFile) -> Result<Token, FileError> {
    Watched::read([file], token::bearer)
}
