//! Trace context of messages: W3C `traceparent` and `tracestate`
//! (<https://www.w3.org/TR/trace-context-2/>), SQS's `AWSTraceHeader`
//! (<https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>),
//! and W3C `baggage` (<https://www.w3.org/TR/baggage/>). [`crate::event`] parses `traceparent`,
//! because event bodies contain it too. [`crate::intake`] chooses between them.
//!
//! All of it is untrusted text: a value that does not match its grammar is treated as absent.

use std::fmt;
use std::str::FromStr;

use opentelemetry::trace::{SpanId, TraceId, TraceState};

use crate::event::W3cParent;

/// Maximum `traceparent` length. Version 00 has 55 characters; later versions may add fields.
const TRACEPARENT_LEN_MAX: usize = 256;
/// Maximum `tracestate` length that is propagated (W3C: at least 512 characters should be).
const TRACESTATE_LEN_MAX: usize = 512;
/// Maximum `baggage` length that is propagated (W3C: up to this length it must be).
const BAGGAGE_LEN_MAX: usize = 8192;
/// Maximum `AWSTraceHeader` length. The headers that X-Ray writes are under 128 characters.
const XRAY_LEN_MAX: usize = 512;

/// Remote parent of an event's span.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent {
    pub(super) trace_id: TraceId,
    /// `None`: only the trace id is known (X-Ray's `Root` without `Parent`).
    pub(super) span_id: Option<SpanId>,
    /// From an X-Ray header. Its `Sampled=0` often comes from a load balancer that does not trace.
    pub(super) is_xray: bool,
    /// `None`: the sampling decision is left to this worker (X-Ray's `Sampled=?`).
    pub(super) sampled: Option<bool>,
    pub(super) state: TraceState,
}

impl TraceParent {
    /// Parses a W3C `traceparent` with [`W3cParent::parse`]. `None` if it is malformed or too long.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_read = text.len() <= TRACEPARENT_LEN_MAX && text.is_ascii();
        is_read.then(|| W3cParent::parse(text))?.map(Self::from)
    }

    /// Adds the message's `tracestate`. A value that is malformed or longer than 512 characters is
    /// discarded; the `traceparent` stays valid, as the W3C recommendation requires.
    #[must_use]
    pub fn with_tracestate(mut self, text: &str) -> Self {
        let printable = text.bytes().all(|b| (0x20..=0x7e).contains(&b) || b == b'\t');
        if printable && text.len() <= TRACESTATE_LEN_MAX {
            self.state = TraceState::from_str(text).unwrap_or_default();
        }
        self
    }

    /// Parses an `AWSTraceHeader`. Its form is
    /// `Root=1-xxxxxxxx-yyyyyyyyyyyyyyyyyyyyyyyy;Parent=zzzzzzzzzzzzzzzz;Sampled=1`. Fields may be
    /// in any order; unknown fields are ignored. `None` if `Root` is missing, or `Root` or `Parent`
    /// is malformed. Without `Parent` only the trace id is known. Without `Sampled`, or with
    /// `Sampled=?`, this worker decides.
    #[must_use]
    pub fn from_xray(text: &str) -> Option<Self> {
        if text.len() > XRAY_LEN_MAX || !text.is_ascii() {
            return None;
        }
        let (mut root, mut parent, mut sampled) = (None, None, None);
        for field in text.split(';') {
            match field.trim().split_once('=') {
                Some(("Root", value)) => root = Some(xray_root(value)?),
                Some(("Parent", value)) => parent = Some(fixed_hex(value, 16)?),
                Some(("Sampled", "1")) => sampled = Some(true),
                Some(("Sampled", "0")) => sampled = Some(false),
                Some(_) | None => {}
            }
        }
        let (root, parent) = (root.filter(|id| *id != 0)?, parent.map(u64::try_from));
        let span_id = match parent.transpose().ok()? {
            Some(0) => return None,
            parent => parent.map(SpanId::from),
        };
        let (trace_id, state) = (TraceId::from(root), TraceState::NONE);
        Some(Self { trace_id, span_id, is_xray: true, sampled, state })
    }

    /// Returns the `tracestate` to propagate; for the targets in `fuzz/`.
    #[cfg(feature = "fuzzing")]
    #[doc(hidden)]
    #[must_use]
    pub fn tracestate_header(&self) -> String {
        self.state.header()
    }
}

impl From<W3cParent> for TraceParent {
    fn from(parent: W3cParent) -> Self {
        Self {
            trace_id: TraceId::from(parent.trace_id),
            span_id: Some(SpanId::from(parent.span_id)),
            is_xray: false,
            sampled: Some(parent.is_sampled()),
            state: TraceState::NONE,
        }
    }
}

