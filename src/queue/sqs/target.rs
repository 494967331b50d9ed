//! Where copies of messages go: the queue that is configured, or else the redrive policy's target, as that is now.

use aws_sdk_sqs::types::QueueAttributeName;
use tokio::sync::Mutex;
use tracing::{error, info, warn};

use super::convert::fifo_name;
use super::error::{DEAD_LETTER_URL, GET_ATTRIBUTES, queue_error};
use super::{QueueFacts, SqsQueue};
use crate::queue::{QueueError, QueueErrorKind};

/// A dead-letter queue.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub(super) url: String,
    pub(super) fifo: bool,
}

impl Target {
    fn new(url: String) -> Self {
        let fifo = fifo_name(&url);
        Self { url, fifo }
    }
}

/// What SQS has said of it, if it was asked yet.
#[derive(Debug, Default)]
pub(super) struct Known(Mutex<Option<Found>>);

#[derive(Debug)]
struct Found {
    /// What the redrive policy names; `None` where it names nothing, or does not count.
    arn: Option<String>,
    /// `None` where there is no such queue, or where it is the queue itself.
    target: Option<Target>,
    /// Whether SQS has answered all that it was asked for this, be it that the role may not know.
    is_certain: bool,
}

impl SqsQueue {
    /// Where poison goes, for a person to read: the URL, or `None` where there is no such place.
    pub async fn dead_letter_url(&self) -> Result<Option<String>, QueueError> {
        Ok(self.target().await?.map(|target| target.url))
    }

    /// Only an answer is remembered. What fails may pass (credentials that are not there yet), and is asked again the next time.
    pub(super) async fn target(&self) -> Result<Option<Target>, QueueError> {
        let mut known = self.dlq.0.lock().await;
        if let Some(found) = &*known {
            return Ok(found.target.clone());
        }
        let found = self.find().await?;
        let target = found.target.clone();
        *known = Some(found).filter(|found| found.is_certain);
        Ok(target)
    }

    /// Looks for the target again when it is needed next, where the redrive policy names another one than it did.
    pub(super) async fn follow(&self, facts: &QueueFacts) {
        if self.settings.dlq_url.is_some() {
            return;
        }
        let mut known = self.dlq.0.lock().await;
        let Some(found) = &*known else { return };
        let (before, now) =
            (found.arn.as_deref(), facts.redrive.as_ref().map(|to| &*to.target_arn));
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

    /// The target is gone: another one may be named meanwhile.
    pub(super) async fn forget_target(&self) {
        if self.settings.dlq_url.is_none() {
            *self.dlq.0.lock().await = None;
        }
    }

    /// The queue itself is no target: a copy would come back and be copied again, without end.
    async fn find(&self) -> Result<Found, QueueError> {
        if let Some(url) = &self.settings.dlq_url {
            let target = Target::new(url.clone());
            let is_itself = self.is_the_queue(&target).await;
            let is_other = !matches!(is_itself, Ok(true));
            let target = is_other.then_some(target);
            return Ok(Found { arn: None, target, is_certain: is_itself.is_ok() });
        }
        let facts = self.facts().await?;
        let arn = facts.redrive.map(|redrive| redrive.target_arn);
        let target = match &arn {
            Some(named) if facts.arn.as_ref() != Some(named) => self.named(named).await?,
            Some(_) | None => None,
        };
        Ok(Found { arn, target, is_certain: true })
    }

    async fn named(&self, arn: &str) -> Result<Option<Target>, QueueError> {
        let Some((account, name)) = arn_parts(arn) else { return Ok(None) };
        let call = self.client.get_queue_url().queue_name(name);
        let answer = call
            .queue_owner_aws_account_id(account)
            .send()
            .await
            .map_err(|error| queue_error(&error, DEAD_LETTER_URL))?;
        Ok(answer.queue_url.map(Target::new))
    }

    /// Whether a dead-letter queue is the queue itself, by its ARN. Where the role may not read one of them, their URLs were
    /// compared, and that must do; where they could not be read for another reason, as until then.
    async fn is_the_queue(&self, target: &Target) -> Result<bool, QueueError> {
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

    /// `None` where the role may not read it.
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

/// Account and queue name of `arn:aws:sqs:region:account:name`.
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
