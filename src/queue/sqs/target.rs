//! The dead-letter target: the configured queue, or else the current target of the redrive policy.

use aws_sdk_sqs::types::QueueAttributeName;
use tokio::sync::Mutex;
use tracing::{error, info, warn};

use super::convert::fifo_name;
use super::error::{DEAD_LETTER_URL, GET_ATTRIBUTES, queue_error};
use super::{QueueAttributes, SqsQueue};
use crate::queue::{QueueError, QueueErrorKind};

/// A dead-letter queue.
#[derive(Clone, Debug)]
pub(super) struct DeadLetterTarget {
    pub(super) url: String,
    pub(super) fifo: bool,
}

impl DeadLetterTarget {
    fn new(url: String) -> Self {
        let fifo = fifo_name(&url);
        Self { url, fifo }
    }
}

/// The cached target, if it was looked up.
#[derive(Debug, Default)]
pub(super) struct KnownTarget(Mutex<Option<FoundTarget>>);

#[derive(Debug)]
struct FoundTarget {
    /// The ARN in the redrive policy. `None` if there is none, or if `SQS_DLQ_URL` is set.
    arn: Option<String>,
    /// `None` if there is no dead-letter queue, or if it is the queue itself.
    target: Option<DeadLetterTarget>,
    /// Whether all lookups were answered. A denied read counts as an answer.
    is_certain: bool,
}

impl SqsQueue {
    /// Returns the URL of the dead-letter queue, or `None` if there is none. For logs and reports.
    ///
    /// # Errors
    /// If it could not be looked up.
    pub async fn dead_letter_url(&self) -> Result<Option<String>, QueueError> {
        Ok(self.target().await?.map(|target| target.url))
    }

    /// Returns the target, cached after a complete lookup. A failure may be temporary (credentials
    /// that are not there yet), so the next call looks it up again.
    pub(super) async fn target(&self) -> Result<Option<DeadLetterTarget>, QueueError> {
        let mut known = self.dlq.0.lock().await;
        if let Some(found) = &*known {
            return Ok(found.target.clone());
        }
        let found = self.find().await?;
        let target = found.target.clone();
        *known = Some(found).filter(|found| found.is_certain);
        Ok(target)
    }

    /// Clears the cached target if the redrive policy names another one.
    pub(super) async fn follow(&self, attributes: &QueueAttributes) {
        if self.settings.dlq_url.is_some() {
            return;
        }
        let mut known = self.dlq.0.lock().await;
        let Some(found) = &*known else { return };
        let (before, now) =
            (found.arn.as_deref(), attributes.redrive.as_ref().map(|to| &*to.target_arn));
        if before == now {
            return;
        }
        match now {
            Some(now) => {
                info!(
                    before,
                    now, "The queue's redrive policy names a dead-letter queue that it did not"
                );
            }
            None => {
                warn!(before, "The queue has no redrive policy any more: poison is never deleted");
            }
        }
        *known = None;
    }

    /// Clears the cached target after SQS reported it missing: the policy may name another one now.
    pub(super) async fn forget_target(&self) {
        if self.settings.dlq_url.is_none() {
            *self.dlq.0.lock().await = None;
        }
    }

    /// Looks up the target. The queue itself is excluded: a copy would return and be copied again,
    /// endlessly.
    async fn find(&self) -> Result<FoundTarget, QueueError> {
        if let Some(url) = &self.settings.dlq_url {
            let target = DeadLetterTarget::new(url.clone());
            let is_itself = self.is_the_queue(&target).await;
            let is_other = !matches!(is_itself, Ok(true));
            let target = is_other.then_some(target);
            return Ok(FoundTarget { arn: None, target, is_certain: is_itself.is_ok() });
        }
        let attributes = self.attributes().await?;
        let arn = attributes.redrive.map(|redrive| redrive.target_arn);
        let target = match &arn {
            Some(named) if attributes.arn.as_ref() != Some(named) => self.named(named).await?,
            Some(_) | None => None,
        };
        Ok(FoundTarget { arn, target, is_certain: true })
    }

    async fn named(&self, arn: &str) -> Result<Option<DeadLetterTarget>, QueueError> {
        let Some((account, name)) = arn_parts(arn) else { return Ok(None) };
        let call = self.client.get_queue_url().queue_name(name);
        let answer = call
            .queue_owner_aws_account_id(account)
            .send()
            .await
            .map_err(|error| queue_error(&error, DEAD_LETTER_URL))?;
        Ok(answer.queue_url.map(DeadLetterTarget::new))
    }

    /// Whether a dead-letter queue is the queue itself, by ARN.
    /// If the role may not read one of the ARNs, the earlier comparison of the URLs is sufficient.
    /// Other errors are returned; the caller then uses the target but does not cache it.
    async fn is_the_queue(&self, target: &DeadLetterTarget) -> Result<bool, QueueError> {
        let (of_queue, of_target) =
            tokio::join!(self.arn(&self.settings.queue_url), self.arn(&target.url));
        let (of_queue, of_target) = (of_queue?, of_target?);
        let is_itself = of_queue.is_some() && of_queue == of_target;
        if is_itself {
            error!(
                queue = self.settings.queue_url,
                dlq = target.url,
                "SQS_DLQ_URL is the queue itself: nothing is copied there, and poison is left to the queue's redrive policy"
            );
        }
        Ok(is_itself)
    }

    /// Returns a queue's ARN, or `None` if the role may not read it.
    async fn arn(&self, url: &str) -> Result<Option<String>, QueueError> {
        let name = QueueAttributeName::QueueArn;
        let call = self.client.get_queue_attributes().queue_url(url).attribute_names(name.clone());
        match call.send().await.map_err(|error| queue_error(&error, GET_ATTRIBUTES)) {
            Ok(answer) => Ok(answer.attributes().and_then(|all| all.get(&name)).cloned()),
            Err(refused) if refused.kind == QueueErrorKind::Denied => Ok(None),
            Err(failed) => Err(failed),
        }
    }
}

/// Splits account and queue name from `arn:aws:sqs:region:account:name`.
fn arn_parts(arn: &str) -> Option<(&str, &str)> {
    let mut parts = arn.splitn(6, ':').skip(4);
    Some((parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_names_account_and_queue() {
        assert_eq!(arn_parts("arn:aws:sqs:eu-1:42:jobs-dlq"), Some(("42", "jobs-dlq")));
        assert_eq!(arn_parts("arn:aws:sqs"), None);
    }
}
