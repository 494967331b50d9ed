//! The part of the SQS protocol (AWS JSON 1.0) that a consumer needs.
//!
//! Requests are searched for the needed keys and responses are handwritten: a parser would cost
//! more than everything else here.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use md5::{Digest, Md5};

use super::Answer;
use super::account::SqsCall;
use super::queue::World;

/// Receipt handles have the length of real ones: a number with this many digits, then filler.
const NUMBER_DIGITS: usize = 20;
const FILLING: &str = "AQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0aAQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0aAQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0aAQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0aAQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0aAQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0aAQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0aAQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0aAQEBwJnKyrHigUMZj6rYigCgxlaS3SLy0a";

pub(super) async fn answer(request: Request<Incoming>, world: &Arc<World>) -> Answer {
    let target = request.headers().get("x-amz-target").cloned();
    let target = target.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
    let body = request.into_body().collect().await.map(http_body_util::Collected::to_bytes);
    let body = body.unwrap_or_default();
    let text = std::str::from_utf8(&body).unwrap_or_default();
    let (status, json) = match target {
        "AmazonSQS.ReceiveMessage" => (StatusCode::OK, receive(text, world).await),
        "AmazonSQS.DeleteMessage" | "AmazonSQS.DeleteMessageBatch" => {
            let mut state = world.lock();
            state.account.called(SqsCall::Delete);
            handles(text).for_each(|number| state.delete(number));
            drop(state);
            (StatusCode::OK, batch_done(text))
        }
        "AmazonSQS.ChangeMessageVisibility" | "AmazonSQS.ChangeMessageVisibilityBatch" => {
            world.lock().account.called(SqsCall::ChangeVisibility);
            (StatusCode::OK, batch_done(text))
        }
        "AmazonSQS.GetQueueAttributes" => {
            world.lock().account.called(SqsCall::Other);
            let facts =
                r#"{"Attributes":{"VisibilityTimeout":"30","MessageRetentionPeriod":"345600"}}"#;
            (StatusCode::OK, facts.to_owned())
        }
        _ => {
            world.lock().account.called(SqsCall::Other);
            let error =
                r#"{"__type":"com.amazonaws.sqs#UnsupportedOperation","message":"not here"}"#;
            (StatusCode::BAD_REQUEST, error.to_owned())
        }
    };
    let mut answer = Response::new(Full::new(Bytes::from(json)));
    *answer.status_mut() = status;
    let json = HeaderValue::from_static("application/x-amz-json-1.0");
    answer.headers_mut().insert(CONTENT_TYPE, json);
    answer
}

async fn receive(request: &str, world: &Arc<World>) -> String {
    let max = number_of(request, "\"MaxNumberOfMessages\":").unwrap_or(1);
    let wait_s = number_of(request, "\"WaitTimeSeconds\":").unwrap_or(0);
    let max = usize::try_from(max).unwrap_or(1);
    let numbers = world.receive(max, Duration::from_secs(wait_s)).await;
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut json = String::with_capacity(16 + numbers.len() * 1_100);
    json.push_str("{\"Messages\":[");
    for (at, number) in numbers.into_iter().enumerate() {
        if at > 0 {
            json.push(',');
        }
        put_message(&mut json, world.run, number, now.as_millis());
    }
    json.push_str("]}");
    json
}

/// Writes a message. Payments and expired holds alternate; each has its own reservation and seats,
/// so each takes two calls.
fn put_message(json: &mut String, run: u32, number: u64, now_ms: u128) {
    let (event_type, payment) = if number.is_multiple_of(2) {
        ("reservation.expired", "")
    } else {
        (
            "payment.approved",
            r#""payment_intent_id":"pay_3PqXyZ2eZvKYlo2C","amount":120000,"currency":"KRW","#,
        )
    };
    let name = format!("{run}_{number}");
    let body = format!(
        r#"{{"id":"evt_{name}","type":"{event_type}","reservation_id":"rsv_{name}","event_id":"evt_2025_1001","ts":"2024-01-01T12:00:00Z","payload":{{{payment}"qty":2,"seat_ids":["A-12","A-13"]}}}}"#
    );
    let escaped = body.replace('"', "\\\"");
    write!(
        json,
        r#"{{"MessageId":"{run:08x}-0000-4000-8000-{number:012x}","ReceiptHandle":"{number:0NUMBER_DIGITS$}{FILLING}","MD5OfBody":"{:032x}","Body":"{escaped}","Attributes":{{"ApproximateReceiveCount":"1","SentTimestamp":"{now_ms}"}}}}"#,
        md5(&body)
    )
    .expect("writing to a String never fails");
}

/// Returns the digest that clients check.
fn md5(body: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(body).into())
}

/// Returns the number after a key.
fn number_of(json: &str, key: &str) -> Option<u64> {
    let (_, rest) = json.split_once(key)?;
    let rest = rest.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// Returns the message numbers of a batch.
fn handles(json: &str) -> impl Iterator<Item = u64> {
    json.split("\"ReceiptHandle\":\"")
        .skip(1)
        .filter_map(|rest| rest.get(..NUMBER_DIGITS)?.parse().ok())
}

/// Returns a response in which every entry succeeded; without entries it also fits a call for one
/// message.
fn batch_done(json: &str) -> String {
    let mut done = String::with_capacity(256);
    done.push_str("{\"Successful\":[");
    for (at, rest) in json.split("\"Id\":\"").skip(1).enumerate() {
        let id = rest.split('"').next().unwrap_or_default();
        let comma = if at > 0 { "," } else { "" };
        write!(done, "{comma}{{\"Id\":\"{id}\"}}").expect("writing to a String never fails");
    }
    done.push_str("],\"Failed\":[]}");
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_message_is_json_with_an_event_as_its_body() {
        for number in [0, 1, 123_456] {
            let mut json = String::new();
            put_message(&mut json, 7, number, 1_700_000_000_000);
            let message: serde_json::Value = serde_json::from_str(&json).expect("JSON");
            let body = message["Body"].as_str().expect("a text");
            let event: serde_json::Value = serde_json::from_str(body).expect("JSON");
            assert_eq!(event["reservation_id"], format!("rsv_7_{number}"));
            assert_eq!(event["payload"]["seat_ids"].as_array().map(Vec::len), Some(2));
            assert_eq!(message["MD5OfBody"], format!("{:032x}", md5(body)));
            let entry = format!(
                r#"{{"Entries":[{{"Id":"0","ReceiptHandle":{}}}]}}"#,
                message["ReceiptHandle"]
            );
            assert_eq!(handles(&entry).collect::<Vec<_>>(), [number]);
        }
    }

    #[test]
    fn the_digest_is_that_of_rfc_1321() {
        assert_eq!(format!("{:032x}", md5("abc")), "900150983cd24fb0d6963f7d28e17f72");
    }

    #[test]
    fn handles_ids_and_numbers_are_read_from_requests() {
        let batch = r#"{"Entries":[{"Id":"0","ReceiptHandle":"x"},{"Id":"1","ReceiptHandle":"00000000000000000042y"}]}"#;
        assert_eq!(handles(batch).collect::<Vec<_>>(), [42]);
        assert_eq!(batch_done(batch), r#"{"Successful":[{"Id":"0"},{"Id":"1"}],"Failed":[]}"#);
        assert_eq!(number_of(r#"{"WaitTimeSeconds":20}"#, "\"WaitTimeSeconds\":"), Some(20));
        assert_eq!(number_of("{}", "\"WaitTimeSeconds\":"), None);
    }
}
