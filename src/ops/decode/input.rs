//! What is decoded: a body, or messages as `aws sqs receive-message` prints them.

use std::io::{self, BufRead, Read};

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::queue::{Attribute, AttributeValue, Message, MessageId, ReceiptHandle};

/// Maximum bytes read: ten messages of 1 MiB, each byte of which JSON may write as six.
pub(super) const INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Maximum bytes of a line with `--lines`: one message of 1 MiB, each byte of which JSON may write
/// as six, and its attributes.
const LINE_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// Maximum length of a message in SQS, in bytes.
pub(super) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// One body, with what is known of its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GivenBody {
    /// The body.
    pub(super) body: String,
    /// Its message; `None` for a bare body.
    pub(super) message: Option<GivenMessage>,
}

/// The SQS ids of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GivenMessage {
    /// Its own.
    pub(super) id: String,
    /// The one of the original message, across any number of copies.
    pub(super) original_id: String,
}

/// Why the input cannot be decoded at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum InputError {
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it is longer than {} MiB: must be at most ten messages of 1 MiB", INPUT_BYTES_MAX >> 20)]
    TooLong,
    #[error("line {number} is longer than {} MiB: must be one message of at most 1 MiB", LINE_BYTES_MAX >> 20)]
    LineTooLong { number: u64 },
    #[error("it is not UTF-8: must be, as SQS carries no other text")]
    NotUtf8,
    #[error("it has no message: an empty queue, or all messages are hidden")]
    NoMessage,
}

/// Reads all of `input`.
pub(super) fn read(input: &mut dyn Read) -> Result<String, InputError> {
    let mut bytes = Vec::new();
    input.take(INPUT_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length > INPUT_BYTES_MAX) {
        return Err(InputError::TooLong);
    }
    String::from_utf8(bytes).map_err(|_| InputError::NotUtf8)
}

/// Reads the next line, without its end; `None` at the end of the input. `number` is the line's.
pub(super) fn next_line(
    input: &mut impl BufRead,
    number: u64,
) -> Result<Option<String>, InputError> {
    let mut bytes = Vec::new();
    // With its end, and a byte more if it is too long.
    let length = input.take(LINE_BYTES_MAX + 2).read_until(b'\n', &mut bytes)?;
    if length == 0 {
        return Ok(None);
    }
    let end = if bytes.ends_with(b"\r\n") { 2 } else { usize::from(bytes.ends_with(b"\n")) };
    bytes.truncate(length - end);
    if u64::try_from(bytes.len()).is_ok_and(|length| length > LINE_BYTES_MAX) {
        return Err(InputError::LineTooLong { number });
    }
    String::from_utf8(bytes).map(Some).map_err(|_| InputError::NotUtf8)
}

/// Finds the bodies in the text: it is one, or the output of `aws sqs receive-message`.
pub(super) fn bodies(text: &str) -> Result<Vec<GivenBody>, InputError> {
    // SQS takes no empty message; of a queue without messages, the command prints nothing at all.
    let given = match messages(text) {
        None if text.is_empty() => Vec::new(),
        None => vec![bare(text)],
        Some(given) => given,
    };
    if given.is_empty() { Err(InputError::NoMessage) } else { Ok(given) }
}

fn bare(text: &str) -> GivenBody {
    GivenBody { body: text.to_owned(), message: None }
}

/// The command's output.
#[derive(Deserialize)]
struct Output<'a> {
    #[serde(rename = "Messages", borrow)]
    messages: Vec<&'a RawValue>,
}

/// One message in it. Only SQS gives a receipt handle: without one it is a body, whatever else it
/// has.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    message_id: String,
    #[serde(rename = "ReceiptHandle")]
    _receipt_handle: String,
    body: String,
    #[serde(default)]
    message_attributes: serde_json::Map<String, serde_json::Value>,
}

/// Returns the messages, if the text is the command's output, a list of messages, or one of them.
fn messages(text: &str) -> Option<Vec<GivenBody>> {
    if let Ok(printed) = serde_json::from_str::<Printed>(text) {
        return Some(vec![printed.into()]);
    }
    let list = match serde_json::from_str::<Output<'_>>(text) {
        Ok(output) => output.messages,
        // An empty list is a body, and one that is refused.
        Err(_) => {
            serde_json::from_str::<Vec<&RawValue>>(text).ok().filter(|all| !all.is_empty())?
        }
    };
    let message =
        |raw: &&RawValue| serde_json::from_str::<Printed>(raw.get()).ok().map(GivenBody::from);
    list.iter().map(message).collect()
}

impl From<Printed> for GivenBody {
    /// The identity of an event without an id is that of its original, which a copy names.
    fn from(printed: Printed) -> Self {
        let text = |(name, value): (String, serde_json::Value)| {
            let text = value.get("StringValue")?.as_str()?.to_owned();
            let (data_type, value) = ("String".to_owned(), AttributeValue::Text(text));
            Some(Attribute { name, data_type, value })
        };
        let message = Message {
            id: MessageId(printed.message_id.into()),
            handle: ReceiptHandle("".into()),
            body: printed.body,
            receive_count: 1,
            sent_at: None,
            group: None,
            trace_header: None,
            source_arn: None,
            attributes: printed.message_attributes.into_iter().filter_map(text).collect(),
        };
        let original_id = message.original_id().to_owned();
        let id = message.id.0.into_string();
        Self { body: message.body, message: Some(GivenMessage { id, original_id }) }
    }
}
