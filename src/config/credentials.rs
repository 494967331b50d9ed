//! The TLS and token files of the two services, and the TLS files of the shared store: which are
//! allowed together, and where.
//!
//! `credentials` reads the files, at startup and later.

use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use super::raw::Raw;
use super::read::Reader;
use super::table::{self, VARIABLES, Variable};
use crate::credentials::{self, CredentialFile, Credentials, FileError, StoreCertificates};

/// A variable of the table and the value given for it.
pub(super) type GivenCredential<'a> = (&'a Variable, &'a Option<String>);

/// The variables of TLS for one service, or for the store.
struct CertificateVariables<'a> {
    /// The variable of the address, whether that means TLS (`None` if it is wrong), and what does.
    address: (&'a Variable, Option<bool>, &'static str),
    roots: GivenCredential<'a>,
    certificate: GivenCredential<'a>,
    key: GivenCredential<'a>,
}

/// The files of TLS, not read yet.
struct CertificateFiles {
    roots: Option<CredentialFile>,
    /// The certificate and its key.
    identity: Option<(CredentialFile, CredentialFile)>,
}

pub(super) fn inventory(reader: &mut Reader, raw: &Raw, url: Option<&Url>) -> Credentials {
    let files = CertificateVariables {
        address: (&table::INVENTORY_GRPC_ADDR, url.map(is_https), "an https URL"),
        roots: (&table::INVENTORY_CA_FILE, &raw.inventory_ca_file),
        certificate: (&table::INVENTORY_CLIENT_CERT_FILE, &raw.inventory_client_cert_file),
        key: (&table::INVENTORY_KEY_FILE, &raw.inventory_key_file),
    };
    let token = (&table::INVENTORY_TOKEN_FILE, &raw.inventory_token_file);
    of_service(reader, &files, token)
}

pub(super) fn reservation_api(reader: &mut Reader, raw: &Raw, base: Option<&Url>) -> Credentials {
    let certificate = &raw.reservation_api_client_cert_file;
    let files = CertificateVariables {
        address: (&table::RESERVATION_API_BASE, base.map(is_https), "an https URL"),
        roots: (&table::RESERVATION_API_CA_FILE, &raw.reservation_api_ca_file),
        certificate: (&table::RESERVATION_API_CLIENT_CERT_FILE, certificate),
        key: (&table::RESERVATION_API_KEY_FILE, &raw.reservation_api_key_file),
    };
    let token = (&table::RESERVATION_API_TOKEN_FILE, &raw.reservation_api_token_file);
    of_service(reader, &files, token)
}

/// Reads the shared store's files; `uses_tls` is `None` if its address is wrong.
pub(super) fn store(reader: &mut Reader, raw: &Raw, uses_tls: Option<bool>) -> StoreCertificates {
    let certificate = &raw.idempotency_store_client_cert_file;
    let files = CertificateVariables {
        address: (&table::IDEMPOTENCY_STORE, uses_tls, "a rediss:// URL"),
        roots: (&table::IDEMPOTENCY_STORE_CA_FILE, &raw.idempotency_store_ca_file),
        certificate: (&table::IDEMPOTENCY_STORE_CLIENT_CERT_FILE, certificate),
        key: (&table::IDEMPOTENCY_STORE_KEY_FILE, &raw.idempotency_store_key_file),
    };
    let CertificateFiles { roots, identity } = files.check(reader);
    StoreCertificates {
        roots: roots.and_then(|file| kept(reader, credentials::roots_text(file))),
        identity: identity.and_then(|(certificate, key)| {
            kept(reader, credentials::identity_text(certificate, key))
        }),
    }
}

fn is_https(url: &Url) -> bool {
    url.scheme() == "https"
}

/// Reads the files; a file that cannot be read is recorded as an error.
fn of_service(
    reader: &mut Reader,
    files: &CertificateVariables<'_>,
    token: GivenCredential<'_>,
) -> Credentials {
    let CertificateFiles { roots, identity } = files.check(reader);
    let token = file(reader, token);
    Credentials {
        roots: roots.and_then(|file| kept(reader, credentials::roots(file))),
        identity: identity
            .and_then(|(certificate, key)| kept(reader, credentials::identity(certificate, key))),
        token: token.and_then(|file| kept(reader, credentials::token(file))),
    }
}

impl CertificateVariables<'_> {
    /// Checks which files are given, without reading them.
    fn check(&self, reader: &mut Reader) -> CertificateFiles {
        let roots = self.of_tls(reader, self.roots);
        let certificate = self.of_tls(reader, self.certificate);
        let key = self.of_tls(reader, self.key);
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (Some(alone), None) => self.without(reader, &alone, self.key),
            (None, Some(alone)) => self.without(reader, &alone, self.certificate),
            (None, None) => None,
        };
        CertificateFiles { roots, identity }
    }

    /// Returns a file that requires TLS; refuses it if the address does not mean TLS.
    ///
    /// To ignore it would send data unencrypted although TLS was configured.
    fn of_tls(&self, reader: &mut Reader, given: GivenCredential<'_>) -> Option<CredentialFile> {
        let file = file(reader, given)?;
        let (address, uses_tls, tls) = self.address;
        if uses_tls == Some(false) {
            let allowed = format!("set only where {} is {tls}", address.name);
            reader.wrong(given.0, &file.path.to_string_lossy(), allowed);
            return None;
        }
        Some(file)
    }

    /// Refuses one file of a pair that is given without `other`.
    fn without<T>(
        &self,
        reader: &mut Reader,
        alone: &CredentialFile,
        other: GivenCredential<'_>,
    ) -> Option<T> {
        // If `other` is set but wrong, that error is recorded already.
        if other.1.is_none() {
            let allowed = format!("set together with {}, which is not set", other.0.name);
            reader.wrong(variable(alone.variable), &alone.path.to_string_lossy(), allowed);
        }
        None
    }
}

/// Returns the path that a variable contains.
pub(super) fn file(
    reader: &mut Reader,
    (variable, given): GivenCredential<'_>,
) -> Option<CredentialFile> {
    let path = PathBuf::from(reader.text(variable, given)?);
    Some(CredentialFile { variable: variable.name, path })
}

/// Returns the value that was read, or records its error.
pub(super) fn kept<T>(reader: &mut Reader, read: Result<T, FileError>) -> Option<Arc<T>> {
    match read {
        Ok(value) => Some(Arc::new(value)),
        Err(FileError { variable: name, path, what }) => {
            let variable = variable(name);
            let allowed = format!("{}; this one: {what}", variable.allowed);
            reader.wrong(variable, &path.to_string_lossy(), allowed);
            None
        }
    }
}

fn variable(name: &str) -> &'static Variable {
    let found = VARIABLES.iter().find(|variable| variable.name == name);
    found.expect("every file's variable is in the table")
}
