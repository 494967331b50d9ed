//! The TLS and token files of the two services: which files are allowed together, and where.
//!
//! `credentials` reads the files, at startup and later.

use std::path::PathBuf;
use std::sync::Arc;

use url::Url;

use super::raw::Raw;
use super::read::Reader;
use super::table::{self, VARIABLES, Variable};
use crate::credentials::{self, CredentialFile, Credentials, FileError};

/// A variable of the table and the value given for it.
type GivenCredential<'a> = (&'a Variable, &'a Option<String>);

/// The variables of one service.
struct CredentialVariables<'a> {
    /// The variable of the service's address, and the address if it is valid.
    address: (&'a Variable, Option<&'a Url>),
    roots: GivenCredential<'a>,
    certificate: GivenCredential<'a>,
    key: GivenCredential<'a>,
    token: GivenCredential<'a>,
}

pub(super) fn inventory(reader: &mut Reader, raw: &Raw, url: Option<&Url>) -> Credentials {
    let files = CredentialVariables {
        address: (&table::INVENTORY_GRPC_ADDR, url),
        roots: (&table::INVENTORY_CA_FILE, &raw.inventory_ca_file),
        certificate: (&table::INVENTORY_CLIENT_CERT_FILE, &raw.inventory_client_cert_file),
        key: (&table::INVENTORY_KEY_FILE, &raw.inventory_key_file),
        token: (&table::INVENTORY_TOKEN_FILE, &raw.inventory_token_file),
    };
    files.read(reader)
}

pub(super) fn reservation_api(reader: &mut Reader, raw: &Raw, base: Option<&Url>) -> Credentials {
    let certificate = &raw.reservation_api_client_cert_file;
    let files = CredentialVariables {
        address: (&table::RESERVATION_API_BASE, base),
        roots: (&table::RESERVATION_API_CA_FILE, &raw.reservation_api_ca_file),
        certificate: (&table::RESERVATION_API_CLIENT_CERT_FILE, certificate),
        key: (&table::RESERVATION_API_KEY_FILE, &raw.reservation_api_key_file),
        token: (&table::RESERVATION_API_TOKEN_FILE, &raw.reservation_api_token_file),
    };
    files.read(reader)
}

impl CredentialVariables<'_> {
    /// Reads the files; a file that cannot be read is recorded as an error.
    fn read(&self, reader: &mut Reader) -> Credentials {
        let roots = self.of_tls(reader, self.roots);
        let certificate = self.of_tls(reader, self.certificate);
        let key = self.of_tls(reader, self.key);
        let token = file(reader, self.token);
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => kept(reader, credentials::identity(certificate, key)),
            (Some(alone), None) => self.without(reader, &alone, self.key),
            (None, Some(alone)) => self.without(reader, &alone, self.certificate),
            (None, None) => None,
        };
        Credentials {
            roots: roots.and_then(|file| kept(reader, credentials::roots(file))),
            identity,
            token: token.and_then(|file| kept(reader, credentials::token(file))),
        }
    }

    /// Returns a file that requires TLS; refuses it if the address is not https.
    ///
    /// To ignore it would send data unencrypted although TLS was configured.
    fn of_tls(&self, reader: &mut Reader, given: GivenCredential<'_>) -> Option<CredentialFile> {
        let file = file(reader, given)?;
        let (address, url) = self.address;
        if url.is_some_and(|url| url.scheme() != "https") {
            let allowed = format!("set only where {} is an https URL", address.name);
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
fn file(reader: &mut Reader, (variable, given): GivenCredential<'_>) -> Option<CredentialFile> {
    let path = PathBuf::from(reader.text(variable, given)?);
    Some(CredentialFile { variable: variable.name, path })
}

/// Returns the value that was read, or records its error.
fn kept<T>(reader: &mut Reader, read: Result<T, FileError>) -> Option<Arc<T>> {
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
