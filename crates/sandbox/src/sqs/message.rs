//! The content of a message: validation, size and MD5 digests. `queue` has the state of a message
//! (visible, in flight, delayed).

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use md5::{Digest, Md5};
use serde::{Deserialize, Serialize};

use super::error::{ErrorCode, SqsError};

/// Maximum size of body and attributes together. Source: SQS "Message quotas" (1 MiB since August
/// 2025).
pub(crate) const MESSAGE_BYTES_MAX: usize = 1_048_576;
/// Maximum number of attributes. Source: SQS "Message quotas".
const ATTRIBUTES_MAX: usize = 10;
/// Maximum number of characters of an attribute's name, and of its data type. Source: "Amazon SQS
/// message metadata".
const NAME_CHARS_MAX: usize = 256;
/// The attribute with the X-Ray trace header.
pub(crate) const TRACE_HEADER: &str = "AWSTraceHeader";

/// The value of a message attribute in the JSON protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct AttributeValue {
    /// `String`, `Number` or `Binary`, with an optional `.label`.
    pub data_type: String,
    /// The value of a `String` or `Number`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub string_value: Option<String>,
    /// The value of a `Binary` in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub binary_value: Option<String>,
}

impl AttributeValue {
    /// Creates a value of type `String`.
    pub fn string(value: impl Into<String>) -> Self {
        Self {
            data_type: "String".to_owned(),
            string_value: Some(value.into()),
            binary_value: None,
        }
    }

    /// Creates a value of type `Number` from its decimal form.
    pub fn number(value: impl Into<String>) -> Self {
        Self { data_type: "Number".to_owned(), ..Self::string(value) }
    }

    /// Creates a value of type `Binary`.
    pub fn binary(value: &[u8]) -> Self {
        Self {
            data_type: "Binary".to_owned(),
            string_value: None,
            binary_value: Some(BASE64.encode(value)),
        }
    }

    /// Returns the value's bytes for size and digest. Checks them against the type.
    fn bytes(&self, name: &str) -> Result<Vec<u8>, SqsError> {
        let base = self.data_type.split('.').next().unwrap_or_default();
        let empty = || {
            SqsError::new(
                ErrorCode::InvalidParameterValue,
                format!(
                    "Message (user) attribute '{}' must contain a non-empty value of type '{}'.",
                    clip(name),
                    clip(&self.data_type)
                ),
            )
        };
        let bytes = match (base, &self.string_value, &self.binary_value) {
            ("String" | "Number", Some(text), None) => {
                check_characters(text)?;
                if base == "Number" && text.parse::<f64>().is_err() {
                    return Err(SqsError::new(
                        ErrorCode::InvalidParameterValue,
                        format!(
                            "Can't cast the value of message (user) attribute '{}' to a number.",
                            clip(name)
                        ),
                    ));
                }
                text.clone().into_bytes()
            }
            ("Binary", None, Some(text)) => BASE64.decode(text).map_err(|_| empty())?,
            ("String" | "Number" | "Binary", _, _) => return Err(empty()),
            (_, _, _) => {
                return Err(SqsError::new(
                    ErrorCode::InvalidParameterValue,
                    format!(
                        "The message attribute '{}' has an invalid message attribute type, the set of supported type prefixes is Binary, Number, and String.",
                        clip(name)
                    ),
                ));
            }
        };
        if bytes.is_empty() { Err(empty()) } else { Ok(bytes) }
    }
}

/// A message to send.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewMessage {
    /// The body.
    pub body: String,
    /// At most ten attributes.
    pub attributes: BTreeMap<String, AttributeValue>,
    /// The system attribute `AWSTraceHeader`.
    pub trace_header: Option<String>,
    /// `MessageGroupId`; required on a FIFO queue.
    pub group: Option<String>,
    /// `MessageDeduplicationId`; FIFO queues only.
    pub deduplication_id: Option<String>,
    /// Seconds until it can be received, 0-900; default is the queue's. Standard queues only.
    pub delay_s: Option<u32>,
}

impl NewMessage {
    /// Creates a message with only a body.
    pub fn new(body: impl Into<String>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// Adds a message attribute of type `String`.
    #[must_use]
    pub fn attribute(mut self, name: &str, value: impl Into<String>) -> Self {
        self.attributes.insert(name.to_owned(), AttributeValue::string(value));
        self
    }
}

/// The constant part of a message, shared by its deliveries.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) id: String,
    pub(crate) body: String,
    pub(crate) body_md5: String,
    pub(crate) attributes: BTreeMap<String, AttributeValue>,
    pub(crate) attributes_md5: Option<String>,
    pub(crate) trace_header: Option<String>,
    pub(crate) group: Option<String>,
    pub(crate) deduplication_id: Option<String>,
    pub(crate) sequence_number: Option<String>,
    pub(crate) sent_ms: u64,
}

/// A message that passed all checks without a queue, with its digests.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) message: NewMessage,
    pub(crate) size_bytes: usize,
    pub(crate) body_md5: String,
    pub(crate) attributes_md5: Option<String>,
}

