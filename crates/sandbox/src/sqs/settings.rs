//! A queue's settings: ranges, defaults, and their form as queue attributes.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::error::{ErrorCode, SqsError};
use super::message::MESSAGE_BYTES_MAX;

/// The account of all queues.
pub(crate) const ACCOUNT: &str = "000000000000";
const ARN_PREFIX: &str = "arn:aws:sqs:us-east-1:000000000000:";

/// The settings of a new queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueSpec {
    /// Whether it is a FIFO queue; then its name must end in `.fifo`.
    pub fifo: bool,
    /// Visibility timeout in seconds, 0-43200; default 30.
    pub visibility_timeout_s: u32,
    /// Delay of new messages in seconds, 0-900; default 0.
    pub delay_s: u32,
    /// Wait time of receives in seconds, 0-20; default 0.
    pub receive_wait_s: u32,
    /// The redrive policy.
    pub redrive: Option<Redrive>,
    /// FIFO: whether the digest of the body replaces a missing deduplication id.
    pub content_based_deduplication: bool,
    /// Retention of messages in seconds, 60-1209600; default 4 days.
    pub retention_s: u32,
}

impl Default for QueueSpec {
    fn default() -> Self {
        Self {
            fifo: false,
            visibility_timeout_s: 30,
            delay_s: 0,
            receive_wait_s: 0,
            redrive: None,
            content_based_deduplication: false,
            retention_s: 345_600,
        }
    }
}

/// A redrive policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    /// The URL, ARN or name of the dead-letter queue.
    pub dlq: String,
    /// Receives after which the next receive moves the message.
    pub max_receive_count: u32,
}

/// Returns the name in a queue's URL or ARN, or the name itself.
pub(crate) fn queue_name(url_or_arn: &str) -> &str {
    url_or_arn.rsplit(['/', ':']).next().unwrap_or(url_or_arn)
}

pub(crate) fn queue_arn(name: &str) -> String {
    format!("{ARN_PREFIX}{name}")
}

/// Checks a name: 1 to 80 letters, digits, `-` and `_`. The suffix `.fifo` counts and is only for
/// FIFO queues.
pub(crate) fn check_queue_name(name: &str, fifo: bool) -> Result<(), SqsError> {
    let stem = if fifo { name.strip_suffix(".fifo") } else { Some(name) };
    let fits = stem.is_some_and(|stem| {
        !stem.is_empty()
            && name.len() <= 80
            && stem.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    });
    if fits {
        return Ok(());
    }
    Err(SqsError::new(
        ErrorCode::InvalidParameterValue,
        "Can only include alphanumeric characters, hyphens, or underscores. 1 to 80 in length",
    ))
}

/// The current settings, including those that are stored without effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) spec: QueueSpec,
    pub(crate) message_bytes_max: usize,
    /// Attributes without effect, stored to be read back.
    inert: BTreeMap<String, String>,
}

impl Settings {
    pub(crate) fn new(spec: QueueSpec) -> Self {
        Self { spec, message_bytes_max: MESSAGE_BYTES_MAX, inert: BTreeMap::new() }
    }

    /// Applies attributes in the form of `CreateQueue` and `SetQueueAttributes`.
    pub(crate) fn apply(&mut self, attributes: &BTreeMap<String, String>) -> Result<(), SqsError> {
        for (name, value) in attributes {
            self.apply_one(name, value)?;
        }
        Ok(())
    }

