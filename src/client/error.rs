//! Errors of calls: a class, an error code, and a short text for the log.
//!
//! [`classify`](super::classify) decides the class. The callers decide what follows from it: retry,
//! park, dead-letter.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

/// Maximum delay that a service may request for an event. A longer one is cut to this.
pub const PACE_MAX: Duration = Duration::from_secs(5 * 60);

/// Maximum characters of [`CallError::detail`], so that a log entry stays on one line.
pub const DETAIL_CHARS_MAX: usize = 200;

/// Class of a failed call: what it means for the event and for the called service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The service, or the network path to it, is down. Retry when it has recovered.
    Outage,
    /// The service failed to process this call. Retry.
    Transient,
    /// The service requests that this event is sent later.
    ///
    /// Retry at the time that it named ([`CallError::retry_after`]), or after a backoff if it named
    /// none.
    Paced,
    /// The reservation is in another state (409 or 412 from `PATCH`). Read it, then decide.
    Conflict,
    /// This client is not authorized. Permanent for an event if other events are not refused.
    Forbidden,
    /// The call can never succeed.
    Permanent,
    /// The payment was confirmed, but the seats cannot be sold.
    MoneyWithoutSeat,
}

impl Class {
    /// Returns the name for the status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Outage => "outage",
            Self::Transient => "transient",
            Self::Paced => "paced",
            Self::Conflict => "conflict",
            Self::Forbidden => "forbidden",
            Self::Permanent => "permanent",
            Self::MoneyWithoutSeat => "money_without_seat",
        }
    }
}

/// What a failed call shows about the load of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Load {
    /// The service decided on the call. The latency is a valid sample.
    Answered,
    /// The service did not answer in time, by the client's clock or by its own.
    TimedOut,
    /// The service asks for fewer calls.
    Refused,
    /// Unknown. A call that fails fast is not evidence that the service is fast.
    Unknown,
}

/// Returns the default for an answer of this class.
impl From<Class> for Load {
    fn from(class: Class) -> Self {
        match class {
            Class::Conflict | Class::Forbidden | Class::Permanent | Class::MoneyWithoutSeat => {
                Self::Answered
            }
            Class::Paced => Self::Refused,
            Class::Outage | Class::Transient => Self::Unknown,
        }
    }
}

/// Meaning of an answer that is not success: a [`CallError`] without its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Class of the failure.
    pub class: Class,
    /// Error code from a fixed set: `http_503`, `grpc_unavailable`, `timeout`, ...
    ///
    /// Used as a metric label and as a span's `error.type`.
    pub code: Cow<'static, str>,
    /// Delay that the service requested, counted from now; at most [`PACE_MAX`].
    ///
    /// Set only for [`Class::Paced`], where the answer named a time.
    pub retry_after: Option<Duration>,
    /// What the failure shows about the load of the service.
    pub load: Load,
}

impl Failure {
    /// Creates a failure without a requested delay.
    pub(crate) fn new(class: Class, code: impl Into<Cow<'static, str>>) -> Self {
        Self { class, code: code.into(), retry_after: None, load: class.into() }
    }

    /// Creates the failure of a call that timed out.
    pub(crate) fn timed_out(code: impl Into<Cow<'static, str>>) -> Self {
        Self { load: Load::TimedOut, ..Self::new(Class::Outage, code) }
    }

    /// Creates the failure of a call that the service paces, with the delay that it named, if any.
    pub(crate) fn paced(code: impl Into<Cow<'static, str>>, retry_after: Option<Duration>) -> Self {
        let retry_after = retry_after.map(|time| time.min(PACE_MAX));
        Self { retry_after, ..Self::new(Class::Paced, code) }
    }

    /// Adds the text for the log. `detail` is escaped and cut. Do not pass bodies.
    pub(crate) fn explain(self, detail: &str) -> CallError {
        CallError {
            class: self.class,
            code: self.code,
            detail: one_line(detail),
            retry_after: self.retry_after,
            load: self.load,
        }
    }
}

/// Error of a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct CallError {
    /// Class of the failure.
    pub class: Class,
    /// Error code from a fixed set, see [`Failure::code`].
    pub code: Cow<'static, str>,
    /// One short line for the log, at most [`DETAIL_CHARS_MAX`] characters.
    ///
    /// Contains no body and no control characters.
    pub detail: String,
    /// See [`Failure::retry_after`].
    pub retry_after: Option<Duration>,
    /// See [`Failure::load`].
    pub load: Load,
}

