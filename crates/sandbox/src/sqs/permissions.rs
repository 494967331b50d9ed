//! What callers may do: everything, or what a policy grants them, as IAM has it for SQS. Conditions, denials and wildcards
//! are not known; who the caller is makes no difference.

use super::action::Action;
use super::error::{ErrorCode, SqsError};
use super::settings::{queue_arn, queue_name};

/// One action on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// `sqs:ReceiveMessage` and its like; it covers the batch of the same name too.
    pub action: String,
    /// A queue's ARN.
    pub resource: String,
}

/// What was granted; everything, until something was.
#[derive(Debug, Default)]
pub(crate) struct Permissions(Option<Vec<Grant>>);

impl Permissions {
    pub(crate) fn only(&mut self, grants: Vec<Grant>) {
        self.0 = Some(grants);
    }

    /// Whether an action may be done on a queue, named by its URL or name.
    ///
    /// # Errors
    /// `AccessDenied`, worded as SQS does it.
    pub(crate) fn check(&self, action: Action, queue: Option<&str>) -> Result<(), SqsError> {
        let Some(grants) = &self.0 else { return Ok(()) };
        // "Actions, resources, and condition keys for Amazon SQS": batches have no actions of their own.
        let name = action.name().trim_end_matches("Batch");
        let resource = queue.map_or_else(|| "*".to_owned(), |url| queue_arn(queue_name(url)));
        let covers = |grant: &Grant| {
            grant.action.strip_prefix("sqs:") == Some(name) && grant.resource == resource
        };
        if grants.iter().any(covers) {
            return Ok(());
        }
        Err(SqsError::new(ErrorCode::AccessDenied, denial(action, queue)))
    }
}

/// What is said where an action may not be done.
pub(crate) fn denial(action: Action, queue: Option<&str>) -> String {
    let name = action.name().trim_end_matches("Batch").to_ascii_lowercase();
    let resource = queue.map_or_else(|| "*".to_owned(), |url| queue_arn(queue_name(url)));
    format!(
        "User: arn:aws:sts::000000000000:assumed-role/worker/session is not authorized to perform: sqs:{name} on resource: {resource} because no identity-based policy allows the sqs:{name} action"
    )
}