    fn apply_one(&mut self, name: &str, value: &str) -> Result<(), SqsError> {
        let spec = &mut self.spec;
        match name {
            "VisibilityTimeout" => spec.visibility_timeout_s = number(name, value, 0, 43_200)?,
            "DelaySeconds" => spec.delay_s = number(name, value, 0, 900)?,
            "ReceiveMessageWaitTimeSeconds" => spec.receive_wait_s = number(name, value, 0, 20)?,
            "MessageRetentionPeriod" => spec.retention_s = number(name, value, 60, 1_209_600)?,
            "MaximumMessageSize" => {
                let bytes_max = u32::try_from(MESSAGE_BYTES_MAX).unwrap_or(u32::MAX);
                let bytes = number(name, value, 1024, bytes_max)?;
                self.message_bytes_max = usize::try_from(bytes).unwrap_or(MESSAGE_BYTES_MAX);
            }
            "RedrivePolicy" => spec.redrive = redrive(value)?,
            "FifoQueue" => {
                if flag(name, value)? != spec.fifo {
                    return Err(bad_value(name, "Modifying queue type is not supported."));
                }
            }
            "ContentBasedDeduplication" if spec.fifo => {
                spec.content_based_deduplication = flag(name, value)?;
            }
            "DeduplicationScope" | "FifoThroughputLimit" if spec.fifo => {
                self.inert.insert(name.to_owned(), value.to_owned());
            }
            "Policy"
            | "RedriveAllowPolicy"
            | "KmsMasterKeyId"
            | "KmsDataKeyReusePeriodSeconds"
            | "SqsManagedSseEnabled" => {
                self.inert.insert(name.to_owned(), value.to_owned());
            }
            _ => return Err(unknown_attribute(name)),
        }
        Ok(())
    }

    /// Returns whether deduplication is per group instead of per queue.
    pub(crate) fn deduplicates_by_group(&self) -> bool {
        self.inert.get("DeduplicationScope").is_some_and(|scope| scope == "messageGroup")
    }

    /// Returns the settings as queue attributes.
    pub(crate) fn attributes(&self) -> BTreeMap<String, String> {
        let spec = &self.spec;
        let mut all = self.inert.clone();
        let mut put = |name: &str, value: String| {
            all.insert(name.to_owned(), value);
        };
        put("VisibilityTimeout", spec.visibility_timeout_s.to_string());
        put("DelaySeconds", spec.delay_s.to_string());
        put("ReceiveMessageWaitTimeSeconds", spec.receive_wait_s.to_string());
        put("MessageRetentionPeriod", spec.retention_s.to_string());
        put("MaximumMessageSize", self.message_bytes_max.to_string());
        if let Some(redrive) = &spec.redrive {
            let arn = queue_arn(queue_name(&redrive.dlq));
            let policy = serde_json::json!({
                "deadLetterTargetArn": arn,
                "maxReceiveCount": redrive.max_receive_count,
            });
            put("RedrivePolicy", policy.to_string());
        }
        if spec.fifo {
            put("FifoQueue", "true".to_owned());
            put("ContentBasedDeduplication", spec.content_based_deduplication.to_string());
        }
        all
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RedrivePolicy {
    dead_letter_target_arn: String,
    max_receive_count: NumberOrText,
}

/// SQS accepts `maxReceiveCount` as number and as string.
#[derive(Deserialize)]
#[serde(untagged)]
enum NumberOrText {
    Number(u32),
    Text(String),
}

fn redrive(value: &str) -> Result<Option<Redrive>, SqsError> {
    if value.is_empty() {
        return Ok(None);
    }
    let bad = || {
        bad_value(
            "RedrivePolicy",
            "It must be JSON with deadLetterTargetArn and maxReceiveCount from 1 to 1000.",
        )
    };
    let policy: RedrivePolicy = serde_json::from_str(value).map_err(|_| bad())?;
    let count = match policy.max_receive_count {
        NumberOrText::Number(count) => count,
        NumberOrText::Text(text) => text.parse().map_err(|_| bad())?,
    };
    if !(1..=1000).contains(&count) || !policy.dead_letter_target_arn.starts_with(ARN_PREFIX) {
        return Err(bad());
    }
    Ok(Some(Redrive { dlq: policy.dead_letter_target_arn, max_receive_count: count }))
}

pub(crate) fn unknown_attribute(name: &str) -> SqsError {
    let name: String = name.chars().take(64).collect();
    SqsError::new(ErrorCode::InvalidAttributeName, format!("Unknown Attribute {name}."))
}

fn bad_value(name: &str, reason: &str) -> SqsError {
    SqsError::new(
        ErrorCode::InvalidAttributeValue,
        format!("Invalid value for the parameter {name}. Reason: {reason}"),
    )
}

fn number(name: &str, value: &str, min: u32, max: u32) -> Result<u32, SqsError> {
    value
        .parse()
        .ok()
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| bad_value(name, &format!("Must be from {min} to {max}.")))
}

fn flag(name: &str, value: &str) -> Result<bool, SqsError> {
    match value {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(bad_value(name, "Must be true or false.")),
    }
}