/// Error of building a client. Permanent: the configuration or the machine is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The HTTP client could not be built, usually because there are no root certificates.
    #[error("the HTTP client could not be built: {0}")]
    Http(String),
    /// The address is not one that gRPC can use, or its TLS could not be set up.
    #[error("the gRPC client could not be built for {address}: {reason}")]
    Grpc {
        /// The configured address, escaped and cut.
        address: String,
        /// The reason.
        reason: String,
    },
    /// `rustls` has no process-wide default provider. `main` installs one first.
    #[error("no default TLS crypto provider is installed")]
    NoCryptoProvider,
}

/// Returns at most [`DETAIL_CHARS_MAX`] characters of `text`, with unsafe characters escaped.
///
/// The result has no character that can break a line or control a terminal.
fn one_line(text: &str) -> String {
    let mut out = String::new();
    let mut chars = 0;
    for c in text.chars() {
        let width = if is_plain(c) { 1 } else { c.escape_default().count() };
        // One place is reserved for the ellipsis.
        if chars + width >= DETAIL_CHARS_MAX {
            out.push('…');
            break;
        }
        chars += width;
        if is_plain(c) {
            out.push(c);
        } else {
            out.extend(c.escape_default());
        }
    }
    out
}

/// Returns an error and its causes as one line.
///
/// `reqwest` and `tonic` give the reason of an error only in its sources.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    /// Deeper chains repeat themselves.
    const CAUSES_MAX: usize = 8;
    let mut line = error.to_string();
    let mut source = error.source();
    for _ in 0..CAUSES_MAX {
        let Some(cause) = source else { break };
        let text = cause.to_string();
        if !line.contains(&text) {
            write!(line, ": {text}").expect("writing to a String cannot fail");
        }
        source = cause.source();
    }
    line
}

/// Whether a character is safe in a log line.
///
/// Unsafe are control characters and those that reorder or hide the text around them (Unicode bidi
/// and zero-width marks).
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_detail_is_one_short_line() {
        assert_eq!(one_line("plain, 한국어"), "plain, 한국어");
        assert_eq!(one_line("a\nb\u{1b}[31m"), "a\\nb\\u{1b}[31m");
        assert_eq!(one_line("x\u{202e}y"), "x\\u{202e}y");
        assert_eq!(one_line("x\u{61c}y"), "x\\u{61c}y");
        for text in ["x".repeat(10_000), "\u{7}".repeat(10_000), "한".repeat(10_000)] {
            let cut = one_line(&text);
            assert!(cut.chars().count() <= DETAIL_CHARS_MAX, "{cut}");
            assert!(cut.ends_with('…'));
            assert!(!cut.chars().any(char::is_control));
        }
    }

    #[test]
    fn the_detail_and_the_retry_time_are_limited() {
        let day = Some(Duration::from_secs(86_400));
        let error = Failure::paced("http_503", day).explain(&"\0".repeat(5_000));
        assert_eq!(error.retry_after, Some(PACE_MAX));
        assert!(error.detail.chars().count() <= DETAIL_CHARS_MAX);
        assert!(error.to_string().starts_with("http_503: \\u{0}"));
    }

    #[test]
    fn each_failure_has_its_load() {
        for (failure, class, load) in [
            (Failure::new(Class::Permanent, ""), Class::Permanent, Load::Answered),
            (Failure::new(Class::Forbidden, ""), Class::Forbidden, Load::Answered),
            (Failure::new(Class::Conflict, ""), Class::Conflict, Load::Answered),
            (Failure::new(Class::MoneyWithoutSeat, ""), Class::MoneyWithoutSeat, Load::Answered),
            (Failure::new(Class::Outage, ""), Class::Outage, Load::Unknown),
            (Failure::new(Class::Transient, ""), Class::Transient, Load::Unknown),
            (Failure::timed_out(""), Class::Outage, Load::TimedOut),
            (Failure::paced("", None), Class::Paced, Load::Refused),
            (Failure::paced("", Some(Duration::ZERO)), Class::Paced, Load::Refused),
        ] {
            let error = failure.explain("");
            assert_eq!((error.class, error.load), (class, load));
        }
    }

    #[test]
    fn an_error_chain_names_each_cause_once() {
        let error = std::io::Error::other(ClientError::Http("no roots".into()));
        assert_eq!(chain(&error), "the HTTP client could not be built: no roots");
    }
}
