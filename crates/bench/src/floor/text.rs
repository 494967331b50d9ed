//! Handwritten JSON and protobuf. Reading searches for keys in their known order.

use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};

/// The needed parts of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) handle: String,
    pub(super) id: String,
    pub(super) reservation_id: String,
    show_id: String,
    seats: Vec<String>,
    payment: Option<String>,
}

impl Job {
    pub(super) const fn is_payment(&self) -> bool {
        self.payment.is_some()
    }
}

pub(super) fn receive(queue_url: &str) -> Bytes {
    let json = format!(
        r#"{{"QueueUrl":"{queue_url}","MaxNumberOfMessages":10,"VisibilityTimeout":30,"WaitTimeSeconds":20,"MessageAttributeNames":["All"],"MessageSystemAttributeNames":["ApproximateReceiveCount","SentTimestamp"]}}"#
    );
    json.into()
}

pub(super) fn delete(queue_url: &str, handles: &[String]) -> Bytes {
    let mut json = String::with_capacity(128 + handles.len() * 512);
    write!(json, r#"{{"QueueUrl":"{queue_url}","Entries":["#)
        .expect("writing to a String never fails");
    for (at, handle) in handles.iter().enumerate() {
        let comma = if at > 0 { "," } else { "" };
        write!(json, r#"{comma}{{"Id":"{at}","ReceiptHandle":"{handle}"}}"#)
            .expect("writing to a String never fails");
    }
    json.push_str("]}");
    json.into()
}

/// Returns the jobs of a reply. Messages that are not jobs are left out.
pub(super) fn jobs(reply: &str) -> Vec<Job> {
    reply.split("{\"MessageId\":\"").skip(1).filter_map(job).collect()
}

fn job(message: &str) -> Option<Job> {
    let handle = after(message, "\"ReceiptHandle\":\"")?.to_owned();
    let (_, rest) = message.split_once("\"Body\":\"")?;
    let end = rest.find("\",\"Attributes\":")?;
    let body = rest[..end].replace("\\\"", "\"");
    let event = |key| after(&body, key).map(str::to_owned);
    let (_, seats) = body.split_once("\"seat_ids\":[")?;
    let (seats, _) = seats.split_once(']')?;
    let seats = seats.split(',').map(|seat| seat.trim_matches('"').to_owned()).collect();
    Some(Job {
        handle,
        id: event("\"id\":\"")?,
        reservation_id: event("\"reservation_id\":\"")?,
        show_id: event("\"event_id\":\"")?,
        seats,
        payment: event("\"payment_intent_id\":\""),
    })
}

/// Returns the text between a key and the next quote.
fn after<'a>(json: &'a str, key: &str) -> Option<&'a str> {
    let (_, rest) = json.split_once(key)?;
    rest.split('"').next()
}

pub(super) fn patch_body(job: &Job) -> Bytes {
    match &job.payment {
        Some(payment) => {
            format!(r#"{{"status":"CONFIRMED","payment_intent_id":"{payment}"}}"#).into()
        }
        None => Bytes::from_static(br#"{"status":"EXPIRED"}"#),
    }
}

/// Encodes `ReleaseHoldRequest` or `CommitReservationRequest` in a gRPC frame.
pub(super) fn rpc_body(job: &Job) -> Bytes {
    let mut frame = BytesMut::with_capacity(256);
    frame.put_slice(&[0; 5]);
    put_text(&mut frame, 1, &job.reservation_id);
    put_text(&mut frame, 2, &job.show_id);
    job.seats.iter().for_each(|seat| put_text(&mut frame, 3, seat));
    frame.put_slice(&[4 << 3, u8::try_from(job.seats.len()).unwrap_or(0x7f)]);
    match &job.payment {
        Some(payment) => {
            put_text(&mut frame, 5, payment);
            put_text(&mut frame, 7, &job.id);
        }
        None => {
            put_text(&mut frame, 5, "EXPIRED");
            put_text(&mut frame, 6, &job.id);
        }
    }
    let length = u32::try_from(frame.len() - 5).expect("a message is short");
    frame[1..5].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

fn put_text(frame: &mut BytesMut, field: u8, text: &str) {
    // One byte for the length: the ids of the bench are shorter than 128 bytes.
    frame.put_slice(&[field << 3 | 2, u8::try_from(text.len()).expect("ids are short")]);
    frame.put_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &str = r#"{"Messages":[{"MessageId":"m","ReceiptHandle":"h1","MD5OfBody":"0","Body":"{\"id\":\"evt_7_1\",\"type\":\"payment.approved\",\"reservation_id\":\"rsv_7_1\",\"event_id\":\"show\",\"ts\":\"t\",\"payload\":{\"payment_intent_id\":\"pay\",\"amount\":1,\"qty\":2,\"seat_ids\":[\"A-12\",\"A-13\"]}}","Attributes":{}},{"MessageId":"m","ReceiptHandle":"h2","MD5OfBody":"0","Body":"{\"id\":\"evt_7_2\",\"type\":\"reservation.expired\",\"reservation_id\":\"rsv_7_2\",\"event_id\":\"show\",\"payload\":{\"qty\":2,\"seat_ids\":[\"A-12\"]}}","Attributes":{}}]}"#;

    #[test]
    fn jobs_are_read_from_a_reply() {
        let jobs = jobs(REPLY);
        let [payment, expired] = jobs.as_slice() else { panic!("{jobs:?}") };
        assert_eq!((&*payment.handle, &*payment.id, &*payment.show_id), ("h1", "evt_7_1", "show"));
        assert_eq!((payment.payment.as_deref(), payment.seats.len()), (Some("pay"), 2));
        assert_eq!((&*expired.handle, &*expired.reservation_id), ("h2", "rsv_7_2"));
        assert!(payment.is_payment() && !expired.is_payment());
        assert_eq!(super::jobs(r#"{"Messages":[]}"#), []);
    }

    #[test]
    fn handwritten_messages_decode_with_prost_and_serde() {
        use prost::Message;

        use crate::plain::proto::reservation::v1::{CommitReservationRequest, ReleaseHoldRequest};
        let jobs = jobs(REPLY);
        let commit =
            CommitReservationRequest::decode(&rpc_body(&jobs[0])[5..]).expect("a valid message");
        assert_eq!((&*commit.payment_intent_id, commit.quantity), ("pay", 2));
        assert_eq!(commit.idempotency_key, "evt_7_1");
        let release =
            ReleaseHoldRequest::decode(&rpc_body(&jobs[1])[5..]).expect("a valid message");
        assert_eq!((&*release.reservation_id, &*release.reason), ("rsv_7_2", "EXPIRED"));
        let handles = ["a".to_owned(), "b".to_owned()];
        let batch: serde_json::Value =
            serde_json::from_slice(&delete("q", &handles)).expect("JSON");
        assert_eq!(batch["Entries"][1]["ReceiptHandle"], "b");
        serde_json::from_slice::<serde_json::Value>(&receive("q")).expect("JSON");
    }
}
