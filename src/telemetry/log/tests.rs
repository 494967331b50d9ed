//! Tests of the log lines, parsed with a JSON parser.
#![allow(clippy::unwrap_used)]

use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

use super::fields::{LINE_BYTES_MAX, LogFields};
use super::*;

/// The captured output, one entry per line.
#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<String>>>);

impl Sink {
    fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    fn only(&self) -> String {
        let lines = self.lines();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].ends_with('\n') && lines[0].len() <= LINE_BYTES_MAX);
        assert_eq!(lines[0].matches('\n').count(), 1, "{}", lines[0]);
        lines[0].trim_end().to_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.only()).unwrap()
    }
}

fn logged(level: LogLevel, format: LogFormat, log: impl FnOnce()) -> Sink {
    let sink = Sink::default();
    let lines = sink.clone();
    let settings = LogSettings { level, format, color: false };
    let (subscriber, _) = subscriber(settings, move |line| {
        lines.0.lock().unwrap().push(line.to_owned());
    });
    tracing::subscriber::with_default(subscriber, log);
    sink
}

fn json(log: impl FnOnce()) -> Sink {
    logged(LogLevel::Info, LogFormat::Json, log)
}

#[test]
fn what_operators_change_is_logged_at_every_level() {
    let line = logged(LogLevel::Error, LogFormat::Json, || {
        tracing::warn!("another warning");
        tracing::warn!(target: CHANGES_TARGET, "a change");
        tracing::info!(target: CHANGES_TARGET, "no change");
    });
    assert_eq!(line.json()["msg"], "a change");
}

#[test]
fn a_line_has_its_keys_in_a_fixed_order() {
    let line = json(|| {
        tracing::info!(
            trace_id = "4bf92f3577b34da6a3ce929d0e0e4736",
            latency_ms = 150_u64,
            queue = "q",
            attempt = 1,
            reservation_id = %"rsv_abc123",
            event_type = "reservation.expired",
            "Event processed successfully"
        );
    })
    .only();
    let (ts, rest) = line.split_once(",\"level\"").unwrap();
    assert_eq!(
        rest,
        ":\"info\",\"event_type\":\"reservation.expired\",\"reservation_id\":\"rsv_abc123\",\"attempt\":1,\
         \"latency_ms\":150,\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"queue\":\"q\",\
         \"msg\":\"Event processed successfully\"}"
    );
    assert_eq!(ts.len(), "{\"ts\":\"2024-01-01T12:00:00.000Z\"".len());
}

#[test]
fn times_are_rfc_3339_in_utc_with_milliseconds() {
    for (ms, expected) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (1_704_110_400_000, "2024-01-01T12:00:00.000Z"),
        (1_709_164_799_999, "2024-02-28T23:59:59.999Z"),
        (1_709_251_199_007, "2024-02-29T23:59:59.007Z"),
    ] {
        let mut buffers = Buffers::default();
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(ms);
        let line: Value = serde_json::from_str(buffers.json(Level::WARN, at)).unwrap();
        assert_eq!(line["ts"], expected);
        assert_eq!(line["level"], "warn");
        assert!(buffers.pretty(Level::WARN, at, false).starts_with(&expected[11..23]));
    }
}

#[test]
fn hostile_texts_survive_a_round_trip() {
    let every_control: String = (0..0x100).filter_map(char::from_u32).collect();
    for text in [
        "quote \" backslash \\ slash / end\\",
        "\",\"level\":\"fake",
        "line\nbreak\r\nand\ttab\u{0}nul\u{1b}[31mred",
        "\u{61c}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202e}\u{2066}\u{2069}\u{7f}\u{85}",
        "한국어 😀 \u{10ffff} \u{feff}",
        "{}{0}%s",
        &every_control,
    ] {
        let sink = json(|| tracing::info!(error = text, shown = %text, "{text}"));
        let line = sink.json();
        assert_eq!(line["error"], text);
        assert_eq!(line["shown"], text);
        assert_eq!(line["msg"], text);
        assert_eq!(line["level"], "info");
        // Unicode's Bidi_Control characters, and the line and paragraph separators.
        const REORDER: [RangeInclusive<char>; 4] = [
            '\u{61c}'..='\u{61c}',
            '\u{200e}'..='\u{200f}',
            '\u{2028}'..='\u{202e}',
            '\u{2066}'..='\u{2069}',
        ];
        let bare = |c: char| c.is_control() || REORDER.iter().any(|range| range.contains(&c));
        assert!(!sink.only().contains(bare), "{}", sink.only());
    }
}

#[test]
fn numbers_stay_numbers() {
    let line = json(|| {
        tracing::info!(
            max = u64::MAX,
            min = i64::MIN,
            huge = u128::MAX,
            yes = true,
            half = 0.5,
            nan = f64::NAN,
            infinite = f64::INFINITY,
            tiny = f64::MIN_POSITIVE,
            "numbers"
        );
    })
    .json();
    assert_eq!(line["max"], u64::MAX);
    assert_eq!(line["min"], i64::MIN);
    assert!(line["huge"].is_number());
    assert_eq!(line["yes"], true);
    assert_eq!(line["half"], 0.5);
    assert_eq!(line["tiny"], f64::MIN_POSITIVE);
    assert!(line["nan"].is_null() && line["infinite"].is_null());
}

