//! Types for the addresses in the configuration, each checked when it is parsed.
//!
//! This module resolves no names and opens no connections.

use std::fmt;

use percent_encoding::percent_decode_str;
use url::Url;

use super::error::mask;

/// The URL of an SQS queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueUrl {
    url: Box<str>,
    name: Box<str>,
}

impl QueueUrl {
    /// Returns the URL exactly as given: SQS identifies a queue by this text.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.url
    }

    /// Returns the name of the queue.
    #[must_use]
    pub const fn name(&self) -> &str {
        &self.name
    }

    /// Returns whether the queue is FIFO: its name ends in `.fifo`.
    #[must_use]
    pub fn is_fifo(&self) -> bool {
        self.name().ends_with(FIFO_SUFFIX)
    }
}

impl QueueUrl {
    /// Returns scheme, host and port of the URL.
    #[must_use]
    pub fn origin(&self) -> String {
        self.parsed().origin().ascii_serialization()
    }

    /// Returns the region in the host, or in the path of a LocalStack URL.
    ///
    /// The forms are `sqs.<region>.`, `sqs-fips.<region>.`, `<region>.queue.` and
    /// `/queue/<region>/<account>/<name>`, with any text before and after.
    #[must_use]
    pub fn region(&self) -> Option<String> {
        let url = self.parsed();
        if url.host_str() == Some(LEGACY_HOST) {
            return Some(LEGACY_REGION.to_owned());
        }
        let is_region = |label: &&str| is_region(label);
        let labels: Vec<&str> = url.host_str().unwrap_or_default().split('.').collect();
        let named = labels.windows(2).find_map(|pair| match pair {
            ["sqs" | "sqs-fips", region] | [region, "queue"] => Some(*region).filter(is_region),
            _ => None,
        });
        let path: Vec<&str> = url.path_segments()?.collect();
        let in_path = || match *path {
            ["queue", region, _account, _name] => Some(region),
            _ => None,
        };
        named.or_else(in_path).filter(is_region).map(str::to_owned)
    }

    /// Returns whether the host is a legacy SQS host, older than `sqs.<region>.amazonaws.com`.
    ///
    /// The queue name in such a URL is valid, but the calls go to another host.
    #[must_use]
    pub fn has_legacy_host(&self) -> bool {
        let url = self.parsed();
        let host = url.host_str().unwrap_or_default();
        host == LEGACY_HOST || host.ends_with(&format!(".{LEGACY_HOST}"))
    }

    /// Returns the account, if the URL contains one.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        let before = self.url.strip_suffix(&*self.name)?.strip_suffix('/')?;
        let (_, account) = before.rsplit_once('/')?;
        is_account(account).then_some(account)
    }

    /// Returns whether both URLs identify one queue.
    ///
    /// Hosts are not compared, because the worker calls one endpoint for both.
    #[must_use]
    pub fn is_same_queue(&self, other: &Self) -> bool {
        let accounts_differ =
            matches!((self.account(), other.account()), (Some(a), Some(b)) if a != b);
        self.name == other.name && !accounts_differ
    }

    fn parsed(&self) -> Url {
        Url::parse(&self.url).expect("it was parsed when it was read")
    }
}

fn is_account(text: &str) -> bool {
    text.len() == ACCOUNT_DIGITS && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns whether `text` has a region's form: two or more words and a number (`us-gov-west-1`).
fn is_region(text: &str) -> bool {
    let mut parts = text.split('-');
    let is_word = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_lowercase());
    let number = parts.next_back().unwrap_or_default();
    let words: Vec<&str> = parts.collect();
    words.len() >= 2
        && words.into_iter().all(is_word)
        && !number.is_empty()
        && number.bytes().all(|byte| byte.is_ascii_digit())
}

impl fmt::Display for QueueUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

/// A URL that may contain a password. `Debug` and `Display` mask it.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(Url);

impl SecretUrl {
    pub(super) const fn new(url: Url) -> Self {
        Self(url)
    }

    /// Returns the URL with its password. Use it to connect only; never show it.
    #[must_use]
    pub const fn expose(&self) -> &Url {
        &self.0
    }

