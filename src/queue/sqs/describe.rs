//! Reads the queue's attributes: for its limits, the dead-letter target, the start-up warnings and
//! `check`.

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use serde::Deserialize;

use super::SqsQueue;
use super::error::{GET_ATTRIBUTES, queue_error};
use crate::queue::QueueError;

/// The queue attributes that the worker uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueAttributes {
    /// The queue's ARN.
    pub arn: Option<String>,
    /// The queue's default visibility timeout (the worker sets its own at each receive).
    pub visibility: Duration,
    /// Message retention; 0 if SQS does not return it.
    pub retention: Duration,
    /// Maximum message size in bytes, attributes included; 0 if SQS does not return it.
    pub message_bytes_max: u64,
    /// Approximate number of visible messages.
    pub visible: u64,
    /// Approximate number of messages in flight.
    pub in_flight: u64,
    /// The redrive policy, if there is one.
    pub redrive: Option<Redrive>,
}

/// A queue's redrive policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    /// The ARN of the dead-letter queue.
    pub target_arn: String,
    /// Receives of a message before SQS moves it.
    pub max_receive_count: u32,
}

impl SqsQueue {
    /// Reads the queue's attributes from SQS.
    ///
    /// # Errors
    /// If SQS does not answer, or denies it.
    pub async fn attributes(&self) -> Result<QueueAttributes, QueueError> {
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(&self.settings.queue_url)
            .attribute_names(QueueAttributeName::All)
            .send()
            .await
            .map_err(|error| queue_error(&error, GET_ATTRIBUTES.on(self.name)))?;
        let get = |name| answer.attributes().and_then(|all| all.get(&name)).map(String::as_str);
        let number = |name| get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(QueueAttributes {
            arn: get(QueueAttributeName::QueueArn).map(str::to_owned),
            visibility: Duration::from_secs(number(QueueAttributeName::VisibilityTimeout)),
            retention: Duration::from_secs(number(QueueAttributeName::MessageRetentionPeriod)),
            message_bytes_max: number(QueueAttributeName::MaximumMessageSize),
            visible: number(QueueAttributeName::ApproximateNumberOfMessages),
            in_flight: number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
            redrive: get(QueueAttributeName::RedrivePolicy).and_then(parse_redrive),
        })
    }

    /// Returns the retention of the dead-letter queue, if the role may read it.
    pub async fn dead_letter_retention(&self) -> Option<Duration> {
        let name = QueueAttributeName::MessageRetentionPeriod;
        self.dead_letter_number(name).await.map(Duration::from_secs)
    }

    /// Returns the maximum message size of the dead-letter queue in bytes, if the role may read it.
    pub async fn dead_letter_bytes_max(&self) -> Option<u64> {
        self.dead_letter_number(QueueAttributeName::MaximumMessageSize).await
    }

    async fn dead_letter_number(&self, name: QueueAttributeName) -> Option<u64> {
        let url = self.dead_letter_url().await.ok()??;
        let call = self.client.get_queue_attributes().queue_url(url);
        let answer = call.attribute_names(name.clone()).send().await.ok()?;
        answer.attributes()?.get(&name)?.parse().ok()
    }
}

fn parse_redrive(json: &str) -> Option<Redrive> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Policy {
        dead_letter_target_arn: String,
        max_receive_count: CountText,
    }
    // A number, or a string with a number: SQS accepts both and returns what was set.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum CountText {
        Number(u32),
        Text(String),
    }
    let policy: Policy = serde_json::from_str(json).ok()?;
    let max_receive_count = match policy.max_receive_count {
        CountText::Number(count) => count,
        CountText::Text(text) => text.parse().ok()?,
    };
    Some(Redrive { target_arn: policy.dead_letter_target_arn, max_receive_count })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrive_policy_may_have_its_count_as_number_or_text() {
        for count in ["3", "\"3\""] {
            let json = format!(
                r#"{{"deadLetterTargetArn":"arn:aws:sqs:r:1:d","maxReceiveCount":{count}}}"#
            );
            let expected =
                Redrive { target_arn: "arn:aws:sqs:r:1:d".to_owned(), max_receive_count: 3 };
            assert_eq!(parse_redrive(&json), Some(expected));
        }
        assert_eq!(parse_redrive("{}"), None);
        assert_eq!(parse_redrive("nonsense"), None);
    }
}
