//! Refused bodies and their reasons: one table, one whole body per row.
//!
//! Rows for single fields are in `fields`.

mod fields;

use super::*;
use PoisonReason::{InvalidEnvelope, InvalidEvent, InvalidJson, NestedTooDeep, UnknownType};

/// A body, its reason, and a text that the detail must contain.
type Row = (String, PoisonReason, &'static str);

/// Returns `EXPIRED` with one field set.
fn with(key: &str, field: Value) -> String {
    let mut body = value(EXPIRED);
    body[key] = field;
    body.to_string()
}

fn json_rows() -> Vec<Row> {
    vec![
        (String::new(), InvalidJson, "EOF"),
        (" ".into(), InvalidJson, "EOF"),
        ("hello".into(), InvalidJson, "expected value"),
        ("{".into(), InvalidJson, "EOF"),
        ("\u{feff}{}".into(), InvalidJson, "expected value"),
        (EXPIRED.replace('"', "'"), InvalidJson, "key must be a string"),
        (format!("{EXPIRED}{EXPIRED}"), InvalidJson, "trailing characters"),
        (EXPIRED.replace("2,", "2,,"), InvalidJson, "line"),
        (EXPIRED.replace("\"qty\":2", "\"qty\":02"), InvalidJson, "invalid number"),
        (EXPIRED.replace("\"qty\":2", "\"qty\":NaN"), InvalidJson, "expected"),
        (EXPIRED.replace("rsv_abc123", "a\nb"), InvalidJson, "control character"),
        (EXPIRED.replacen('{', r#"{"id":"x","#, 1), InvalidJson, "duplicate field `id`"),
        (EXPIRED.replacen('{', r#"{"id":null,"#, 1), InvalidJson, "duplicate field `id`"),
        (EXPIRED.replacen('{', r#"{"\u0069d":"x","#, 1), InvalidJson, "duplicate field `id`"),
        (EXPIRED.replace("\"qty\":2", "\"qty\":2,\"qty\":2"), InvalidJson, "duplicate field `qty`"),
        (
            sns(&json!(0)).to_string().replace("\"0\"", "\"not json\""),
            InvalidJson,
            "Message: expected",
        ),
        (sns(&json!(0)).to_string().replace("\"0\"", "\"\""), InvalidJson, "Message: EOF"),
    ]
}

fn envelope_rows() -> Vec<Row> {
    let mut confirmation = sns(&value(EXPIRED));
    confirmation["Type"] = json!("SubscriptionConfirmation");
    let mut mistyped = sns(&value(EXPIRED));
    mistyped["Type"] = json!(1);
    let mut object = sns(&value(EXPIRED));
    object["Message"] = value(EXPIRED);
    vec![
        ("null".into(), InvalidEnvelope, "the body is null: must be an object"),
        ("[]".into(), InvalidEnvelope, "the body is an array"),
        (format!("[{EXPIRED}]"), InvalidEnvelope, "the body is an array"),
        ("\"x\"".into(), InvalidEnvelope, "the body is a string"),
        ("-1".into(), InvalidEnvelope, "the body is a number"),
        ("true".into(), InvalidEnvelope, "the body is a boolean"),
        (confirmation.to_string(), InvalidEnvelope, "Type is \"SubscriptionConfirmation\""),
        (mistyped.to_string(), InvalidEnvelope, "Type is no string"),
        (object.to_string(), InvalidEnvelope, "Message is no string"),
        (sns(&json!([1])).to_string(), InvalidEnvelope, "Message is an array"),
        (sns(&json!(null)).to_string(), InvalidEnvelope, "Message is null"),
        (event_bridge(&json!("x")).to_string(), InvalidEnvelope, "detail is a string"),
        (typed(&json!([])).to_string(), InvalidEnvelope, "detail is an array"),
        (
            typed(&event_bridge(&typed(&inner()))).to_string(),
            NestedTooDeep,
            "more than 2 envelopes",
        ),
        (sns(&event_bridge(&typed(&inner()))).to_string(), NestedTooDeep, "more than 2 envelopes"),
        (sns(&sns(&sns(&inner()))).to_string(), NestedTooDeep, "more than 2 envelopes"),
        (
            "{\"detail\":".repeat(100_000) + "1" + &"}".repeat(100_000),
            NestedTooDeep,
            "more than 2 envelopes",
        ),
    ]
}

#[test]
fn each_rejected_body_has_its_reason() {
    let rows: Vec<Row> = [
        json_rows(),
        envelope_rows(),
        fields::identity_rows(),
        fields::payload_rows(),
        fields::payment_rows(),
    ]
    .into_iter()
    .flatten()
    .collect();
    assert!(rows.len() >= 60, "{}", rows.len());
    for (body, reason, says) in &rows {
        let start: String = body.chars().take(200).collect();
        let poison = decode(body).expect_err(&start);
        assert_eq!(poison.reason, *reason, "{start}: {}", poison.detail);
        assert!(poison.detail.contains(says), "{start}: {}", poison.detail);
        assert!(poison.detail.len() < 400, "{}", poison.detail);
        assert!(!poison.detail.contains(char::is_control), "{}", poison.detail);
    }
    for reason in PoisonReason::ALL {
        assert!(rows.iter().any(|row| row.1 == reason), "{reason}");
    }
}

#[test]
fn poison_contains_the_fields_that_could_be_read() {
    let poison = decode(&fields::with_payload(json!({"qty": 0}))).unwrap_err();
    assert_eq!(poison.event_type, Some(EventType::ReservationExpired));
    assert_eq!(poison.id.unwrap().as_str(), "evt_123456");
    assert_eq!(poison.reservation_id.unwrap().as_str(), "rsv_abc123");

    let poison = decode(&with("type", json!("x"))).unwrap_err();
    assert_eq!(poison.event_type, None);
    assert_eq!(poison.id.as_ref().unwrap().as_str(), "evt_123456");
    assert_eq!(poison.to_string(), format!("unknown_type: {}", poison.detail));

    let poison = decode(&with("id", json!(1))).unwrap_err();
    assert_eq!(poison.id, None);
    assert_eq!(poison.reservation_id.unwrap().as_str(), "rsv_abc123");

    let poison = decode("{").unwrap_err();
    assert_eq!((poison.event_type, poison.id, poison.reservation_id), (None, None, None));
}

#[test]
fn a_long_value_is_cut_and_escaped_in_the_detail() {
    let long = format!("\u{1b}[31m{}", "x".repeat(1_000_000));
    let poison = decode(&with("type", json!(long))).unwrap_err();
    assert!(poison.detail.starts_with(r#"type is "\u{1b}[31mxxx"#), "{}", poison.detail);
    assert!(poison.detail.contains(r#"xxx"...: must be"#), "{}", poison.detail);
}
