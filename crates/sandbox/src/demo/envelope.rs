//! The envelopes of events: flat, EventBridge, typed detail, SNS.

use serde_json::{Map, Value, json};

use super::workload::Kind;

/// The envelope of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Envelope {
    /// The event is the body.
    Flat,
    /// EventBridge; `detail` is a complete flat event.
    EventBridgeWhole,
    /// EventBridge; `detail` has the inner fields, and the envelope has type, id and time.
    EventBridgeInner,
    /// `{"id","type","source","detail","time","trace_id"}` with the inner fields.
    TypedDetail,
    /// An SNS notification of a flat event.
    Sns,
    /// An SNS notification of an EventBridge event: two envelopes.
    SnsEventBridge,
}

impl Envelope {
    /// All envelopes.
    pub const ALL: [Self; 6] = [
        Self::Flat,
        Self::EventBridgeWhole,
        Self::EventBridgeInner,
        Self::TypedDetail,
        Self::Sns,
        Self::SnsEventBridge,
    ];

    /// Returns the name for tables.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flat => "flat",
            Self::EventBridgeWhole => "EventBridge, whole event",
            Self::EventBridgeInner => "EventBridge, inner fields",
            Self::TypedDetail => "typed detail",
            Self::Sns => "SNS",
            Self::SnsEventBridge => "SNS of EventBridge",
        }
    }
}

const SHOW: &str = "evt_2025_1001";
const TIME: &str = "2025-01-01T12:00:00Z";

/// Returns a message body.
pub(super) fn body(
    id: &str,
    reservation_id: &str,
    kind: Kind,
    with_seats: bool,
    envelope: Envelope,
    random: &mut fastrand::Rng,
) -> String {
    let alias = kind == Kind::Expired && random.u8(..4) == 0;
    let kind_name = if alias { "reservation.hold.expired" } else { kind.as_str() };
    let payload = payload(kind, with_seats, random);
    let flat = || {
        json!({"id": id, "type": kind_name, "reservation_id": reservation_id, "event_id": SHOW, "ts": TIME,
               "payload": payload})
    };
    let inner = || {
        let mut fields = payload.clone();
        fields.insert("reservation_id".to_owned(), reservation_id.into());
        fields.insert("event_id".to_owned(), SHOW.into());
        Value::Object(fields)
    };
    let value = match envelope {
        Envelope::Flat => flat(),
        Envelope::EventBridgeWhole => event_bridge(&format!("eb-{id}"), kind_name, flat()),
        Envelope::EventBridgeInner => event_bridge(id, kind_name, inner()),
        Envelope::TypedDetail => json!({
            "id": id, "type": kind_name, "source": "payments", "detail": inner(), "time": TIME,
            "trace_id": format!("{:032x}", random.u128(1..)),
        }),
        Envelope::Sns => sns(id, &flat()),
        Envelope::SnsEventBridge => sns(id, &event_bridge(id, kind_name, inner())),
    };
    value.to_string()
}

fn event_bridge(id: &str, kind_name: &str, detail: Value) -> Value {
    json!({"version": "0", "id": id, "detail-type": kind_name, "source": "payments", "account": "000000000000",
           "time": TIME, "region": "us-east-1", "resources": [], "detail": detail})
}

fn sns(id: &str, message: &Value) -> Value {
    json!({"Type": "Notification", "MessageId": format!("sns-{id}"),
           "TopicArn": "arn:aws:sns:us-east-1:000000000000:reservations", "Message": message.to_string(),
           "Timestamp": TIME})
}

/// Returns a payload with seats as a quantity, as seat ids, or both.
fn payload(kind: Kind, with_seats: bool, random: &mut fastrand::Rng) -> Map<String, Value> {
    let mut fields = Map::new();
    if with_seats {
        let count = random.usize(1..=4);
        let row = random.char('A'..='Z');
        let seats: Vec<String> = (1..=count).map(|seat| format!("{row}-{seat}")).collect();
        let told = random.u8(..3);
        if told != 0 {
            fields.insert("seat_ids".to_owned(), seats.into());
        }
        if told != 1 {
            fields.insert("qty".to_owned(), count.into());
        }
    }
    match kind {
        Kind::Expired => {}
        Kind::Approved | Kind::Failed => {
            fields.insert(
                "payment_intent_id".to_owned(),
                format!("pay_{:08x}", random.u32(..)).into(),
            );
            fields.insert("amount".to_owned(), random.u32(1_000..200_000).into());
            fields.insert("user_id".to_owned(), "usr_42".into());
        }
    }
    if kind == Kind::Failed {
        fields.insert("error_code".to_owned(), "card_declined".into());
    }
    fields
}
