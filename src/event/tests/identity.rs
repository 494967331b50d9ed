//! Idempotency keys and hashes: values that must never change, and values that must differ.

use std::collections::HashSet;

use super::*;

#[test]
fn idempotency_keys_never_change() {
    let id = EventId::new("evt_123456").unwrap();
    let keys = Step::ALL.map(|step| idempotency_key(&id, step).to_string());
    assert_eq!(
        keys,
        [
            "17f16bd2-d941-53dc-8b73-fff0816074c2",
            "43e622ac-f4c7-5c4b-8456-802403703e17",
            "f03cccc4-9f0d-5e82-b2b1-1a604e6e4d8c"
        ]
    );
}

#[test]
fn a_step_set_contains_exactly_the_inserted_steps() {
    let mut steps = StepSet::EMPTY;
    assert!(steps.is_empty());
    for (index, step) in Step::ALL.into_iter().enumerate() {
        assert!(!steps.contains(step));
        assert!(steps.insert(step));
        assert!(!steps.insert(step));
        let held = Step::ALL.into_iter().filter(|step| steps.contains(*step));
        assert_eq!(held.count(), index + 1);
    }
    assert_eq!(StepSet::from_bits(steps.bits()), Some(steps));
    assert_eq!(StepSet::from_bits(0), Some(StepSet::default()));
    assert_eq!(StepSet::from_bits(8), None);
}

fn hex(event: &Event) -> String {
    let bytes = event.content_hash().to_bytes();
    assert_eq!(ContentHash::from_bytes(bytes), event.content_hash());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn content_hashes_never_change() {
    let hashes = [EXPIRED, APPROVED, FAILED].map(|body| hex(&decode(body).unwrap()));
    assert_eq!(
        hashes,
        [
            "1eeb5517b727ba52be25bf4175f3f1ca",
            "658d53978e024a8f22c30abfddf43f92",
            "fdacd84a485ffc4400668daf88ad7d7e"
        ]
    );
}

#[test]
fn the_same_event_has_the_same_hash_in_every_envelope() {
    let event = read(&event_bridge(&inner()));
    let mut flat = json!({"id": "eb-1", "type": "payment.approved", "reservation_id": "rsv_1", "event_id": "show_1",
        "payload": {"payment_intent_id": "pay_1", "amount": 5, "qty": 2, "seat_ids": ["B", "A"]}, "unknown": true});
    assert_eq!(read(&flat).content_hash(), event.content_hash());
    flat["ts"] = json!("another time");
    flat["traceparent"] = json!(PARENT);
    for body in [flat.clone(), sns(&flat), event_bridge(&flat), typed(&flat), sns(&typed(&flat))] {
        assert_eq!(read(&body).content_hash(), event.content_hash(), "{body}");
    }
    let mut expired = value(EXPIRED);
    expired["type"] = json!("reservation.hold.expired");
    expired["payload"]["qty"] = json!(null);
    assert_eq!(read(&expired).content_hash(), decode(EXPIRED).unwrap().content_hash());
}

#[test]
fn each_field_with_an_effect_changes_the_hash() {
    let mut hashes = HashSet::new();
    let mut differs = |body: &Value| assert!(hashes.insert(read(body).content_hash()), "{body}");
    differs(&value(EXPIRED));
    differs(&value(APPROVED));
    let mut same_id = value(APPROVED);
    same_id["type"] = json!("payment.failed");
    differs(&same_id);
    for key in ["id", "reservation_id", "event_id"] {
        let mut body = value(APPROVED);
        body[key] = json!("other");
        differs(&body);
    }
    for payload in [
        json!({}),
        json!({"amount": 1}),
        json!({"amount": 0}),
        json!({"payment_intent_id": "1"}),
        json!({"currency": "1"}),
        json!({"user_id": "1"}),
        json!({"error_code": "1"}),
        json!({"error_message": "1"}),
        json!({"qty": 1}),
        json!({"qty": 2}),
        json!({"seat_ids": ["1"]}),
        json!({"seat_ids": ["1", "2"]}),
        json!({"seat_ids": ["12"]}),
        json!({"seat_ids": ["12", ","]}),
        json!({"error_code": "1", "error_message": "2"}),
        json!({"error_code": "12"}),
    ] {
        let mut body = value(APPROVED);
        body["payload"] = payload;
        differs(&body);
    }
}
