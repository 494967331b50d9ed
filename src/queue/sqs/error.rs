//! What the SDK's errors mean to the engine.
//!
//! The codes are those of the SQS API reference ("Common Errors", and each action's own).

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{DisplayErrorContext, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::BatchResultErrorEntry;

use crate::queue::{EntryError, QueueError, QueueErrorKind};

/// Longest text taken over from an error, in characters.
const DETAIL_CHARS_MAX: usize = 300;

/// What the worker's role must be allowed for a call: the action, by the name that a policy has for it (batches have
/// the single action's), and what is done with a key where the queue is encrypted with one (SQS developer guide, "Key management").
#[derive(Clone, Copy)]
pub(super) struct Needs {
    action: &'static str,
    key: &'static str,
}

pub(super) const RECEIVE: Needs =
    Needs { action: "sqs:ReceiveMessage on the queue", key: "kms:Decrypt on the queue's key" };
pub(super) const DELETE: Needs = Needs { action: "sqs:DeleteMessage on the queue", ..RECEIVE };
pub(super) const CHANGE_VISIBILITY: Needs =
    Needs { action: "sqs:ChangeMessageVisibility on the queue", ..RECEIVE };
pub(super) const GET_ATTRIBUTES: Needs =
    Needs { action: "sqs:GetQueueAttributes on the queue", ..RECEIVE };
pub(super) const DEAD_LETTER: Needs = Needs {
    action: "sqs:SendMessage on the dead-letter queue",
    key: "kms:GenerateDataKey and kms:Decrypt on the dead-letter queue's key",
};
pub(super) const DEAD_LETTER_URL: Needs =
    Needs { action: "sqs:GetQueueUrl on the dead-letter queue", ..DEAD_LETTER };

impl Needs {
    /// What to allow, where the refusal is about permissions.
    fn missing(self, code: &str) -> Option<&'static str> {
        match code {
            "AccessDenied" | "AccessDeniedException" | "NotAuthorized" => Some(self.action),
            "KmsAccessDenied" | "KMS.AccessDeniedException" => Some(self.key),
            _ => None,
        }
    }
}

/// Reads an SDK error of a call that `needs` this.
pub(super) fn queue_error<E>(error: &SdkError<E, HttpResponse>, needs: Needs) -> QueueError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let (kind, detail) = match error {
        SdkError::TimeoutError(_) => (QueueErrorKind::Timeout, "no answer in time".to_owned()),
        SdkError::ServiceError(answer) => {
            let code = answer.err().code().unwrap_or("no error code");
            let message = answer.err().message().unwrap_or("no message");
            let kind = kind_of(code, answer.raw().status().as_u16());
            // First, so that it is not cut off.
            let allow =
                needs.missing(code).map(|what| format!("the role must be allowed {what}; "));
            (kind, format!("{}{code}: {message}", allow.unwrap_or_default()))
        }
        SdkError::DispatchFailure(failure) => {
            let kind = if has_credentials_error(error) {
                QueueErrorKind::Denied
            } else if failure.is_timeout() {
                QueueErrorKind::Timeout
            } else {
                QueueErrorKind::Network
            };
            (kind, DisplayErrorContext(error).to_string())
        }
        SdkError::ConstructionFailure(_) => {
            let denied = has_credentials_error(error);
            let kind = if denied { QueueErrorKind::Denied } else { QueueErrorKind::Refused };
            (kind, DisplayErrorContext(error).to_string())
        }
        // An answer that cannot be read did not come from SQS whole.
        SdkError::ResponseError(_) | _ => {
            (QueueErrorKind::Network, DisplayErrorContext(error).to_string())
        }
    };
    QueueError { kind, detail: shorten(&detail) }
}

fn kind_of(code: &str, status: u16) -> QueueErrorKind {
    match code {
        "ThrottlingException"
        | "Throttling"
        | "RequestThrottled"
        | "TooManyRequestsException"
        | "RequestLimitExceeded"
        | "SlowDown"
        | "OverLimit"
        | "KmsThrottled"
        | "KMS.ThrottlingException"
        | "AWS.SimpleQueueService.OverLimit" => QueueErrorKind::Throttled,
        "AccessDenied"
        | "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "SignatureDoesNotMatch"
        | "InvalidSignatureException"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "RequestExpired"
        | "KmsAccessDenied"
        | "KMS.AccessDeniedException"
        | "InvalidSecurity"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "NotAuthorized"
        | "OptInRequired" => QueueErrorKind::Denied,
        "QueueDoesNotExist"
        | "AWS.SimpleQueueService.NonExistentQueue"
        | "InvalidAddress"
        | "QueueDeletedRecently" => QueueErrorKind::NoSuchQueue,
        _ if status == 429 => QueueErrorKind::Throttled,
        _ if status == 403 => QueueErrorKind::Denied,
        _ if (400..500).contains(&status) => QueueErrorKind::Refused,
        _ => QueueErrorKind::Other,
    }
}