/// Validates W3C `baggage`: comma-separated `key=value` members with properties. `None` if it is
/// malformed or longer than 8192 characters: a truncated list would have another meaning.
pub(super) fn baggage(text: &str) -> Option<&str> {
    let text = text.trim();
    let is_key = |key: &str| {
        let key = key.trim();
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        !key.is_empty() && key.bytes().all(token)
    };
    let printable = text.bytes().all(|b| (0x20..=0x7e).contains(&b) || b == b'\t');
    let members =
        || text.split(',').all(|one| one.split_once('=').is_some_and(|(key, _)| is_key(key)));
    (printable && text.len() <= BAGGAGE_LEN_MAX && members()).then_some(text)
}

/// Parses `1-<8 hex digits>-<24 hex digits>`: epoch seconds, then the rest of the trace id.
fn xray_root(value: &str) -> Option<u128> {
    let (epoch, rest) = value.strip_prefix("1-")?.split_once('-')?;
    Some(fixed_hex(epoch, 8)? << 96 | fixed_hex(rest, 24)?)
}

/// Parses exactly `digits` hexadecimal digits, in upper or lower case.
fn fixed_hex(text: &str, digits: usize) -> Option<u128> {
    let well_formed = text.len() == digits && text.bytes().all(|b| b.is_ascii_hexdigit());
    well_formed.then(|| u128::from_str_radix(text, 16).ok())?
}

/// ASCII text of length `N` without an allocation: a trace id or a `traceparent`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Ascii<const N: usize>([u8; N]);

impl<const N: usize> Ascii<N> {
    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only hexadecimal digits and dashes are put in")
    }
}

impl<const N: usize> fmt::Debug for Ascii<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Formats a trace id as 32 lower-case hexadecimal digits.
pub(super) fn trace_id_text(trace_id: TraceId) -> Ascii<32> {
    let mut text = Ascii([b'0'; 32]);
    put_hex(&mut text.0, &trace_id.to_bytes());
    text
}

/// Formats a `traceparent` of version 00.
pub(super) fn traceparent_text(trace_id: TraceId, span_id: SpanId, sampled: bool) -> Ascii<55> {
    let mut text = Ascii([b'-'; 55]);
    put_hex(&mut text.0[..2], &[0]);
    put_hex(&mut text.0[3..35], &trace_id.to_bytes());
    put_hex(&mut text.0[36..52], &span_id.to_bytes());
    put_hex(&mut text.0[53..], &[u8::from(sampled)]);
    text
}

/// Formats an X-Ray header from a `traceparent`.
pub(super) fn xray_text(traceparent: &Ascii<55>) -> String {
    let text = traceparent.as_str();
    let (epoch, rest, span, flags) = (&text[3..11], &text[11..35], &text[36..52], &text[53..]);
    let sampled = u8::from(flags == "01");
    format!("Root=1-{epoch}-{rest};Parent={span};Sampled={sampled}")
}

