//! Hostile bodies: the result is an event or a reason, never a panic, and is safe to log.

use super::*;

/// Checks what holds for every result, for any body.
fn check(body: &str) {
    match decode(body) {
        Ok(event) => {
            assert!(event.seats().is_none_or(|seats| seats.quantity >= 1), "{body}");
            assert_eq!(event.content_hash(), decode(body).unwrap().content_hash());
        }
        Err(poison) => {
            assert!(poison.detail.len() < 1000, "{}", poison.detail);
            assert!(!poison.detail.contains(char::is_control), "{}", poison.detail);
        }
    }
}

fn bodies() -> Vec<String> {
    let whole = value(EXPIRED);
    vec![
        EXPIRED.to_owned(),
        APPROVED.to_owned(),
        event_bridge(&whole).to_string(),
        typed(&inner()).to_string(),
        sns(&typed(&inner())).to_string(),
    ]
}

#[test]
fn truncated_bodies_are_invalid_json() {
    for body in bodies() {
        for (end, _) in body.char_indices() {
            let poison = decode(&body[..end]).unwrap_err();
            assert_eq!(poison.reason, PoisonReason::InvalidJson, "{}", &body[..end]);
        }
    }
}

#[test]
fn bodies_with_changed_characters_cause_no_panic() {
    const PIECES: [&str; 16] = [
        "",
        "\"",
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "null",
        "-1",
        "1e9",
        "\\u0000",
        "\\",
        "\u{2028}",
        "\"detail\":{",
        "\"id\":\"\",",
    ];
    let mut random = fastrand::Rng::with_seed(2025);
    for body in bodies() {
        for _ in 0..2_000 {
            let mut text: Vec<String> = body.chars().map(String::from).collect();
            for _ in 0..random.usize(1..=3) {
                let place = random.usize(..text.len());
                text[place] = PIECES[random.usize(..PIECES.len())].to_owned();
            }
            check(&text.concat());
        }
    }
}

#[test]
fn values_of_every_type_in_every_field_cause_no_panic() {
    const FIELDS: [&str; 16] = [
        "id",
        "type",
        "reservation_id",
        "event_id",
        "ts",
        "payload",
        "detail",
        "detail-type",
        "time",
        "Type",
        "Message",
        "MessageId",
        "traceparent",
        "trace_id",
        "qty",
        "seat_ids",
    ];
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1.5),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!("\u{0}\u{1b}[2J\n"),
        json!("🎟".repeat(100)),
        json!([]),
        json!([null]),
        json!(["a", 1]),
        json!({}),
        json!({"detail": {}}),
        value(EXPIRED),
    ];
    for body in bodies() {
        for field in FIELDS {
            for given in &values {
                let mut body = value(&body);
                body[field] = given.clone();
                check(&body.to_string());
                if body["detail"].is_object() {
                    body["detail"][field] = given.clone();
                    check(&body.to_string());
                }
            }
        }
    }
}

#[test]
fn deep_bodies_need_only_a_small_stack() {
    let deep = |open: &str, close: &str| open.repeat(100_000) + "1" + &close.repeat(100_000);
    let bodies = [
        deep("[", "]"),
        deep("{\"a\":", "}"),
        deep("{\"payload\":", "}"),
        deep("{\"detail\":", "}"),
        deep("{\"seat_ids\":[", "]}"),
        deep("{\"id\":[{\"detail\":", "}]}"),
    ];
    let small = std::thread::Builder::new().stack_size(256 * 1024);
    let decoded = small.spawn(move || bodies.iter().for_each(|body| check(body))).unwrap();
    decoded.join().unwrap();
}
