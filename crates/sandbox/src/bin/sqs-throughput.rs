//! Measures the embedded SQS with a raw client: messages per second that are sent, received and
//! deleted in batches of ten.
//!
//! The exit code is 1 below the rate that `make demo` and the worker's benchmarks need. Needs a
//! release build: `cargo run --release -p reservation-worker-sandbox --bin sqs-throughput`

use std::error::Error;
use std::io::Write;
use std::process::ExitCode;
use std::time::Instant;

use sandbox::sqs::{QueueSpec, Sqs};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Below this rate, the server and not the worker would limit a benchmark.
const MESSAGES_PER_S_MIN: u32 = 20_000;
const MESSAGES: usize = 400_000;
/// Enough to keep both ends busy without measuring sockets.
const CONNECTIONS: usize = 8;
const BATCH: usize = 10;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<ExitCode, Failure> {
    let server = Sqs::start().await;
    let url = server.create_queue("throughput", QueueSpec::default());
    let address = server.endpoint_url().trim_start_matches("http://").to_owned();
    let since = Instant::now();
    let mut clients = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(&address).await?;
        stream.set_nodelay(true)?;
        clients
            .spawn(drive(Client { stream: BufReader::new(stream), body: Vec::new() }, url.clone()));
    }
    while let Some(finished) = clients.join_next().await {
        finished??;
    }
    let took = since.elapsed();
    let ledger = server.ledger(&url);
    let expected = u64::try_from(MESSAGES)?;
    if [ledger.sent, ledger.delivered, ledger.deletes_effective] != [expected; 3] {
        return Err("not every message was sent, delivered and deleted once".into());
    }
    let per_s = f64::from(u32::try_from(MESSAGES)?) / took.as_secs_f64();
    let enough = per_s >= f64::from(MESSAGES_PER_S_MIN);
    let verdict = if enough { "at least" } else { "BELOW" };
    writeln!(
        std::io::stdout(),
        "{MESSAGES} messages sent, received and deleted in tens over {CONNECTIONS} connections in {took:.2?}: \
         {per_s:.0} a second, {verdict} {MESSAGES_PER_S_MIN}"
    )?;
    Ok(if enough { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Sends, receives and deletes this connection's share. It receives as many messages as it sent,
/// possibly those of other connections, so the number always suffices.
async fn drive(mut client: Client, url: String) -> Result<(), Failure> {
    let send = request("SendMessageBatch", &send_batch(&url));
    let receives: Vec<Vec<u8>> = (0..=BATCH).map(|max| receive(&url, max)).collect();
    for _ in 0..MESSAGES / CONNECTIONS / BATCH {
        client.call(&send).await?;
        let mut received = 0;
        while received < BATCH {
            let answer = client.call(&receives[BATCH - received]).await?;
            let handles = values(answer, "\"ReceiptHandle\":\"");
            if handles.is_empty() {
                return Err("a receive came back empty".into());
            }
            received += handles.len();
            let delete = request("DeleteMessageBatch", &delete_batch(&url, &handles));
            client.call(&delete).await?;
        }
    }
    Ok(())
}

fn receive(url: &str, max: usize) -> Vec<u8> {
    let body = format!(r#"{{"QueueUrl":"{url}","MaxNumberOfMessages":{max},"WaitTimeSeconds":1}}"#);
    request("ReceiveMessage", &body)
}

fn send_batch(url: &str) -> String {
    let body = r#"{\"id\":\"evt_123456\",\"type\":\"payment.approved\",\"reservation_id\":\"rsv_abc123\",\"event_id\":\"evt_2025_1001\",\"ts\":\"2024-01-01T12:05:00Z\",\"payload\":{\"payment_intent_id\":\"pay_xyz789\",\"amount\":120000}}"#;
    let entries: Vec<String> =
        (0..BATCH).map(|id| format!(r#"{{"Id":"{id}","MessageBody":"{body}"}}"#)).collect();
    format!(r#"{{"QueueUrl":"{url}","Entries":[{}]}}"#, entries.join(","))
}

fn delete_batch(url: &str, handles: &[&str]) -> String {
    let entries: Vec<String> = handles
        .iter()
        .enumerate()
        .map(|(id, handle)| format!(r#"{{"Id":"{id}","ReceiptHandle":"{handle}"}}"#))
        .collect();
    format!(r#"{{"QueueUrl":"{url}","Entries":[{}]}}"#, entries.join(","))
}

fn request(action: &str, body: &str) -> Vec<u8> {
    format!(
        "POST / HTTP/1.1\r\nhost: sqs\r\ncontent-type: application/x-amz-json-1.0\r\n\
         x-amz-target: AmazonSQS.{action}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// Returns the strings after each `key`, up to their closing quote.
fn values<'a>(json: &'a str, key: &str) -> Vec<&'a str> {
    json.split(key).skip(1).filter_map(|rest| rest.split('"').next()).collect()
}

/// A keep-alive connection.
struct Client {
    stream: BufReader<TcpStream>,
    body: Vec<u8>,
}

impl Client {
    /// Sends a request and reads the response, which must be 200 without failed batch entries.
    async fn call(&mut self, request: &[u8]) -> Result<&str, Failure> {
        self.stream.get_mut().write_all(request).await?;
        let (mut line, mut length, mut first) = (String::new(), 0, true);
        loop {
            line.clear();
            self.stream.read_line(&mut line).await?;
            if first && !line.starts_with("HTTP/1.1 200 ") {
                return Err(format!("answered with {}", line.trim_end()).into());
            }
            first = false;
            if line.trim_end().is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse()?;
            }
        }
        self.body.resize(length, 0);
        self.stream.read_exact(&mut self.body).await?;
        let answer = std::str::from_utf8(&self.body)?;
        if answer.contains("\"Failed\"") {
            return Err("an entry of a batch failed".into());
        }
        Ok(answer)
    }
}
