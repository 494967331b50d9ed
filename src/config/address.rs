//! The addresses in the configuration, each checked into a type that says what it is. Nothing is resolved or connected to here.

use std::fmt;

use url::Url;

use super::error::mask;

/// An SQS queue, as its URL names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueUrl {
    url: Box<str>,
    name: Box<str>,
}

impl QueueUrl {
    /// The URL as it was given: SQS knows a queue by exactly this.
    #[must_use]
    pub const fn as_str(&self) -> &str {
        &self.url
    }

    /// The queue's name.
    #[must_use]
    pub const fn name(&self) -> &str {
        &self.name
    }
}

impl QueueUrl {
    /// Scheme, host and port: where a queue with this URL is called.
    #[must_use]
    pub fn origin(&self) -> String {
        self.parsed().origin().ascii_serialization()
    }

    /// The region that the host names, or LocalStack's path: `sqs.<region>.`, `sqs-fips.<region>.`, `<region>.queue.`,
    /// `/queue/<region>/<account>/<name>`, whatever stands before and behind.
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

    /// Whether the host is one of SQS's from before it had `sqs.<region>.amazonaws.com`: the queue's name is still right,
    /// and the call goes elsewhere.
    #[must_use]
    pub fn has_legacy_host(&self) -> bool {
        let url = self.parsed();
        let host = url.host_str().unwrap_or_default();
        host == LEGACY_HOST || host.ends_with(&format!(".{LEGACY_HOST}"))
    }

    /// The account, where the URL names one.
    #[must_use]
    pub fn account(&self) -> Option<&str> {
        let before = self.url.strip_suffix(&*self.name)?.strip_suffix('/')?;
        let (_, account) = before.rsplit_once('/')?;
        is_account(account).then_some(account)
    }

    /// Whether both name one queue, however they are spelt. One endpoint is called for both, so that hosts do not count.
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

/// Whether it looks like a region's name: letters, at least one more word, a number (`us-gov-west-1`).
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

/// A URL with a password in it. Shown masked, by `Debug` and `Display` alike.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretUrl(Url);

impl SecretUrl {
    /// The URL with its password: to connect, never to show.
    #[must_use]
    pub const fn expose(&self) -> &Url {
        &self.0
    }

    /// Scheme, host and port: to be shown.
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

/// SQS's oldest host, and that of its other regions behind their names (SQS developer guide, "Legacy endpoints").
const LEGACY_HOST: &str = "queue.amazonaws.com";
const LEGACY_REGION: &str = "us-east-1";

const ACCOUNT_DIGITS: usize = 12;

const FIFO_SUFFIX: &str = ".fifo";

/// The longest name of a queue, `.fifo` included (SQS API reference, `CreateQueue`).
const QUEUE_NAME_LENGTH_MAX: usize = 80;

/// Parses what can stand in a URL as it is. The parser would drop tabs, line ends and outer spaces without a word.
fn parse(text: &str) -> Option<Url> {
    let is_plain = !text.contains(|character: char| {
        character.is_whitespace() || character.is_control() || character == '\\'
    });
    is_plain.then(|| Url::parse(text).ok()).flatten()
}

/// An address of AWS's API, as `AWS_ENDPOINT_URL` has it: a path may stand there, a query not.
pub(super) fn endpoint(text: &str) -> Option<Url> {
    parse(text).filter(|url| is_web(url) && is_bare(url))
}

/// A proxy: an http(s) URL, maybe with user and password, or `host:port`.
pub(super) fn proxy(text: &str) -> Option<SecretUrl> {
    let url = if text.contains("://") { parse(text)? } else { parse(&format!("http://{text}"))? };
    (is_web(&url) && url.query().is_none() && url.fragment().is_none()).then_some(SecretUrl(url))
}

fn is_web(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https") && url.host().is_some() && url.port() != Some(0)
}

/// No user or password, no query, no fragment.
fn is_bare(url: &Url) -> bool {
    url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none()
}

/// An http(s) URL, or `host:port` with this scheme.
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

/// A gRPC service: its paths are those of its methods, so the URL has none.
pub(super) fn grpc_service(text: &str) -> Option<Url> {
    web_or_host_port(text, "http").filter(|url| url.path() == "/")
}

pub(super) fn base(text: &str) -> Option<Url> {
    parse(text).filter(|url| is_web(url) && is_bare(url))
}

/// A collector; `is_insecure` where it has no scheme says whether that is http.
pub(super) fn collector(text: &str, is_insecure: bool) -> Option<Url> {
    web_or_host_port(text, if is_insecure { "http" } else { "https" })
}

/// Nothing, or a slash and the number of a database.
fn is_database(path: &str) -> bool {
    let number = path.strip_prefix('/').unwrap_or(path);
    number.is_empty() || number.parse::<u16>().is_ok()
}

pub(super) fn redis(text: &str) -> Option<SecretUrl> {
    let url = parse(text)?;
    let is_redis = matches!(url.scheme(), "redis" | "rediss")
        && url.host_str().is_some_and(|host| !host.is_empty())
        && url.port() != Some(0)
        && url.fragment().is_none()
        && is_database(url.path());
    is_redis.then_some(SecretUrl(url))
}
