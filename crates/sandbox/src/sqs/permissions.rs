//! The permissions of callers: everything, or the grants of an IAM policy. Conditions, denials and
//! wildcards are not supported, and all callers have the same permissions.

use super::action::Action;
use super::error::{ErrorCode, SqsError};
use super::settings::{queue_arn, queue_name};

/// A permission: one action on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The action, such as `sqs:ReceiveMessage`; it includes the batch of the same name.
    pub action: String,
    /// The ARN of a queue.
    pub resource: String,
}

/// The grants; `None` allows everything.
#[derive(Debug, Default)]
pub(crate) struct Permissions(Option<Vec<Grant>>);

impl Permissions {
    pub(crate) fn only(&mut self, grants: Vec<Grant>) {
        self.0 = Some(grants);
    }

    /// Checks whether an action on a queue, given by URL or name, is allowed.
    ///
    /// # Errors
    /// `AccessDenied` with the wording of SQS.
    pub(crate) fn check(&self, action: Action, queue: Option<&str>) -> Result<(), SqsError> {
        let Some(grants) = &self.0 else { return Ok(()) };
        // Batches have no permissions of their own: "Actions, resources, and condition keys for
        // Amazon SQS".
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

/// Returns the error text for a denied action.
pub(crate) fn denial(action: Action, queue: Option<&str>) -> String {
    let name = action.name().trim_end_matches("Batch").to_ascii_lowercase();
    let resource = queue.map_or_else(|| "*".to_owned(), |url| queue_arn(queue_name(url)));
    format!(
        "User: arn:aws:sts::000000000000:assumed-role/worker/session is not authorized to perform: sqs:{name} on resource: {resource} because no identity-based policy allows the sqs:{name} action"
    )
}
