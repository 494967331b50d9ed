//! Tests beyond the conformance suite: rules of minutes and hours (with paused time), limits that
//! are too large for a slow server, faults, the ledger, and connections.

#![allow(clippy::unwrap_used)]

mod ailments;
mod faults;
mod permissions;
mod time;

use std::time::Duration;

use super::*;
use crate::conformance::client;

const SOON: Duration = Duration::from_secs(5);

async fn server() -> (Sqs, String, aws_sdk_sqs::Client) {
    let sqs = Sqs::start().await;
    let url = sqs.create_queue("q", QueueSpec::default());
    let client = client(&sqs.endpoint_url());
    (sqs, url, client)
}

async fn receive(client: &aws_sdk_sqs::Client, url: &str) -> Vec<aws_sdk_sqs::types::Message> {
    let receive = client.receive_message().queue_url(url);
    let received = receive.max_number_of_messages(10).send().await;
    received.unwrap().messages.unwrap_or_default()
}

#[tokio::test]
async fn a_message_sent_in_process_is_received_over_http() {
    let (sqs, url, client) = server().await;
    assert_eq!(url, format!("{}/000000000000/q", sqs.endpoint_url()));
    let message = NewMessage {
        trace_header: Some("Root=1-0-0".to_owned()),
        ..NewMessage::new("body").attribute("traceparent", "00-1-2-01")
    };
    let id = sqs.send_message(&url, message).unwrap();
    let receive = client.receive_message().queue_url(&url);
    let receive = receive.message_attribute_names("All");
    let receive = receive.message_system_attribute_names("AWSTraceHeader".into());
    let received = receive.send().await.unwrap();
    let message = &received.messages()[0];
    assert_eq!(message.message_id(), Some(id.as_str()));
    let attributes = message.message_attributes().unwrap();
    assert_eq!(attributes["traceparent"].string_value(), Some("00-1-2-01"));
    assert_eq!(message.attributes().unwrap()[&"AWSTraceHeader".into()], "Root=1-0-0");
}

#[tokio::test]
async fn peek_returns_the_state_of_messages() {
    let (sqs, url, client) = server().await;
    sqs.send(&url, "a");
    receive(&client, &url).await;
    sqs.send(&url, "b");
    let late = NewMessage { delay_s: Some(900), ..NewMessage::new("c") };
    sqs.send_message(&url, late).unwrap();
    let stored: Vec<_> = sqs
        .peek_all(&url)
        .into_iter()
        .map(|message| (message.body, message.receive_count, message.state))
        .collect();
    assert_eq!(
        stored,
        [
            ("a".to_owned(), 1, MessageState::InFlight),
            ("b".to_owned(), 0, MessageState::Visible),
            ("c".to_owned(), 0, MessageState::Delayed),
        ]
    );
    let counts = Counts { visible: 1, in_flight: 1, delayed: 1 };
    assert_eq!(sqs.counts(&url), counts);
    assert_eq!(counts.total(), 3);
}

#[tokio::test]
async fn the_ledger_records_every_action() {
    let (sqs, url, client) = server().await;
    receive(&client, &url).await;
    let id = sqs.send(&url, "a");
    let first = receive(&client, &url).await;
    let handle = first[0].receipt_handle().unwrap();
    for timeout_s in [60, 0] {
        let change = client.change_message_visibility().queue_url(&url);
        let change = change.receipt_handle(handle).visibility_timeout(timeout_s);
        change.send().await.unwrap();
    }
    let second = receive(&client, &url).await;
    for message in [&first[0], &second[0]] {
        let delete = client.delete_message().queue_url(&url);
        let delete = delete.set_receipt_handle(message.receipt_handle.clone());
        delete.send().await.unwrap();
    }
    let ledger = sqs.ledger(&url);
    assert_eq!((ledger.sent, ledger.receives, ledger.receives_empty), (1, 3, 1));
    assert_eq!(ledger.requests, 7);
    assert_eq!(
        (ledger.delivered, ledger.visibility_extended, ledger.visibility_to_zero),
        (2, 1, 1)
    );
    assert_eq!((ledger.deletes_stale, ledger.deletes_effective), (1, 1));
    let told: Vec<_> = ledger.entries.iter().map(|entry| (entry.action, entry.outcome)).collect();
    assert_eq!(
        told,
        [
            (Action::ReceiveMessage, Outcome::Empty),
            (Action::SendMessage, Outcome::Sent),
            (Action::ReceiveMessage, Outcome::Delivered { receive_count: 1 }),
            (Action::ChangeMessageVisibility, Outcome::VisibilitySet { timeout_s: 60 }),
            (Action::ChangeMessageVisibility, Outcome::VisibilitySet { timeout_s: 0 }),
            (Action::ReceiveMessage, Outcome::Delivered { receive_count: 2 }),
            (Action::DeleteMessage, Outcome::DeleteStale),
            (Action::DeleteMessage, Outcome::Deleted),
        ]
    );
    let about: Vec<_> = ledger.entries.iter().filter_map(|e| e.message_id.as_deref()).collect();
    assert_eq!(about, vec![id.as_str(); 7]);
}

