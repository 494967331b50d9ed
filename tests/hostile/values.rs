//! Events with one unusual value, position or size, each compared with the reference decoder.

use reservation_worker::event::{NoEvent, SEATS_MAX};

use super::judge::judge;

/// Values that two decoders may read differently.
const VALUES: [&str; 54] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "0.0",
    "-0.0",
    "0e0",
    "-0e5",
    "1e-400",
    "-1e-400",
    "1e400",
    "-1e400",
    "5e-324",
    "1.0",
    "1e2",
    "1E+2",
    "01",
    "+1",
    "1.",
    ".5",
    "-",
    "1e",
    "NaN",
    "2147483648",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "-18446744073709551616",
    "100000000000000000000000000000000000000000",
    r#""""#,
    r#""é""#,
    r#""\u00e9\n\/\\""#,
    r#""\ud83d""#,
    r#""\ude31\ud83d""#,
    r#""\ud83d\ude31""#,
    r#""\u0000""#,
    r#""\x""#,
    r#""\u12""#,
    "\"\t\"",
    "\"\u{7f}\u{80}\"",
    "[]",
    "[null]",
    r#"["A","\u0042"]"#,
    r#"["A",1]"#,
    r#"["A","\ud83d",1e400]"#,
    r#"["A",]"#,
    "{}",
    r#"{"a":1e400,"\ud83d":"\ud83d"}"#,
    r#"{"id":"x","id":"y"}"#,
    r#"{"payload":{"detail":{"payload":{"detail":{}}}}}"#,
];

/// The fields of a valid event, as JSON; those of the payload with a dot.
const FIELDS: [(&str, &str); 12] = [
    ("id", r#""evt""#),
    ("type", r#""payment.approved""#),
    ("reservation_id", r#""rsv""#),
    ("event_id", r#""show""#),
    ("ts", r#""2024-01-01T12:00:00Z""#),
    ("traceparent", "null"),
    ("payload", ""),
    (".qty", "2"),
    (".seat_ids", r#"["A","B"]"#),
    (".amount", "12.5"),
    (".payment_intent_id", r#""pay""#),
    (".error_code", r#""code""#),
];

/// Field names with escapes, and names of no field.
const NAMES: [(&str, &str); 4] =
    [("a", "a"), ("\\u0069d", "id"), ("\\u0069d\\ud83d", "none"), ("pay\\u006coad", "payload")];

/// Returns the valid event with the member `name` and this value in place of the field `replaced`.
fn event(name: &str, replaced: &str, value: &str) -> String {
    let members = |fields: &[(&str, String)]| {
        let members = fields.iter().map(|(name, value)| format!(r#""{name}":{value}"#));
        format!("{{{}}}", members.collect::<Vec<_>>().join(","))
    };
    let (mut inside, mut fields) = (Vec::new(), Vec::new());
    for (field, json) in FIELDS {
        let is_replaced = field.trim_start_matches('.') == replaced;
        let (name, json) = if is_replaced { (name, value) } else { (field, json) };
        let side = if field.starts_with('.') { &mut inside } else { &mut fields };
        side.push((name.trim_start_matches('.'), json.to_owned()));
    }
    if !FIELDS.iter().any(|(field, _)| field.trim_start_matches('.') == replaced) {
        fields.push((name, value.to_owned()));
    }
    for (_, json) in fields.iter_mut().filter(|(_, json)| json.is_empty()) {
        *json = members(&inside);
    }
    members(&fields)
}

#[test]
fn both_decoders_agree_on_every_value_in_every_field() {
    let named = FIELDS.map(|(field, _)| field.trim_start_matches('.')).map(|name| (name, name));
    let (mut events, mut poison) = (0, 0);
    for value in VALUES {
        for (name, replaced) in named.into_iter().chain(NAMES) {
            let flat = event(name, replaced, value);
            let text = serde_json::Value::from(flat.as_str());
            for body in [
                format!(r#"{{"detail-type":"payment.failed","detail":{flat}}}"#),
                format!(r#"{{"Type":"Notification","Message":{text}}}"#),
                // A field of the outer object twice, first with null.
                flat.replacen('{', &format!(r#"{{"{name}":null,"#), 1),
                flat,
            ] {
                match judge(&body) {
                    Ok(_) => events += 1,
                    Err(NoEvent::Poison(_)) => poison += 1,
                    Err(NoEvent::NoChange(no_change)) => panic!("{body}: {no_change:?}"),
                }
            }
        }
    }
    assert!(events > 500 && poison > 500, "{events} events, {poison} poison");
}

#[test]
fn both_decoders_agree_on_every_value_among_the_seats() {
    for value in VALUES {
        for seats in [format!("[{value}]"), format!(r#"["A",{value}]"#), format!(r#"[{value},1]"#)]
        {
            let _ = judge(&event("seat_ids", "seat_ids", &seats));
        }
    }
}

#[test]
fn both_decoders_agree_on_text_around_an_object() {
    let good = event("a", "a", "1");
    let inside = good.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')).unwrap();
    let around =
        ["", " ", "\t\r\n ", "\u{feff}", "\u{a0}", "\u{b}", "\u{0}", ",", "}", "x", "{}", "null"];
    let mut events = 0;
    for before in around {
        for after in around {
            for (first, last) in [("", ""), ("\n", " \r\t"), ("", ","), ("\u{a0}", ""), (",", "")] {
                let body = format!("{before}{{{first}{inside}{last}}}{after}");
                events += usize::from(judge(&body).is_ok());
            }
        }
    }
    assert!(events >= 9, "{events}");
}

#[test]
fn both_decoders_agree_on_deep_and_large_bodies() {
    let deep = |open: &str, close: &str| open.repeat(10_000) + "1" + &close.repeat(10_000);
    for value in [deep("[", "]"), deep("{\"a\":", "}"), deep("{\"payload\":", "}")] {
        for name in FIELDS.map(|(field, _)| field.trim_start_matches('.')).into_iter().chain(["a"])
        {
            let is_event = judge(&event(name, name, &value)).is_ok();
            let only_describes = ["a", "amount", "error_code", "ts", "traceparent"].contains(&name);
            // An object as payload may hold any values in fields that are not read.
            assert!(is_event == only_describes || name == "payload", "{name}: {value:.20}");
        }
    }
    for (seats, is_event) in [(SEATS_MAX, true), (SEATS_MAX + 1, false)] {
        let seats = vec![r#""A""#; seats].join(",");
        let body = event("seat_ids", "seat_ids", &format!("[{seats}]")).replace(r#""qty":2,"#, "");
        assert_eq!(judge(&body).is_ok(), is_event);
    }
}