#[test]
fn a_long_line_is_shortened_and_stays_valid_json() {
    for unit in ["x", "\u{0}", "\"", "한", "😀", "\u{2028}x"] {
        let text = unit.repeat(20_000);
        let sink = json(|| {
            tracing::error!(
                event_type = text,
                reservation_id = text,
                attempt = u64::MAX,
                trace_id = text,
                outcome = text,
                error = text,
                a = text,
                b = text,
                c = text,
                d = text,
                e = text,
                f = text,
                g = u128::MAX,
                h = 1,
                "{text}"
            );
        });
        let line = sink.json();
        assert!(line["msg"].as_str().unwrap().ends_with('…'), "{unit:?}");
        assert!(line["event_type"].as_str().unwrap().len() > 150, "{unit:?}");
        let pretty = logged(LogLevel::Info, LogFormat::Pretty, || {
            tracing::info!(error = text, a = text, "{text}")
        });
        pretty.only();
    }
}

#[test]
fn long_keys_count_towards_the_line_length() {
    let mut fields = LogFields::default();
    fields.clear();
    for n in 0..32 {
        let key = "\u{1}".repeat(100) + &n.to_string();
        fields.put_text(key.leak(), format_args!("x"));
    }
    let escaped: usize = fields.entries.iter().map(|entry| 6 * entry.key.len()).sum();
    assert!(!fields.entries.is_empty());
    assert!(escaped + fields.text.len() < LINE_BYTES_MAX, "{escaped}");
}

#[test]
fn fields_cannot_replace_or_repeat_the_keys_of_a_line() {
    let line = json(|| {
        tracing::warn!(level = "fake", ts = 1, msg = "fake", attempt = 1, attempt = 2, "true")
    });
    let text = line.only();
    let line = line.json();
    assert_eq!(line["level"], "warn");
    assert_eq!(line["msg"], "true");
    assert_eq!(line["_level"], "fake");
    assert_eq!(text.matches("\"attempt\"").count(), 1);
}

#[test]
fn a_line_without_a_text_has_an_empty_msg() {
    assert_eq!(json(|| tracing::info!(attempt = 3)).json()["msg"], "");
}

#[test]
fn other_crates_log_from_warn_and_never_below_the_own_level() {
    let log = || {
        tracing::info!(target: "h2::client", "noise");
        tracing::warn!(target: "h2::client", "trouble");
        tracing::debug!("ours");
    };
    let texts = |level| {
        let lines = logged(level, LogFormat::Json, log).lines();
        let text = |line: &String| serde_json::from_str::<Value>(line).unwrap()["msg"].clone();
        lines.iter().map(text).collect::<Vec<_>>()
    };
    assert_eq!(texts(LogLevel::Debug), ["trouble", "ours"]);
    assert_eq!(texts(LogLevel::Info), ["trouble"]);
    assert_eq!(texts(LogLevel::Warn), ["trouble"]);
    assert!(texts(LogLevel::Error).is_empty());
}

#[test]
fn the_target_is_shown_only_at_debug() {
    let debug = logged(LogLevel::Debug, LogFormat::Json, || tracing::debug!("x")).json();
    assert_eq!(debug["target"], "reservation_worker::telemetry::log::tests");
    assert!(json(|| tracing::info!("x")).json().get("target").is_none());
}

#[test]
fn span_fields_are_not_logged() {
    let line = json(|| tracing::info_span!("s", body = "secret").in_scope(|| tracing::info!("x")));
    assert!(!line.only().contains("secret"));
}

#[test]
fn a_line_logged_during_another_is_not_lost() {
    let sink = json(|| {
        BUFFERS.with(|shared| {
            let _in_use = shared.borrow_mut();
            tracing::info!("inner");
        });
    });
    assert_eq!(sink.json()["msg"], "inner");
}

#[test]
fn a_pretty_event_is_one_readable_line() {
    let log = || {
        tracing::error!(
            reservation_id = "rsv 1",
            attempt = 2,
            error = "a\nb",
            empty = "",
            "it \"failed\"\u{1b}[2J"
        )
    };
    let line = logged(LogLevel::Info, LogFormat::Pretty, log).only();
    assert_eq!(
        &line[12..],
        r#" ERROR it "failed"\u001b[2J reservation_id="rsv 1" attempt=2 error=a\nb empty="""#
    );
}

#[test]
fn a_panic_is_one_line_with_its_location() {
    let sink = Sink::default();
    let lines = sink.clone();
    let settings = LogSettings { level: LogLevel::Info, format: LogFormat::Json, color: false };
    let (subscriber, _) =
        subscriber(settings, move |line| lines.0.lock().unwrap().push(line.to_owned()));
    let _default = tracing::subscriber::set_default(subscriber);
    let previous = panic::take_hook();
    install_panic_hook();
    let caught = panic::catch_unwind(|| panic!("{}", "seat\n".repeat(1000)));
    panic::set_hook(previous);
    assert!(caught.is_err());
    let line = sink.json();
    assert_eq!(line["level"], "error");
    assert_eq!(line["msg"], "Panic");
    assert_eq!(line["error"].as_str().unwrap().chars().count(), PANIC_CHARS_MAX);
    assert!(line["location"].as_str().unwrap().contains("tests.rs:"));
}