#[tokio::test]
async fn the_ledger_counts_moves_to_the_dead_letter_queue() {
    let (sqs, dlq, client) = server().await;
    let redrive = Some(Redrive { dlq: dlq.clone(), max_receive_count: 1 });
    let spec = QueueSpec { visibility_timeout_s: 0, redrive, ..QueueSpec::default() };
    let url = sqs.create_queue("source", spec);
    sqs.send(&url, "poison");
    assert_eq!(receive(&client, &url).await.len(), 1);
    assert_eq!(receive(&client, &url).await.len(), 0);
    assert_eq!(sqs.ledger(&url).moved_to_dlq, 1);
    assert_eq!(sqs.peek_all(&dlq)[0].body, "poison");
}

#[tokio::test]
async fn wait_until_ends_with_a_change_or_its_timeout() {
    let (sqs, url, client) = server().await;
    let waiting = sqs.wait_until(&url, |counts| counts.in_flight == 1, SOON);
    let (seen, ()) = tokio::join!(biased; waiting, async {
        sqs.send(&url, "a");
        receive(&client, &url).await;
    });
    assert!(seen);
    assert!(!sqs.wait_until(&url, |counts| counts.total() == 2, Duration::ZERO).await);
    assert!(!sqs.wait_until("none", |_| true, SOON).await);
    // The condition may read the ledger.
    let seen = sqs.wait_until(&url, |_| sqs.ledger(&url).delivered == 1, SOON);
    assert!(seen.await);
}

#[tokio::test]
async fn stop_ends_open_receives_and_refuses_new_ones() {
    let (sqs, url, client) = server().await;
    let receive = client.receive_message().queue_url(&url).wait_time_seconds(20);
    let (open, ()) = tokio::join!(biased; receive.clone().send(), async {
        client.list_queues().send().await.unwrap();
        sqs.stop();
    });
    open.unwrap_err();
    receive.send().await.unwrap_err();
    sqs.send(&url, "memory can still be looked at");
    assert_eq!(sqs.counts(&url).visible, 1);
}

#[tokio::test]
async fn the_last_handle_stops_the_server() {
    let (sqs, url, client) = server().await;
    let second = sqs.clone();
    drop(sqs);
    receive(&client, &url).await;
    let address = second.endpoint_url().trim_start_matches("http://").to_owned();
    drop(second);
    // The listener closes when its task runs next; the bind succeeds after that.
    let bound = tokio::time::timeout(SOON, async {
        while Sqs::start_on(address.parse().unwrap()).await.is_err() {
            tokio::task::yield_now().await;
        }
    });
    bound.await.unwrap();
}

#[tokio::test]
async fn invalid_requests_are_refused() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let (sqs, _url, _client) = server().await;
    let address = sqs.endpoint_url().trim_start_matches("http://").to_owned();
    let mut answers = Vec::new();
    for (target, body) in [
        ("AmazonSQS.NoSuchAction", "{}"),
        ("AmazonSQS.SendMessage", "{not json"),
        ("AmazonSQS.SendMessage", r#"{"QueueUrl":7}"#),
        ("AmazonSQS.SendMessage", r#"{"MessageBody":"x"}"#),
    ] {
        let mut stream = tokio::net::TcpStream::connect(&address).await.unwrap();
        let request = format!(
            "POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-amz-target: {target}\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answers.push(answer);
    }
    let expected = [
        ("UnknownOperationException", "InvalidAction;Sender"),
        ("SerializationException", "MalformedInput;Sender"),
        ("SerializationException", "MalformedInput;Sender"),
        ("MissingRequiredParameterException", "MissingParameter;Sender"),
    ];
    for (answer, (shape, query)) in answers.iter().zip(expected) {
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(answer.contains(&format!("x-amzn-query-error: {query}\r\n")), "{answer}");
        assert!(answer.contains(&format!(r#""__type":"com.amazonaws.sqs#{shape}""#)), "{answer}");
    }
}

#[tokio::test]
async fn messages_of_a_noisy_tenant_come_after_others() {
    let (sqs, url, client) = server().await;
    let send = |tenant: &str, body: &str| {
        let group = Some(tenant.to_owned());
        sqs.send_message(&url, NewMessage { group, ..NewMessage::new(body) }).unwrap();
    };
    (0..30).for_each(|_| send("noisy", "noisy"));
    assert_eq!(receive(&client, &url).await.len(), 10);
    send("quiet", "quiet");
    sqs.send(&url, "nobody's");
    let bodies: Vec<_> =
        receive(&client, &url).await.into_iter().filter_map(|message| message.body).collect();
    assert_eq!(bodies[..3], ["quiet", "nobody's", "noisy"]);
    assert_eq!(bodies.len(), 10);
}
