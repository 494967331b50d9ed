//! Root certificates, client certificate with key, bearer token, and the shared store's password.
//!
//! They are read from files at startup, and again when the files change. The clients decide which
//! service gets them and how they are sent.
//!
//! The contents are never printed: `Debug` and all messages contain only variables and paths.

mod password;
mod pem;
#[cfg(test)]
pub(crate) mod tests;
mod token;
mod watched;

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderValue;
use rustls::client::WebPkiServerVerifier;
use rustls::sign::CertifiedKey;

pub use password::Password;
pub use pem::IdentityText;
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

/// PEM text of root certificates, for a client that takes no verifier.
pub type RootsText = Watched<Vec<u8>>;

/// PEM text of the client certificate and its key, for such a client.
pub type IdentityTexts = Watched<IdentityText>;

/// The password of the shared store.
pub type PasswordFile = Watched<Password>;

/// The certificates configured for the shared store.
#[derive(Clone, Debug, Default)]
pub struct StoreCertificates {
    /// Root certificates to verify the server with, instead of the system's.
    pub roots: Option<Arc<RootsText>>,
    /// The client certificate for the server.
    pub identity: Option<Arc<IdentityTexts>>,
}

/// A source of passwords that has one for each new connection.
#[async_trait]
pub trait PasswordSource: Send + Sync + 'static {
    /// Returns the password for a connection that is about to be made.
    ///
    /// # Errors
    /// If there is none now; the text contains the remedy and no secret.
    async fn password(&self) -> Result<Password, String>;
}

#[async_trait]
impl PasswordSource for PasswordFile {
    async fn password(&self) -> Result<Password, String> {
        Ok(Password::clone(&self.latest()))
    }
}

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

/// Reads the PEM text of root certificates, with the checks of [`roots`].
///
/// # Errors
/// As [`roots`].
pub fn roots_text(file: CredentialFile) -> Result<RootsText, FileError> {
    Watched::read([file], pem::roots_text)
}

/// Reads the PEM text of a certificate and its key, with the checks of [`identity`].
///
/// # Errors
/// As [`identity`].
pub fn identity_text(
    certificate: CredentialFile,
    key: CredentialFile,
) -> Result<IdentityTexts, FileError> {
    Watched::read([certificate, key], pem::identity_text)
}

/// Reads a password: one line of text. A line end after it is ignored.
///
/// # Errors
/// If the file cannot be read, is empty, or has more than one line.
pub fn password(file: CredentialFile) -> Result<PasswordFile, FileError> {
    Watched::read([file], password::password)
}
