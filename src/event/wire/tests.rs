//! The two ways to read an object, held against each other: where the fast one does not give up, both read the same.
#![allow(clippy::unwrap_used)]

#[path = "../../../tests/hostile/corpus.rs"]
#[allow(dead_code, reason = "of a case, only its body is read here")]
mod corpus;
#[path = "../../../tests/hostile/mutate.rs"]
mod mutate;

use std::path::Path;

use super::*;

const DEPTHS: std::ops::RangeInclusive<u8> = 1..=5;

/// Compares both ways, at every depth and for a message inside too; whether the fast one read it, at the greatest depth.
fn agree(text: &str) -> bool {
    let mut is_read = false;
    for objects in DEPTHS {
        let fast = fast::object(text, objects);
        is_read = fast.is_some();
        let Some(fast) = fast else { continue };
        let slow = object(text, objects).unwrap_or_else(|error| panic!("{text}: {error}"));
        if let Value::Text(message) = fast.get(Key::SnsMessage)
            && objects == *DEPTHS.end()
        {
            agree(message);
        }
        assert_eq!(Node::Object(fast), slow, "{text}");
    }
    is_read
}

fn corpus() -> impl Iterator<Item = String> {
    let cases = corpus::read(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus")));
    cases.into_iter().map(|case| case.body)
}

#[test]
fn both_read_the_corpus_alike() {
    let (read, left): (Vec<_>, Vec<_>) = corpus().partition(|body| agree(body));
    assert!(read.len() > 200 && left.len() > 50, "{} {}", read.len(), left.len());
}

#[test]
fn both_read_bodies_made_of_the_corpus_alike() {
    const ROUNDS: usize = 20_000;
    let mut breeder = mutate::Breeder::new(corpus(), 2026);
    let read = (0..ROUNDS).filter(|_| agree(&breeder.next_body())).count();
    assert!((ROUNDS / 5..ROUNDS * 4 / 5).contains(&read), "{read} of {ROUNDS}");
}

/// Values that are easily read in two ways.
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

/// Keys that are, and are not, names of fields.
const KEYS: [&str; 9] = [
    "id",
    "qty",
    "seat_ids",
    "payload",
    "detail",
    "a",
    r"\u0069d",
    r"\u0069d\ud83d",
    r"pay\u006coad",
];

#[test]
fn both_read_every_value_in_every_place_alike() {
    let mut read = 0;
    for value in VALUES {
        for key in KEYS {
            for text in [
                format!(r#"{{"{key}":{value}}}"#),
                format!(r#"{{"type":"x","{key}":{value},"ts":"y"}}"#),
                format!(r#"{{"detail":{{"payload":{{"{key}":{value}}}}}}}"#),
                format!(r#"{{"{key}":null,"{key}":{value}}}"#),
                format!(r#"{{"\u0069d":"x","{key}":{value}}}"#),
                format!(r#"{{"seat_ids":["A",{value}],"{key}":["B"]}}"#),
            ] {
                read += usize::from(agree(&text));
            }
        }
    }
    assert!(read > 350, "{read}");
}

#[test]
fn both_read_whatever_stands_around_an_object_alike() {
    let around =
        ["", " ", "\t\r\n ", "\u{feff}", "\u{a0}", "\u{b}", "\u{0}", ",", "}", "x", "{}", "null"];
    for before in around {
        for after in around {
            for inner in
                ["", "\"id\"\n:\t\"x\" , \r\"qty\" : 1", "\"id\":\"x\",", "\u{a0}\"id\":\"x\""]
            {
                agree(&format!("{before}{{{inner}}}{after}"));
            }
        }
    }
}

#[test]
fn both_read_what_is_large_or_deep_alike() {
    let deep = |open: &str, close: &str| open.repeat(10_000) + "1" + &close.repeat(10_000);
    for value in [deep("[", "]"), deep("{\"a\":", "}"), deep("{\"payload\":", "}")] {
        for key in KEYS {
            agree(&format!(r#"{{"{key}":{value}}}"#));
        }
    }
    for (seats, is_read) in [(SEATS_MAX, true), (SEATS_MAX + 1, false)] {
        let seats = vec![r#""A""#; seats].join(",");
        assert_eq!(agree(&format!(r#"{{"seat_ids":[{seats}]}}"#)), is_read);
    }
}

#[test]
fn no_usual_body_is_read_twice() {
    let event = r#"{"id":"e","type":"payment.approved","payload":{"amount":12.5,"qty":1,"seat_ids":["A"]},"ts":null}"#;
    let detail =
        format!(r#"{{"version":"0","account":"1","resources":["x",{{}}],"detail":{event}}}"#);
    let message = serde_json::to_string(&detail).unwrap();
    let notification = format!(r#"{{"Type":"Notification","Message":{message},"Signature":"x"}}"#);
    for body in [event, detail.as_str(), notification.as_str()] {
        assert!(fast::object(body, 4).is_some(), "{body}");
    }
}
