//! Bodies as a producer has them, messages as the AWS command line prints them, and neither.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::Read;

use serde_json::{Value, json};

use super::input::InputError;
use super::*;

const EXPIRED: &str = r#"{"id":"evt_123456","type":"reservation.expired","reservation_id":"rsv_abc123","event_id":"evt_2025_1001","payload":{"qty":2,"seat_ids":["A-12","A-13"]}}"#;

fn all(text: &str) -> Vec<Value> {
    let reports = bodies(text).unwrap();
    let lines = reports.iter().map(|given| text::json(&report(given)));
    lines.map(|line| serde_json::from_str(&line).unwrap()).collect()
}

fn one(text: &str) -> Value {
    let mut all = all(text);
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0)
}

fn shown(text: &str) -> String {
    let reports: Vec<_> = bodies(text).unwrap().iter().map(report).collect();
    let mut out = Vec::new();
    write_text(&reports, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn by_line(input: &mut impl BufRead, is_json: bool) -> (Result<bool, InputError>, String) {
    let mut out = Vec::new();
    let are_accepted = decode_lines(input, is_json, &mut out);
    (are_accepted, String::from_utf8(out).unwrap())
}

/// The keys are golden: SPEC and docs/idempotency.md promise that they never change.
#[test]
fn an_event_has_its_steps_calls_and_keys() {
    let found = one(EXPIRED);
    let expected = json!([
        {"step": "reservation-status", "service": "Reservation API",
         "call": "PATCH /internal/reservations/rsv_abc123", "request": {"status": "EXPIRED"},
         "idempotency_key": "17f16bd2-d941-53dc-8b73-fff0816074c2"},
        {"step": "inventory-release", "service": "Inventory", "call": "ReleaseHold",
         "request": {"reservation_id": "rsv_abc123", "event_id": "evt_2025_1001",
                     "seat_ids": ["A-12", "A-13"], "quantity": 2, "reason": "EXPIRED"},
         "idempotency_key": "43e622ac-f4c7-5c4b-8456-802403703e17"},
    ]);
    assert_eq!(found["steps"], expected);
    assert_eq!((&found["outcome"], &found["id_from"]), (&json!("handled"), &json!("body")));
    let paid = EXPIRED.replace("reservation.expired", "payment.approved");
    let paid = one(&paid.replace(r#""qty":2"#, r#""payment_intent_id":"pay_1""#));
    assert_eq!(
        paid["steps"][0]["request"],
        json!({"status": "CONFIRMED", "payment_intent_id": "pay_1"})
    );
    assert_eq!(paid["steps"][1]["call"], "CommitReservation");
    assert_eq!(paid["steps"][1]["idempotency_key"], "f03cccc4-9f0d-5e82-b2b1-1a604e6e4d8c");
    assert_eq!(paid["steps"][1]["request"]["user_id"], "");
    let failed = one(r#"{"id":"e","type":"payment.failed","reservation_id":"a/b","payload":{}}"#);
    assert_eq!(failed["steps"][0]["call"], "PATCH /internal/reservations/a%2Fb");
    assert_eq!(failed["steps"].as_array().unwrap().len(), 1);
}

#[test]
fn an_expiry_that_lacks_its_hold_asks_for_it() {
    let found = one(r#"{"id":"e","type":"Reservation Expiry","reservation_id":"r"}"#);
    assert_eq!(found["steps"][1]["asked_for"], json!(["event_id", "seat_ids, quantity"]));
    assert!(
        shown(r#"{"id":"e","type":"Reservation Expiry","reservation_id":"r"}"#)
            .contains("before: GET of the reservation, for its event_id, seat_ids, quantity")
    );
}

#[test]
fn a_refusal_has_its_reason_and_words() {
    let body = EXPIRED.replace("\"qty\":2", "\"qty\":3");
    let found = one(&body);
    assert_eq!((&found["outcome"], &found["reason"]), (&json!("refused"), &json!("invalid_event")));
    assert_eq!(found["detail"], "qty is 3: must be the number of seat_ids, 2");
    assert_eq!(
        (&found["id"], &found["type"]),
        (&json!("evt_123456"), &json!("reservation.expired"))
    );
    assert!(
        shown(&body)
            .starts_with("refused: invalid_event; the message goes to the dead-letter queue\n")
    );
    let long = format!("{EXPIRED}{}", " ".repeat(input::BODY_BYTES_MAX));
    assert_eq!(one(&long)["reason"], "too_long");
    assert_eq!(one(" ")["reason"], "invalid_json");
    assert_eq!(one("[]")["reason"], "invalid_envelope");
}

#[test]
fn a_status_that_changes_nothing_is_accepted() {
    let found = one(
        r#"{"id":"e","type":"payment.status_updated","reservation_id":"r","status":"PENDING"}"#,
    );
    assert_eq!(found["outcome"], "no_change");
    assert_eq!(found["steps"], json!([]));
}

#[test]
fn messages_of_the_aws_command_line_are_opened() {
    let message = |id: &str, body: &str, attributes: Value| json!({"MessageId": id, "ReceiptHandle": "h", "MD5OfBody": "x", "Body": body, "MessageAttributes": attributes});
    let original = json!({"dlq_message_id": {"StringValue": "m-0", "DataType": "String"},
        "blob": {"BinaryValue": "AAA=", "DataType": "Binary"}});
    let bare = r#"{"type":"payment.failed","reservation_id":"r"}"#;
    let printed =
        json!({"Messages": [message("m-1", EXPIRED, json!({})), message("m-2", bare, original)]});
    let pretty = serde_json::to_string_pretty(&printed).unwrap();
    let found = all(&pretty);
    assert_eq!((&found[0]["id"], &found[0]["message_id"]), (&json!("evt_123456"), &json!("m-1")));
    assert_eq!(found[1]["message_id"], "m-2", "its own, not the original's");
    assert!(shown(&pretty).contains("  message      \"m-2\"\n"), "{}", shown(&pretty));
    assert_eq!(one(EXPIRED)["message_id"], Value::Null);
    assert_eq!((&found[1]["id"], &found[1]["id_from"]), (&json!("m-0"), &json!("message")));
    assert_eq!(all(&printed["Messages"].to_string()), found);
    assert_eq!(all(&printed["Messages"][0].to_string()), found[..1]);
    let lines = format!("{}\n\n{bare}\n", printed["Messages"][0]);
    let (are_accepted, said) = by_line(&mut lines.as_bytes(), true);
    assert_eq!((are_accepted.unwrap(), said.lines().count()), (true, 2));
    for none in [r#"{"Messages":[]}"#, ""] {
        assert!(matches!(bodies(none), Err(InputError::NoMessage)), "{none}");
    }
    // What only looks like it is a body.
    let no_handle = json!({"MessageId": "m", "Body": EXPIRED});
    let no_handles = json!({"Messages": [no_handle]});
    for body in [
        r#"{"Messages":[{"Body":1}]}"#,
        r#"{"MessageId":"m","ReceiptHandle":"h","Body":{}}"#,
        "[1]",
        &no_handle.to_string(),
        &no_handles.to_string(),
    ] {
        assert_eq!(one(body)["outcome"], "refused", "{body}");
        assert_eq!(bodies(body).unwrap()[0].message, None, "{body}");
    }
}

#[test]
fn without_a_message_the_id_of_an_event_without_one_is_not_made_up() {
    let bare = r#"{"type":"payment.failed","reservation_id":"r"}"#;
    let found = one(bare);
    assert_eq!((&found["id"], &found["id_from"]), (&Value::Null, &json!("message")));
    assert_eq!(found["steps"][0]["idempotency_key"], Value::Null);
    assert!(shown(bare).contains("published twice takes effect twice"), "{}", shown(bare));
}

#[test]
fn envelopes_are_named_from_the_outside() {
    let bridge = format!(r#"{{"id":"eb-1","detail-type":"x","detail":{EXPIRED}}}"#);
    let sns = json!({"Type": "Notification", "MessageId": "s", "Message": bridge});
    assert_eq!(one(&sns.to_string())["envelopes"], json!(["sns", "eventbridge"]));
    let typed = format!(r#"{{"id":"td-1","type":"x","detail":{EXPIRED}}}"#);
    assert_eq!(one(&typed)["envelopes"], json!(["typed_detail"]));
    let cloud = format!(r#"{{"specversion":"1.0","id":"c","type":"x","data":{EXPIRED}}}"#);
    assert_eq!(one(&cloud)["envelopes"], json!(["cloudevent"]));
    let broken = r#"{"id":"eb-1","detail-type":"x","detail":7}"#;
    assert_eq!(one(broken)["envelopes"], json!(["eventbridge"]));
}

#[test]
fn hostile_text_reaches_no_terminal() {
    let hostile = "\u{9b}2J\u{202e}\u{7f}";
    let bodies = [
        EXPIRED.replace("A-12", "A\u{202e}12\u{2066}").replace("rsv_abc123", "r\u{200b}\u{e0041}"),
        EXPIRED.replace("evt_2025", hostile),
        EXPIRED.replace("reservation.expired", hostile),
        hostile.to_owned(),
    ];
    for body in bodies {
        let line = text::json(&all(&body));
        for text in [shown(&body), line] {
            let is_safe = |c: char| c == '\n' || c.is_ascii_graphic() || c == ' ';
            assert!(text.chars().all(is_safe), "{text:?}");
        }
    }
}

#[test]
fn input_is_bounded_and_text() {
    let mut endless = io::repeat(b' ');
    assert!(matches!(read(&mut endless), Err(InputError::TooLong)));
    assert!(matches!(read(&mut &b"\xff"[..]), Err(InputError::NotUtf8)));
    assert_eq!(read(&mut &b"{}"[..]).unwrap(), "{}");
}

#[test]
fn many_seats_are_counted_not_listed() {
    let seats: Vec<String> = (0..500).map(|seat| format!("S-{seat}")).collect();
    let body = json!({"id": "e", "type": "payment.approved", "reservation_id": "r", "event_id": "s",
        "payload": {"seat_ids": seats}});
    let text = shown(&body.to_string());
    assert!(text.contains("and 490 more") && text.len() < 1_500, "{text}");
    assert_eq!(one(&body.to_string())["seat_ids"].as_array().unwrap().len(), 500);
}

#[test]
fn lines_are_read_one_by_one_and_each_is_bounded() {
    let lines = format!("{EXPIRED}\r\n \n{{}}\n{EXPIRED}");
    let (are_accepted, said) = by_line(&mut lines.as_bytes(), false);
    assert!(!are_accepted.unwrap());
    let headings: Vec<&str> = said.lines().filter(|line| line.starts_with("line ")).collect();
    assert_eq!(headings, ["line 1", "line 3", "line 4"], "{said}");
    // More than a text may have in all, but no line of it is long.
    let line = format!("{EXPIRED}{}\n", " ".repeat(1_000_000));
    let mut many = io::Cursor::new(line.repeat(70));
    let (are_accepted, said) = by_line(&mut many, true);
    assert_eq!((are_accepted.unwrap(), said.lines().count()), (true, 70));
    let mut endless = BufReader::new(EXPIRED.as_bytes().chain(&b"\n"[..]).chain(io::repeat(b' ')));
    let (failed, said) = by_line(&mut endless, true);
    let why = failed.unwrap_err().to_string();
    assert_eq!(why, "line 2 is longer than 8 MiB: must be one message of at most 1 MiB");
    assert_eq!(said.lines().count(), 1, "what came before is told");
    assert!(matches!(by_line(&mut &b"\n \n"[..], true).0, Err(InputError::NoMessage)));
}