fn put_hex(text: &mut [u8], bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_survives_a_round_trip() {
        let parent = TraceParent::parse(GOOD).unwrap();
        assert_eq!(parent.sampled, Some(true));
        let text = traceparent_text(parent.trace_id, parent.span_id.unwrap(), true);
        assert_eq!(text.as_str(), GOOD);
        let xray = "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7;Sampled=1";
        assert_eq!(xray_text(&text), xray);
        assert_eq!(
            TraceParent::from_xray(xray),
            Some(TraceParent { is_xray: true, ..parent.clone() })
        );
        assert_eq!(trace_id_text(parent.trace_id).as_str(), "4bf92f3577b34da6a3ce929d0e0e4736");
    }

    #[test]
    fn only_the_lowest_flag_means_sampled() {
        for (flags, sampled) in [("00", false), ("01", true), ("02", false), ("ff", true)] {
            let text = format!("{}{flags}", &GOOD[..53]);
            let parent = TraceParent::parse(&text).unwrap();
            assert_eq!(parent.sampled, Some(sampled), "{flags}");
        }
    }

    #[test]
    fn a_later_version_may_have_more_fields() {
        for text in [format!("cc{}", &GOOD[2..]), format!("cc{}-what-comes-later", &GOOD[2..])] {
            assert!(TraceParent::parse(&text).is_some(), "{text}");
        }
    }

    #[test]
    fn an_invalid_traceparent_is_rejected() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let bad = [
            String::new(),
            "00".into(),
            GOOD.to_uppercase(),
            format!("ff{}", &GOOD[2..]),
            format!("{GOOD}-extra"),
            format!("{GOOD} "),
            format!(" {GOOD}"),
            format!("cc{}.extra", &GOOD[2..]),
            format!("+0{}", &GOOD[2..]),
            GOOD.replace('-', "_"),
            GOOD.replace("4bf9", "4bg9"),
            GOOD.replace("00f0", "+0f0"),
            GOOD.replace("4b", "é"),
            zero_trace.into(),
            zero_span.into(),
            format!("cc{}-{}", &GOOD[2..], "x".repeat(1 << 20)),
            "\u{0}".repeat(55),
        ];
        for text in bad {
            assert_eq!(TraceParent::parse(&text), None, "{text:.80}");
        }
    }

    #[test]
    fn a_tracestate_is_passed_on_completely_or_not_at_all() {
        let carried =
            |text: &str| TraceParent::parse(GOOD).unwrap().with_tracestate(text).state.header();
        assert_eq!(
            carried("rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"
        );
        for bad in
            ["", "no-separator", "Upper=1", "a=1\r\nX-Evil: 1", "a=\u{e9}", &"a=1,".repeat(200)]
        {
            assert_eq!(carried(bad), "", "{bad:?}");
        }
    }

    #[test]
    fn an_xray_header_is_converted() {
        let root = "Root=1-5759e988-bd862e3fe1be46a994272793";
        let parent = "Parent=53995c3f42cd8ad8";
        for (text, sampled) in [
            (format!("{root};{parent};Sampled=1"), Some(true)),
            (format!("Sampled=0;{parent};{root}"), Some(false)),
            (format!("Self=1-2-3; {root} ;{parent};Lineage=a:0"), None),
            (format!("{root};{parent};Sampled=?"), None),
        ] {
            let found = TraceParent::from_xray(&text).unwrap();
            assert_eq!(found.sampled, sampled, "{text}");
            assert_eq!(
                traceparent_text(found.trace_id, found.span_id.unwrap(), false).as_str(),
                "00-5759e988bd862e3fe1be46a994272793-53995c3f42cd8ad8-00"
            );
        }
    }

    #[test]
    fn an_xray_header_without_a_parent_sets_the_trace_id() {
        for (text, sampled) in [
            ("Root=1-5759e988-bd862e3fe1be46a994272793", None),
            ("Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0", Some(false)),
            (
                "Self=1-67891234-12456789abcdef012345678;Root=1-5759e988-bd862e3fe1be46a994272793",
                None,
            ),
        ] {
            let found = TraceParent::from_xray(text).unwrap();
            assert_eq!(trace_id_text(found.trace_id).as_str(), "5759e988bd862e3fe1be46a994272793");
            assert_eq!((found.span_id, found.sampled), (None, sampled), "{text}");
        }
    }

    #[test]
    fn baggage_is_passed_on_completely_or_not_at_all() {
        for good in [
            "a=1",
            "userId=alice, tenant = t%20x ;p;q=1,empty=",
            " a=b ",
            &"k=v,".repeat(2047)[..8187],
        ] {
            assert_eq!(baggage(good), Some(good.trim()), "{good:.40}");
        }
        for bad in [
            "",
            " ",
            "a",
            "a=1,",
            "=1",
            "a b=1",
            "a=1,b",
            "a=\r\nX: 1",
            "a=\u{e9}",
            "(=1",
            &format!("k={}", "v".repeat(8191)),
        ] {
            assert_eq!(baggage(bad), None, "{bad:.40}");
        }
    }

    #[test]
    fn an_invalid_xray_header_is_rejected() {
        for text in [
            "",
            ";;;===",
            "Parent=53995c3f42cd8ad8;Sampled=1",
            "Root=1-00000000-000000000000000000000000",
            "Root=2-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8",
            "Root=1-5759e988-bd862e3fe1be46a99427279;Parent=53995c3f42cd8ad8",
            "Root=1-5759e98-8bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8",
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8adg",
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=0000000000000000",
            "Root=1-00000000-000000000000000000000000;Parent=53995c3f42cd8ad8",
            "Root=1-+759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8",
            "root=1-5759e988-bd862e3fe1be46a994272793;parent=53995c3f42cd8ad8",
        ] {
            assert_eq!(TraceParent::from_xray(text), None, "{text}");
        }
        let long = format!(
            "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;{}",
            "a=b;".repeat(1000)
        );
        assert_eq!(TraceParent::from_xray(&long), None);
    }
}
