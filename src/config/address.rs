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

    /// Whether it is a FIFO queue: those end in `.fifo` (SQS developer guide, "Queue name").
    #[must_use]
    pub fn is_fifo(&self) -> bool {
        self.name.ends_with(FIFO_SUFFIX)
    }
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

/// An http(s) URL, or `host:port`, which stands for http.
fn web_or_host_port(text: &str) -> Option<Url> {
    let url = if text.contains("://") {
        parse(text)?
    } else {
        let (_, port) = text.rsplit_once(':')?;
        port.parse::<u16>().ok()?;
        parse(&format!("http://{text}"))?
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
    web_or_host_port(text).filter(|url| url.path() == "/")
}

pub(super) fn base(text: &str) -> Option<Url> {
    parse(text).filter(|url| is_web(url) && is_bare(url))
}

pub(super) fn collector(text: &str) -> Option<Url> {
    web_or_host_port(text)
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
