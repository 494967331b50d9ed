//! Parses a bearer token from a file.

use std::sync::Arc;

use http::HeaderValue;

use super::watched::FileFault;

/// Maximum token length. Servers reject much longer headers; an OpenID token has one or two
/// thousand characters.
const TOKEN_BYTES_MAX: usize = 7 * 1024;

/// Returns `Bearer <token>`, marked as sensitive: HTTP/2 header tables do not store it, and `Debug`
/// does not print it.
pub(super) fn bearer(files: &[Vec<u8>]) -> Result<Arc<HeaderValue>, FileFault> {
    let fault = |what: &str| FileFault { file: 0, what: what.to_owned() };
    let token = files[0].trim_ascii();
    if token.is_empty() {
        return Err(fault("is empty"));
    }
    if token.len() > TOKEN_BYTES_MAX {
        return Err(fault("is longer than 7 KiB"));
    }
    if !token.iter().all(u8::is_ascii_graphic) {
        return Err(fault("holds something else than one token of printable ASCII characters"));
    }
    let value = [b"Bearer ", token].concat();
    let mut value = HeaderValue::from_bytes(&value).expect("printable ASCII fits a header");
    value.set_sensitive(true);
    Ok(Arc::new(value))
}
