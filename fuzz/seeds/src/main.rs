//! Writes the seeds of each fuzz target, one file each, below the given folder: the bodies of
//! tests/corpus, their payloads and their trace attributes. Other targets get some valid and nearly
//! valid values.

use std::fs;
use std::path::Path;

#[path = "../../../tests/hostile/corpus.rs"]
#[allow(dead_code, reason = "what a body must get is of no use here")]
mod corpus;

/// Larger seeds add little and are slow: libFuzzer changes a few bytes at a time.
const SEED_BYTES_MAX: usize = 4096;

const RETRY_AFTER: [&str; 12] = [
    "0",
    "7",
    " 120\t",
    "300",
    "86400",
    "99999999999999999999999999",
    "-1",
    "1.5",
    "soon",
    "Sun, 06 Nov 1994 08:49:47 GMT",
    "Sunday, 06-Nov-94 08:49:47 GMT",
    "Sun Nov  6 08:49:47 1994",
];

const TRACE: [&str; 8] = [
    "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes-later",
    "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
    "Sampled=?; Parent=53995c3f42cd8ad8;Root=1-5759e988-bd862e3fe1be46a994272793;Lineage=a:0",
    "Self=1-67891234-12456789abcdef012345678;Root=1-67891233-abcdef012345678912345678",
    "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE",
    "a=1,b=2, c@d=3",
];

/// One line per variable. Its first character selects the variable by index in the table.
const CONFIG: [(u8, &str); 28] = [
    (0, "https://sqs.eu-west-1.amazonaws.com/123456789012/q.fifo"),
    (0, "http://user:secret@localhost:4566/000000000000/q"),
    (1, "https://inventory.example.com/"),
    (1, "[::1]:50051"),
    (2, "http://reservation-api:8080/v1/"),
    (3, "0"),
    (4, "3600"),
    (5, "http://localhost:4566/000000000000/dlq"),
    (6, "1000"),
    (7, "20000"),
    (8, "4096"),
    (10, "10"),
    (11, "30000"),
    (12, "900000"),
    (23, "redis://user:hunter2secret@redis:6379/0"),
    (23, "rediss://:hunter2secret@redis.example.com:6380/15?x=y"),
    (23, "memory"),
    (26, "a:b:"),
    (27, "900"),
    (28, "65535"),
    (29, "DEBUG"),
    (32, "https://collector.example.com:4317/path"),
    (33, "TRUE"),
    (35, "service.name=x,deployment.environment=a%20b"),
    (36, "parentbased_traceidratio"),
    (37, "0.25"),
    (38, "none,otlp"),
    (39, "tracecontext,b3"),
];

fn write(folder: &Path, target: &str, seeds: impl IntoIterator<Item = Vec<u8>>) {
    let folder = folder.join(target);
    fs::create_dir_all(&folder).expect("the folder can be created");
    let small = seeds.into_iter().filter(|seed| seed.len() <= SEED_BYTES_MAX);
    for (number, seed) in small.enumerate() {
        fs::write(folder.join(format!("seed-{number:04}")), seed).expect("a seed can be written");
    }
}

/// Returns the payload of an event body, after a byte for its type.
fn payload(body: &str) -> Option<Vec<u8>> {
    let body: serde_json::Value = serde_json::from_str(body).ok()?;
    let kind = match body.get("type")?.as_str()? {
        "payment.approved" => 1,
        "payment.failed" => 2,
        "payment.status_updated" => 3,
        _ => 0,
    };
    Some([&[kind], body.get("payload")?.to_string().as_bytes()].concat())
}

fn main() {
    let folder = std::env::args().nth(1).expect("the first argument is a folder");
    let folder = Path::new(&folder);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cases = corpus::read(&root.join("tests/corpus"));
    let texts =
        |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    let bodies = || cases.iter().map(|case| case.body.clone().into_bytes());
    write(folder, "decode", bodies());
    write(folder, "differential", bodies());
    write(folder, "payload", cases.iter().filter_map(|case| payload(&case.body)));
    let attributes = cases.iter().flat_map(|case| &case.attributes);
    let attributes = attributes.map(|(_, value)| value.clone().into_bytes());
    write(folder, "trace", texts(&TRACE).into_iter().chain(attributes));
    // The first four bytes are the time: 1994.
    let at_then = |value: Vec<u8>| [784_111_777_u32.to_le_bytes().as_slice(), &value].concat();
    write(folder, "retry_after", texts(&RETRY_AFTER).into_iter().map(at_then));
    let line = |(place, value): &(u8, &str)| [&[*place + 80], value.as_bytes()].concat();
    let all = CONFIG.iter().map(line).collect::<Vec<_>>().join(&b'\n');
    write(folder, "config", CONFIG.iter().map(line).chain([all]));
}
