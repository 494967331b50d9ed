//! What a failed call says about itself: its class, a machine word, a short text for the log.
//!
//! [`classify`](super::classify) decides the class; what follows from it (retry, park, dead-letter) is decided by the callers.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

/// How long a service may keep an event away: a longer time is cut to this one.
pub const PACE_MAX: Duration = Duration::from_secs(5 * 60);

/// Characters of [`CallError::detail`] at most: a log line stays a line.
pub const DETAIL_CHARS_MAX: usize = 200;

/// What a failed call means for the event, and for the service that was called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// The service, or the way to it, is at fault: worth a retry when it is well again.
    Outage,
    /// The service failed at this call: worth a retry.
    Transient,
    /// The service wants this event to be sent later: at the time that it named ([`CallError::retry_after`]), or after a backoff
    /// where it named none.
    Paced,
    /// The reservation is in another state (409 or 412 from `PATCH`): ask for it, then decide.
    Conflict,
    /// This client may not do that. Final for an event that fares so alone.
    Forbidden,
    /// This call can never succeed.
    Permanent,
    /// The payment was confirmed, and the seats cannot be had.
    MoneyWithoutSeat,
}

/// What a failed call says about how busy the service is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Load {
    /// It had the time to decide: how long that took counts.
    Answered,
    /// It did not answer in time, by our clock or by its own.
    TimedOut,
    /// It asks for fewer calls.
    Refused,
    /// Nothing. A call that fails fast is not one that is served fast.
    Unknown,
}

/// What an answer of this class says by itself.
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

/// What one answer means when it is not success. The pure part of a [`CallError`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What follows from it.
    pub class: Class,
    /// A machine word from a fixed set, such as `http_503`, `grpc_unavailable`, `timeout`: a label, or a span's `error.type`.
    pub code: Cow<'static, str>,
    /// When the service wants to be called again, counted from now; at most [`PACE_MAX`]. Set only for [`Class::Paced`], where
    /// the answer named a time.
    pub retry_after: Option<Duration>,
    /// What it says about how busy the service is.
    pub load: Load,
}

impl Failure {
    /// A failure that names no time.
    pub(crate) fn new(class: Class, code: impl Into<Cow<'static, str>>) -> Self {
        Self { class, code: code.into(), retry_after: None, load: class.into() }
    }

    /// The time for the call ran out.
    pub(crate) fn timed_out(code: impl Into<Cow<'static, str>>) -> Self {
        Self { load: Load::TimedOut, ..Self::new(Class::Outage, code) }
    }

    /// The service asks for a pause; it need not say of what length.
    pub(crate) fn paced(code: impl Into<Cow<'static, str>>, retry_after: Option<Duration>) -> Self {
        let retry_after = retry_after.map(|time| time.min(PACE_MAX));
        Self { retry_after, ..Self::new(Class::Paced, code) }
    }

    /// Adds what a person wants to read. `detail` is escaped and cut; give no bodies to it.
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

/// A call that did not do its step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {detail}")]
pub struct CallError {
    /// What follows from it.
    pub class: Class,
    /// A machine word from a fixed set, see [`Failure::code`].
    pub code: Cow<'static, str>,
    /// One short line for the log: no body, no control characters, at most [`DETAIL_CHARS_MAX`] characters.
    pub detail: String,
    /// See [`Failure::retry_after`].
    pub retry_after: Option<Duration>,
    /// See [`Failure::load`].
    pub load: Load,
}

/// A client that could not be built. Final: the configuration, or the machine, is at fault.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The HTTP client refused to be built, as a rule for want of root certificates.
    #[error("the HTTP client could not be built: {0}")]
    Http(String),
    /// The address is not one that gRPC can use, or its TLS could not be set up.
    #[error("the gRPC client could not be built for {address}: {reason}")]
    Grpc {
        /// What was configured, escaped and cut.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// `rustls` has no process-wide default provider; `main` installs one first.
    #[error("no default TLS crypto provider is installed")]
    NoCryptoProvider,
}

/// At most [`DETAIL_CHARS_MAX`] characters of `text`, none of which can break a line or steer a terminal.
fn one_line(text: &str) -> String {
    let mut out = String::new();
    let mut chars = 0;
    for c in text.chars() {
        let width = if is_plain(c) { 1 } else { c.escape_default().count() };
        // One place is kept for the mark of the cut.
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

/// An error and its causes as one line: `reqwest` and `tonic` say what happened only in their sources.
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

/// Neither a control character, nor one that reorders or hides the text around it (Unicode bidi and zero-width marks).
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
    fn a_detail_is_cut_and_a_pace_is_capped() {
        let day = Some(Duration::from_secs(86_400));
        let error = Failure::paced("http_503", day).explain(&"\0".repeat(5_000));
        assert_eq!(error.retry_after, Some(PACE_MAX));
        assert!(error.detail.chars().count() <= DETAIL_CHARS_MAX);
        assert!(error.to_string().starts_with("http_503: \\u{0}"));
    }

    #[test]
    fn only_an_answer_shows_how_busy_a_service_is() {
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
    fn a_chain_names_each_cause_once() {
        let error = std::io::Error::other(ClientError::Http("no roots".into()));
        assert_eq!(chain(&error), "the HTTP client could not be built: no roots");
    }
}