impl Checked {
    /// Checks characters and attributes.
    pub(crate) fn new(message: NewMessage) -> Result<Self, SqsError> {
        if message.body.is_empty() {
            return Err(SqsError::missing("MessageBody"));
        }
        check_characters(&message.body)?;
        let size_bytes = message.body.len() + attributes_size(&message.attributes)?;
        Ok(Self {
            size_bytes,
            body_md5: hex(Md5::digest(&message.body).as_slice()),
            attributes_md5: attributes_md5(message.attributes.iter().map(|(n, v)| (n.as_str(), v))),
            message,
        })
    }
}

fn attributes_size(attributes: &BTreeMap<String, AttributeValue>) -> Result<usize, SqsError> {
    if attributes.len() > ATTRIBUTES_MAX {
        return Err(SqsError::new(
            ErrorCode::InvalidParameterValue,
            format!(
                "Number of message attributes [{}] exceeds the allowed maximum [{ATTRIBUTES_MAX}].",
                attributes.len()
            ),
        ));
    }
    let mut size_bytes = 0;
    for (name, value) in attributes {
        check_name(name)?;
        if value.data_type.is_empty() || value.data_type.chars().count() > NAME_CHARS_MAX {
            return Err(SqsError::missing("DataType"));
        }
        size_bytes += name.len() + value.data_type.len() + value.bytes(name)?.len();
    }
    Ok(size_bytes)
}

/// Checks that SQS accepts all characters. Source: API_SendMessage, "A message can include only
/// XML, JSON, and unformatted text".
fn check_characters(text: &str) -> Result<(), SqsError> {
    let allowed = |c: char| matches!(c, '\u{9}' | '\u{A}' | '\u{D}' | '\u{20}'..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}');
    if text.chars().all(allowed) {
        return Ok(());
    }
    Err(SqsError::new(
        ErrorCode::InvalidMessageContents,
        "Invalid characters found. Valid unicode characters are #x9 | #xA | #xD | #x20 to #xD7FF | #xE000 to #xFFFD | #x10000 to #x10FFFF",
    ))
}

/// Checks an attribute's name. Source: "Amazon SQS message metadata", message attribute components.
fn check_name(name: &str) -> Result<(), SqsError> {
    let lower = name.to_ascii_lowercase();
    let fits = !name.is_empty()
        && name.chars().count() <= NAME_CHARS_MAX
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
        && !name.starts_with('.')
        && !name.ends_with('.')
        && !name.contains("..")
        && !lower.starts_with("aws.")
        && !lower.starts_with("amazon.");
    if fits {
        return Ok(());
    }
    Err(SqsError::new(
        ErrorCode::InvalidParameterValue,
        format!("Message (user) attribute name '{}' is not allowed.", clip(name)),
    ))
}

/// Computes the digest that SDKs verify. For each attribute, by name: length and bytes of the name,
/// length and bytes of the type, one byte for the kind of value, length and bytes of the value.
/// Source: "Amazon SQS message metadata", calculating the MD5 message digest for message
/// attributes.
pub(crate) fn attributes_md5<'a>(
    attributes: impl Iterator<Item = (&'a str, &'a AttributeValue)>,
) -> Option<String> {
    let mut digest = Md5::new();
    let mut any = false;
    let field = |digest: &mut Md5, bytes: &[u8]| {
        let length =
            u32::try_from(bytes.len()).expect("a field is below the message limit of 1 MiB");
        digest.update(length.to_be_bytes());
        digest.update(bytes);
    };
    for (name, value) in attributes {
        any = true;
        field(&mut digest, name.as_bytes());
        field(&mut digest, value.data_type.as_bytes());
        match (&value.string_value, &value.binary_value) {
            (Some(text), _) => {
                digest.update([1]);
                field(&mut digest, text.as_bytes());
            }
            (None, Some(text)) => {
                digest.update([2]);
                field(&mut digest, &BASE64.decode(text).unwrap_or_default());
            }
            (None, None) => {}
        }
    }
    any.then(|| hex(digest.finalize().as_slice()))
}

/// Computes the digest of the system attributes; a sender can set only one.
pub(crate) fn trace_header_md5(trace_header: &str) -> Option<String> {
    attributes_md5([(TRACE_HEADER, &AttributeValue::string(trace_header))].into_iter())
}

/// Computes the default deduplication id. Source: "Exactly-once processing".
pub(crate) fn body_sha256(body: &str) -> String {
    hex(<sha2::Sha256 as sha2::Digest>::digest(body).as_slice())
}

/// Returns whether a receive requested this attribute, by exact name, `All`, `.*` or `prefix.*`.
pub(crate) fn is_wanted(name: &str, wanted: &[String]) -> bool {
    wanted.iter().any(|pattern| {
        pattern == "All"
            || pattern == name
            || pattern.strip_suffix(".*").is_some_and(|prefix| name.starts_with(prefix))
    })
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn clip(text: &str) -> String {
    text.chars().take(64).collect()
}