    /// Returns the user's name, decoded, if the URL has one.
    #[must_use]
    pub fn user(&self) -> Option<String> {
        let user = Some(self.0.username()).filter(|user| !user.is_empty())?;
        Some(percent_decode_str(user).decode_utf8_lossy().into_owned())
    }

    /// Returns scheme, host and port, which are safe to show.
    #[must_use]
    pub fn without_user(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        let port = self.0.port().map_or_else(String::new, |port| format!(":{port}"));
        format!("{}://{host}{port}", self.0.scheme())
    }
}

impl fmt::Display for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask(self.0.as_str()))
    }
}

impl fmt::Debug for SecretUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The oldest SQS host; for other regions, the region comes before it.
///
/// Source: SQS developer guide, "Legacy endpoints".
const LEGACY_HOST: &str = "queue.amazonaws.com";
const LEGACY_REGION: &str = "us-east-1";

const ACCOUNT_DIGITS: usize = 12;

const FIFO_SUFFIX: &str = ".fifo";

/// The maximum length of a queue name, `.fifo` included (SQS API reference, `CreateQueue`).
const QUEUE_NAME_LENGTH_MAX: usize = 80;

/// Parses a URL that contains only characters allowed in a URL.
///
/// `Url::parse` alone silently removes tabs, line ends and outer spaces.
pub(super) fn parse(text: &str) -> Option<Url> {
    let is_plain = !text.contains(|character: char| {
        character.is_whitespace() || character.is_control() || character == '\\'
    });
    is_plain.then(|| Url::parse(text).ok()).flatten()
}

/// Parses an endpoint of the AWS API (`AWS_ENDPOINT_URL`): a path is allowed, a query is not.
pub(super) fn endpoint(text: &str) -> Option<Url> {
    parse(text).filter(|url| is_web(url) && is_bare(url))
}

/// Parses a proxy: an http(s) URL with optional user and password, or `host:port`.
pub(super) fn proxy(text: &str) -> Option<SecretUrl> {
    let url = if text.contains("://") { parse(text)? } else { parse(&format!("http://{text}"))? };
    // The client of SQS takes a `Uri`, which allows fewer characters.
    let is_uri = url.as_str().parse::<http::Uri>().is_ok();
    let is_proxy = is_uri && is_web(&url) && url.query().is_none() && url.fragment().is_none();
    is_proxy.then_some(SecretUrl(url))
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.port() != Some(0)
}

/// Returns whether the URL has no user, password, query or fragment.
fn is_bare(url: &Url) -> bool {
    url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

/// Parses an http(s) URL, or `host:port` with this scheme.
fn web_or_host_port(text: &str, scheme: &str) -> Option<Url> {
    let url = if text.contains("://") {
        parse(text)?
    } else {
        let (_, port) = text.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        parse(&format!("{scheme}://{text}"))?
    };
    (is_web(&url) && is_bare(&url)).then_some(url)
}

pub(super) fn queue(text: &str) -> Option<QueueUrl> {
    let url = parse(text).filter(|url| is_web(url) && is_bare(url))?;
    let name = url.path_segments()?.next_back()?;
    let stem = name.strip_suffix(FIFO_SUFFIX).unwrap_or(name);
    let is_name_character = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let is_name = !stem.is_empty()
        && name.len() <= QUEUE_NAME_LENGTH_MAX
        && stem.bytes().all(is_name_character);
    is_name.then(|| QueueUrl { url: text.into(), name: name.into() })
}

/// Parses the URL of a gRPC service. It has no path, because gRPC methods define the paths.
pub(super) fn grpc_service(text: &str) -> Option<Url> {
    web_or_host_port(text, "http").filter(|url| url.path() == "/")
}

pub(super) fn base(text: &str) -> Option<Url> {
    parse(text).filter(|url| is_web(url) && is_bare(url))
}

/// Parses the URL of a collector; without a scheme, `is_insecure` selects http instead of https.
pub(super) fn collector(text: &str, is_insecure: bool) -> Option<Url> {
    web_or_host_port(text, if is_insecure { "http" } else { "https" })
}
