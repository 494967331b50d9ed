//! Rows of the table of refusals: events of the right shape with a wrong field.

use super::*;

fn without(key: &str) -> String {
    let mut body = value(EXPIRED);
    body.as_object_mut().unwrap().remove(key);
    body.to_string()
}

pub(super) fn with_payload(payload: Value) -> String {
    with("payload", payload)
}

fn paid_with(payload: Value) -> String {
    let mut body = value(APPROVED);
    body["payload"] = payload;
    body.to_string()
}

fn paid_without_a_show() -> String {
    let mut body = value(APPROVED);
    body["payload"] = json!({"qty": 2});
    body.as_object_mut().unwrap().remove("event_id");
    body.to_string()
}

pub(super) fn identity_rows() -> Vec<Row> {
    let mut empty = inner();
    empty["id"] = json!("");
    vec![
        ("{}".into(), InvalidEvent, "type is missing"),
        (without("type"), InvalidEvent, "type is missing"),
        (with("type", json!(null)), InvalidEvent, "type is missing"),
        (with("type", json!(1)), InvalidEvent, "type is a number, 1: must be a string"),
        (
            EXPIRED.replace("rsv_abc123", "\\ud83d"),
            InvalidEvent,
            "reservation_id is a string with half of a surrogate pair: must be a string",
        ),
        (
            EXPIRED.replace("A-13", "\\udc00"),
            InvalidEvent,
            "seat_ids[1] is a string with half of a surrogate pair",
        ),
        (EXPIRED.replace("\"qty\":2", "\"qty\":1e400"), InvalidEvent, "qty is 1e400: must be"),
        (
            with("type", json!("order.created")),
            UnknownType,
            "type is \"order.created\": must be one of reservation.expired, payment.approved, payment.failed",
        ),
        (with("type", json!("")), UnknownType, "type is \"\""),
        (with("type", json!(" payment.approved")), UnknownType, "type is \" payment"),
        (with("type", json!("PAYMENT.APPROVED")), UnknownType, "type is"),
        (
            event_bridge(&json!({"bucket": "b"}))
                .to_string()
                .replace("payment.approved", "Object Created"),
            UnknownType,
            "Object Created",
        ),
        (r#"{"id":"1","type":"order.created","data":{}}"#.into(), UnknownType, "order.created"),
        (event_bridge(&empty).to_string(), InvalidEvent, "id is \"\": must not be empty"),
        (with("id", json!(7)), InvalidEvent, "id is a number, 7"),
        (with("id", json!(["x"])), InvalidEvent, "id is an array"),
        (with("id", json!("a\nb")), InvalidEvent, r#"id is "a\nb": must not contain control"#),
        (with("id", json!("x".repeat(257))), InvalidEvent, "must not be longer than 256 bytes"),
        (with("id", json!("é".repeat(129))), InvalidEvent, "must not be longer than 256 bytes"),
        (without("reservation_id"), InvalidEvent, "reservation_id is missing"),
        (with("reservation_id", json!("")), InvalidEvent, "reservation_id is \"\""),
        (with("reservation_id", json!(".")), InvalidEvent, "must not be `.` or `..`"),
        (with("reservation_id", json!("..")), InvalidEvent, "must not be `.` or `..`"),
        (with("reservation_id", json!("\u{0}")), InvalidEvent, "control"),
        (with("reservation_id", json!("\u{85}")), InvalidEvent, "control"),
        (with("reservation_id", json!({})), InvalidEvent, "reservation_id is an object"),
        (paid_without_a_show(), InvalidEvent, "event_id is missing"),
        (with("event_id", json!("")), InvalidEvent, "event_id is \"\""),
        (with("event_id", json!(true)), InvalidEvent, "event_id is a boolean"),
    ]
}

pub(super) fn payload_rows() -> Vec<Row> {
    let crowd: Vec<String> = (0..=SEATS_MAX).map(|seat| seat.to_string()).collect();
    vec![
        (with_payload(json!([])), InvalidEvent, "payload is an array: must be an object"),
        (with_payload(json!("x")), InvalidEvent, "payload is a string"),
        (
            with_payload(json!({"qty": 0})),
            InvalidEvent,
            "qty is 0: must be a whole number from 1 to 2147483647",
        ),
        (with_payload(json!({"qty": -1})), InvalidEvent, "qty is -1"),
        (with_payload(json!({"qty": 0, "seat_ids": []})), InvalidEvent, "qty is 0"),
        (with_payload(json!({"qty": 2_147_483_648_i64})), InvalidEvent, "qty is 2147483648"),
        (
            with_payload(json!({"qty": u64::MAX})),
            InvalidEvent,
            "qty is 18446744073709551615: must be a whole",
        ),
        (with_payload(json!({"qty": 2.5})), InvalidEvent, "qty is 2.5: must be a whole"),
        (
            with_payload(json!({"qty": "2"})),
            InvalidEvent,
            "qty is a string, \"2\": must be a whole",
        ),
        (with_payload(json!({"qty": [2]})), InvalidEvent, "qty is an array"),
        (
            with_payload(json!({"qty": 3, "seat_ids": ["A", "B"]})),
            InvalidEvent,
            "qty is 3: must be the number of seat_ids, 2",
        ),
        (
            with_payload(json!({"seat_ids": "A"})),
            InvalidEvent,
            "seat_ids is a string: must be an array of strings",
        ),
        (with_payload(json!({"seat_ids": {"a": 1}})), InvalidEvent, "seat_ids is an object"),
        (with_payload(json!({"seat_ids": 1})), InvalidEvent, "seat_ids is a number"),
        (with_payload(json!({"seat_ids": -1.5})), InvalidEvent, "seat_ids is a number"),
        (with_payload(json!({"seat_ids": false})), InvalidEvent, "seat_ids is a boolean"),
        (
            with_payload(json!({"seat_ids": ["A", 2, {}]})),
            InvalidEvent,
            "seat_ids[1] is a number, 2",
        ),
        (with_payload(json!({"seat_ids": [null]})), InvalidEvent, "seat_ids[0] is null"),
        (with_payload(json!({"seat_ids": ["A", ["B"]]})), InvalidEvent, "seat_ids[1] is an array"),
        (
            with_payload(json!({"seat_ids": ["A", ""]})),
            InvalidEvent,
            "seat_ids[1] is \"\": must not be empty",
        ),
        (with_payload(json!({"seat_ids": ["A\t"]})), InvalidEvent, "seat_ids[0] is"),
        (
            with_payload(json!({"seat_ids": ["A".repeat(129)]})),
            InvalidEvent,
            "must not be longer than 128 bytes",
        ),
        (
            with_payload(json!({ "seat_ids": crowd })),
            InvalidEvent,
            "seat_ids has more than 10000 seats",
        ),
    ]
}

pub(super) fn payment_rows() -> Vec<Row> {
    vec![
        (paid_with(json!({"qty": 0, "seat_ids": ["A"]})), InvalidEvent, "qty is 0"),
        (paid_with(json!({"qty": -1})), InvalidEvent, "qty is -1"),
        (paid_with(json!({"qty": 1, "seat_ids": ["A", "B"]})), InvalidEvent, "qty is 1"),
        (paid_with(json!({"payment_intent_id": 5})), InvalidEvent, "payment_intent_id is a number"),
        (paid_with(json!({"payment_intent_id": "a\rb"})), InvalidEvent, "payment_intent_id is"),
        (paid_with(json!({"user_id": 5})), InvalidEvent, "user_id is a number"),
        (paid_with(json!({"user_id": "u".repeat(257)})), InvalidEvent, "user_id is"),
        (paid_with(json!(1)), InvalidEvent, "payload is a number"),
        (
            event_bridge(&json!({"reservation_id": "r", "event_id": "s", "qty": 0.5})).to_string(),
            InvalidEvent,
            "qty is 0.5",
        ),
    ]
}
