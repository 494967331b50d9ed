//! Parses the URL of the shared store, and says what is wrong with one that is refused.
//!
//! No text contains any part of the URL but single characters that must be percent-encoded.

use percent_encoding::percent_decode_str;

use super::address::{SecretUrl, parse};

/// The schemes with and without TLS. Valkey's names mean the same as those of Redis.
const SCHEMES: [&str; 4] = ["redis", "rediss", "valkey", "valkeys"];

/// Schemes of clients that ask a Sentinel for the master.
const SENTINEL: &str = "a Sentinel is not asked here: name the master, or any node of a cluster";

const SOCKET: &str = "sockets of the machine are not connected to: name host and port";

const INSECURE: &str = "a certificate is always verified: leave #insecure out, and name a private authority in IDEMPOTENCY_STORE_CA_FILE";

const NOT_TEXT: &str = "in this one, user and password are not UTF-8 once their %XX are decoded";

/// Parses the URL. The error says what is wrong in particular, or is empty.
pub(super) fn store_url(text: &str) -> Result<SecretUrl, String> {
    let generic = String::new;
    let (scheme, rest) = text.split_once("://").ok_or_else(generic)?;
    let scheme = scheme.to_ascii_lowercase();
    if scheme.contains("sentinel") {
        return Err(SENTINEL.to_owned());
    }
    if scheme.contains("unix") || scheme.contains("socket") {
        return Err(SOCKET.to_owned());
    }
    if !SCHEMES.contains(&scheme.as_str()) {
        return Err(generic());
    }
    if let Some(fault) = unencoded(rest) {
        return Err(fault);
    }
    if rest.ends_with("#insecure") {
        return Err(INSECURE.to_owned());
    }
    let url = parse(text).ok_or_else(generic)?;
    let is_complete = url.host_str().is_some_and(|host| !host.is_empty())
        && url.port() != Some(0)
        && url.fragment().is_none()
        && is_database(url.path());
    if !is_complete {
        return Err(generic());
    }
    let is_text = |part: &str| percent_decode_str(part).decode_utf8().is_ok();
    if !is_text(url.username()) || !url.password().is_none_or(is_text) {
        return Err(NOT_TEXT.to_owned());
    }
    Ok(SecretUrl::new(url))
}

/// Returns whether the path is empty, or a slash with an optional database number.
fn is_database(path: &str) -> bool {
    let number = path.strip_prefix('/').unwrap_or(path);
    number.is_empty() || number.parse::<u16>().is_ok()
}

/// Names the characters of user and password that end them, or that no URL may have.
///
/// All text before the last `@` counts as user and password.
fn unencoded(after_scheme: &str) -> Option<String> {
    let (user_info, _) = after_scheme.rsplit_once('@')?;
    let breaks =
        |c: char| matches!(c, '/' | '?' | '#' | '\\') || c.is_whitespace() || c.is_control();
    if !user_info.contains(breaks) {
        return None;
    }
    // Whoever leaves one character as it is has not encoded these either.
    let is_wrong = |c: &char| breaks(*c) || matches!(c, '@' | '%');
    let mut named: Vec<String> = Vec::new();
    for c in user_info.chars().filter(is_wrong) {
        let name = match c {
            ' ' => "a space (%20)".to_owned(),
            c if c.is_ascii_graphic() => format!("{c} (%{:02X})", u32::from(c)),
            _ => "white space or a control character".to_owned(),
        };
        if !named.contains(&name) {
            named.push(name);
        }
    }
    Some(format!(
        "in this one, the user or password has {}, to be percent-encoded as shown; or leave the password out, and put it into a file (IDEMPOTENCY_STORE_AUTH=file)",
        named.join(", ")
    ))
}