fn has_credentials_error(error: &(dyn Error + 'static)) -> bool {
    let mut source = Some(error);
    while let Some(error) = source {
        if error.is::<CredentialsError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The answers of a batch in the order of its entries. Ids are positions. An entry that the answer
/// does not name at all is worth another try.
pub(super) fn entry_answers<'a>(
    entries: usize,
    done: impl Iterator<Item = &'a str>,
    failed: &[BatchResultErrorEntry],
) -> Vec<Result<(), EntryError>> {
    let unnamed = || Err(EntryError::Retry("the answer does not name this entry".to_owned()));
    let mut answers: Vec<_> = (0..entries).map(|_| unnamed()).collect();
    for id in done {
        if let Some(answer) = id.parse::<usize>().ok().and_then(|at| answers.get_mut(at)) {
            *answer = Ok(());
        }
    }
    for entry in failed {
        if let Some(answer) = entry.id().parse::<usize>().ok().and_then(|at| answers.get_mut(at)) {
            *answer = Err(entry_error(entry));
        }
    }
    answers
}

fn entry_error(entry: &BatchResultErrorEntry) -> EntryError {
    let text = shorten(&format!("{}: {}", entry.code(), entry.message().unwrap_or("no message")));
    match entry.code() {
        "ReceiptHandleIsInvalid"
        | "MessageNotInflight"
        | "AWS.SimpleQueueService.MessageNotInflight"
        // "The receipt handle has expired."
        | "InvalidParameterValue"
        | "InvalidParameterValueException" => EntryError::Lost(text),
        _ => EntryError::Retry(text),
    }
}

fn shorten(text: &str) -> String {
    text.chars().take(DETAIL_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_that_calls_for_an_answer_of_its_own_is_known() {
        for (code, status, kind) in [
            ("ThrottlingException", 400, QueueErrorKind::Throttled),
            ("RequestThrottled", 403, QueueErrorKind::Throttled),
            ("OverLimit", 403, QueueErrorKind::Throttled),
            ("KmsThrottled", 400, QueueErrorKind::Throttled),
            ("AccessDeniedException", 400, QueueErrorKind::Denied),
            ("AccessDenied", 403, QueueErrorKind::Denied),
            ("ExpiredToken", 403, QueueErrorKind::Denied),
            ("UnrecognizedClientException", 400, QueueErrorKind::Denied),
            ("KmsAccessDenied", 400, QueueErrorKind::Denied),
            ("KMS.AccessDeniedException", 400, QueueErrorKind::Denied),
            ("KMS.ThrottlingException", 400, QueueErrorKind::Throttled),
            ("QueueDoesNotExist", 400, QueueErrorKind::NoSuchQueue),
            ("AWS.SimpleQueueService.NonExistentQueue", 400, QueueErrorKind::NoSuchQueue),
            ("InvalidAddress", 404, QueueErrorKind::NoSuchQueue),
            ("InvalidMessageContents", 400, QueueErrorKind::Refused),
            ("no error code", 429, QueueErrorKind::Throttled),
            ("no error code", 403, QueueErrorKind::Denied),
            ("InternalFailure", 500, QueueErrorKind::Other),
            ("ServiceUnavailable", 503, QueueErrorKind::Other),
        ] {
            assert_eq!(kind_of(code, status), kind, "{code} {status}");
        }
    }

    fn failed(id: &str, code: &str, sender_fault: bool) -> BatchResultErrorEntry {
        BatchResultErrorEntry::builder()
            .id(id)
            .code(code)
            .sender_fault(sender_fault)
            .build()
            .expect("complete")
    }

    #[test]
    fn batch_answers_are_read_entry_by_entry() {
        let failed =
            [failed("1", "ReceiptHandleIsInvalid", true), failed("3", "InternalError", false)];
        let answers = entry_answers(5, ["0", "2", "7", "x"].into_iter(), &failed);
        assert_eq!(answers[0], Ok(()));
        assert!(matches!(answers[1], Err(EntryError::Lost(_))));
        assert_eq!(answers[2], Ok(()));
        assert!(matches!(answers[3], Err(EntryError::Retry(_))));
        assert!(matches!(answers[4], Err(EntryError::Retry(_))), "named by nobody");
    }

    #[test]
    fn a_handle_that_expired_is_lost_and_a_throttled_entry_is_not() {
        for (code, lost) in [
            ("MessageNotInflight", true),
            ("InvalidParameterValue", true),
            ("ThrottlingException", false),
            ("SomethingNew", false),
        ] {
            let answers = entry_answers(1, [].into_iter(), &[failed("0", code, true)]);
            assert_eq!(matches!(answers[0], Err(EntryError::Lost(_))), lost, "{code}");
        }
    }
}
