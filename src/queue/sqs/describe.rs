//! What the queue says of itself: for the dead-letter target, the start-up warnings and `check`.

use std::time::Duration;

use aws_sdk_sqs::types::QueueAttributeName;
use serde::Deserialize;

use super::error::{DEAD_LETTER_URL, GET_ATTRIBUTES, queue_error};
use super::{DlqTarget, SqsQueue};
use crate::queue::QueueError;

/// The queue's attributes that the worker cares for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QueueFacts {
    /// The queue's own visibility timeout (the worker asks for its own at each receive).
    pub visibility: Duration,
    /// How long SQS keeps a message.
    pub retention: Duration,
    /// Messages visible now, about.
    pub visible: u64,
    /// Messages in flight now, about.
    pub in_flight: u64,
    /// Where the queue sends what was received too often, if anywhere.
    pub redrive: Option<Redrive>,
}

/// A queue's redrive policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    /// The ARN of the dead-letter queue.
    pub target_arn: String,
    /// How many receives a message has before SQS moves it.
    pub max_receive_count: u32,
}

impl SqsQueue {
    /// Asks SQS for the queue's attributes.
    pub async fn facts(&self) -> Result<QueueFacts, QueueError> {
        let answer = self
            .client
            .get_queue_attributes()
            .queue_url(&self.settings.queue_url)
            .attribute_names(QueueAttributeName::All)
            .send()
            .await
            .map_err(|error| queue_error(&error, GET_ATTRIBUTES))?;
        let get = |name| answer.attributes().and_then(|all| all.get(&name)).map(String::as_str);
        let number = |name| get(name).and_then(|text| text.parse().ok()).unwrap_or(0);
        Ok(QueueFacts {
            visibility: Duration::from_secs(number(QueueAttributeName::VisibilityTimeout)),
            retention: Duration::from_secs(number(QueueAttributeName::MessageRetentionPeriod)),
            visible: number(QueueAttributeName::ApproximateNumberOfMessages),
            in_flight: number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible),
            redrive: get(QueueAttributeName::RedrivePolicy).and_then(parse_redrive),
        })
    }

    /// Where poison goes, for a person to read: the URL, or `None` where there is no such place.
    pub async fn dead_letter_url(&self) -> Result<Option<String>, QueueError> {
        let target = self.dlq.get_or_try_init(|| self.find_dead_letter_queue()).await?;
        Ok(target.as_ref().map(|target| target.url.clone()))
    }

    /// The redrive policy's target. Only an answer is remembered: that there is none, or its URL. A
    /// refusal may pass (credentials that are not there yet), and is asked again the next time.
    pub(super) async fn find_dead_letter_queue(&self) -> Result<Option<DlqTarget>, QueueError> {
        let Some(redrive) = self.facts().await?.redrive else { return Ok(None) };
        let Some((account, name)) = arn_parts(&redrive.target_arn) else { return Ok(None) };
        let call = self.client.get_queue_url().queue_name(name);
        let answer = call
            .queue_owner_aws_account_id(account)
            .send()
            .await
            .map_err(|error| queue_error(&error, DEAD_LETTER_URL))?;
        Ok(answer.queue_url.map(DlqTarget::new))
    }

    /// How long the dead-letter queue keeps a message, if SQS lets us read it.
    pub async fn dead_letter_retention(&self) -> Option<Duration> {
        let url = self.dead_letter_url().await.ok()??;
        let call = self.client.get_queue_attributes().queue_url(url);
        let name = QueueAttributeName::MessageRetentionPeriod;
        let answer = call.attribute_names(name.clone()).send().await.ok()?;
        let seconds = answer.attributes()?.get(&name)?.parse().ok()?;
        Some(Duration::from_secs(seconds))
    }
}

fn parse_redrive(json: &str) -> Option<Redrive> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Policy {
        dead_letter_target_arn: String,
        max_receive_count: Count,
    }
    // A number, or a string with one: SQS takes both, and gives back what came.
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Count {
        Number(u32),
        Text(String),
    }
    let policy: Policy = serde_json::from_str(json).ok()?;
    let max_receive_count = match policy.max_receive_count {
        Count::Number(count) => count,
        Count::Text(text) => text.parse().ok()?,
    };
    Some(Redrive { target_arn: policy.dead_letter_target_arn, max_receive_count })
}

/// Account and queue name of `arn:aws:sqs:region:account:name`.
fn arn_parts(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.splitn(6, ':').skip(4);
    Some((parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redrive_policy_is_read_with_its_count_as_number_or_text() {
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

    #[test]
    fn an_arn_names_account_and_queue() {
        assert_eq!(arn_parts("arn:aws:sqs:eu-1:42:jobs-dlq"), Some(("42", "jobs-dlq")));
        assert_eq!(arn_parts("arn:aws:sqs"), None);
    }
}
