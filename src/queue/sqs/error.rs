//! Maps the SDK's errors to the engine's.
//!
//! The codes are those of the SQS API reference ("Common Errors", and each action's own).

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_sqs::config::http::HttpResponse;
use aws_sdk_sqs::error::{ErrorMetadata, ProvideErrorMetadata, SdkError};
use aws_sdk_sqs::types::BatchResultErrorEntry;

use super::http::NoRoots;
use crate::queue::{EntryError, QueueError, QueueErrorKind};

/// Maximum length of an error detail, in characters.
const DETAIL_CHARS_MAX: usize = 500;

/// The permissions that a call needs. `action` is the name of the IAM action; a batch needs that of
/// the single action. `key` is needed if the queue is encrypted with a KMS key (SQS developer
/// guide, "Key management").
#[derive(Clone, Copy)]
pub(super) struct Needs {
    action: &'static str,
    key: &'static str,
    /// The queue, as named in the error.
    on: &'static str,
}

/// The source queue's name in errors.
pub(super) const QUEUE: &str = "the queue";

/// The dead-letter queue's name in errors.
pub(super) const DEAD_LETTER_QUEUE: &str = "the dead-letter queue";

/// The permissions of a key that sending needs.
const KEY_TO_SEND: &str = "kms:GenerateDataKey and kms:Decrypt";

pub(super) const RECEIVE: Needs =
    Needs { action: "sqs:ReceiveMessage", key: "kms:Decrypt", on: QUEUE };
pub(super) const DELETE: Needs = Needs { action: "sqs:DeleteMessage", ..RECEIVE };
pub(super) const CHANGE_VISIBILITY: Needs =
    Needs { action: "sqs:ChangeMessageVisibility", ..RECEIVE };
pub(super) const GET_ATTRIBUTES: Needs = Needs { action: "sqs:GetQueueAttributes", ..RECEIVE };
pub(super) const REDRIVE: Needs = Needs { action: "sqs:SendMessage", key: KEY_TO_SEND, on: QUEUE };
pub(super) const DEAD_LETTER: Needs = Needs { on: DEAD_LETTER_QUEUE, ..REDRIVE };
pub(super) const DEAD_LETTER_URL: Needs = Needs { action: "sqs:GetQueueUrl", ..DEAD_LETTER };

impl Needs {
    /// Returns the permissions of the same call on the queue with this name.
    pub(super) const fn on(self, name: &'static str) -> Self {
        Self { on: name, ..self }
    }

    /// Returns the missing permission, if `code` is about permissions.
    fn missing(self, code: &str) -> Option<String> {
        match code {
            "AccessDenied" | "AccessDeniedException" | "NotAuthorized" => {
                Some(format!("{} on {}", self.action, self.on))
            }
            "KmsAccessDenied" | "KMS.AccessDeniedException" => {
                Some(format!("{} on {}'s key", self.key, self.on))
            }
            _ => None,
        }
    }
}

/// Describes an answer to a send that names no message: a proxy's, or an emulator's.
pub(super) fn no_message_id() -> QueueError {
    let detail = "the answer to the send has no message id: it is not SQS's".to_owned();
    QueueError { kind: QueueErrorKind::Other, detail }
}

/// Converts the SDK error of a call that requires the permissions `needs`.
pub(super) fn queue_error<E>(error: &SdkError<E, HttpResponse>, needs: Needs) -> QueueError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
{
    let (kind, detail) = match error {
        SdkError::TimeoutError(_) => (QueueErrorKind::Timeout, "no answer in time".to_owned()),
        SdkError::ServiceError(answer) => match answer.err().code() {
            Some(code) => {
                let message = answer.err().message().unwrap_or("no message");
                let kind = kind_of(code, answer.raw().status().as_u16());
                // At the front, so that `shorten` does not cut it off.
                let allow =
                    needs.missing(code).map(|what| format!("the role must be allowed {what}; "));
                (kind, format!("{}{code}: {message}", allow.unwrap_or_default()))
            }
            None => not_of_sqs(answer.raw()),
        },
        SdkError::ResponseError(answer) => not_of_sqs(answer.raw()),
        SdkError::DispatchFailure(failure) => {
            let kind = if has::<CredentialsError>(error) {
                QueueErrorKind::Denied
            } else if failure.is_timeout() {
                QueueErrorKind::Timeout
            } else {
                QueueErrorKind::Network
            };
            (kind, explained(error))
        }
        SdkError::ConstructionFailure(_) => {
            let denied = has::<CredentialsError>(error);
            let kind = if denied { QueueErrorKind::Denied } else { QueueErrorKind::Refused };
            (kind, explained(error))
        }
        _ => (QueueErrorKind::Network, explained(error)),
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
        | "KmsDisabled"
        | "KMS.DisabledException"
        | "KmsInvalidKeyUsage"
        | "KMS.InvalidKeyUsageException"
        | "KmsInvalidState"
        | "KMS.InvalidStateException"
        | "KMS.KMSInvalidStateException"
        | "KmsNotFound"
        | "KMS.NotFoundException"
        | "KmsOptInRequired"
        | "KMS.OptInRequired"
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

/// Explains an answer without an SQS error code, or one that is not SQS's: its sender and likely
/// cause.
fn not_of_sqs(answer: &HttpResponse) -> (QueueErrorKind, String) {
    let status = answer.status().as_u16();
    let media_type = answer.headers().get("content-type").unwrap_or("no content type");
    let media_type = media_type.split(';').next().unwrap_or_default();
    let body = answer.body().bytes().unwrap_or_default().trim_ascii_start();
    let what = if body.starts_with(b"<?xml") || media_type.ends_with("/xml") {
        "XML, as servers of SQS's older protocol speak it: a newer LocalStack (3), ElasticMQ (1.5) or moto (5) speaks JSON; or the address is another service's"
    } else if media_type == "text/html" {
        "a web page: a proxy, a gateway or another server is at this address"
    } else if body.is_empty() {
        "nothing of SQS's: a proxy, a load balancer or another server is at this address"
    } else {
        "not what SQS says: another server is at this address"
    };
    let kind = match status {
        429 => QueueErrorKind::Throttled,
        500.. => QueueErrorKind::Other,
        _ => QueueErrorKind::Network,
    };
    (
        kind,
        format!(
            "the answer is HTTP {status} ({media_type}), {what}; check AWS_ENDPOINT_URL, SQS_QUEUE_URL and HTTPS_PROXY"
        ),
    )
}

/// Iterates over an error and its causes, the outermost first.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| {
        // The source of an I/O error skips the error inside it and returns that error's cause.
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        inside.map(|inside| inside as &(dyn Error + 'static)).or_else(|| error.source())
    })
}

fn has<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|error| error.is::<T>())
}

/// Returns why a call was not made, as text for the operator.
fn explained(error: &(dyn Error + 'static)) -> String {
    let own = chain(error).find(|error| error.is::<CredentialsFailure>() || error.is::<NoRoots>());
    if let Some(own) = own {
        return own.to_string();
    }
    let untrusted = chain(error).any(|error| {
        matches!(
            error.downcast_ref(),
            Some(rustls::Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer))
        )
    });
    let text = words(error);
    if untrusted {
        return format!(
            "{text}: the certificate comes from an authority that this machine does not trust; where that is right (a private one, or a proxy that opens TLS), SSL_CERT_FILE must name a PEM file that holds it, and all others that are needed"
        );
    }
    text
}

/// Returns the text of one error. The SDK would show a service's answer as its own debug type.
fn said_by(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref::<ErrorMetadata>() {
        Some(answer) => {
            let code = answer.code().unwrap_or("no error code");
            format!("{code}: {}", answer.message().unwrap_or("no message"))
        }
        None => error.to_string(),
    }
}

/// Joins the texts of an error and its causes, each once, without the SDK's generic texts.
pub(super) fn words(error: &(dyn Error + 'static)) -> String {
    const FRAMES: [&str; 9] = [
        "dispatch failure",
        "failed to construct request",
        "other",
        "io error",
        "service error",
        "unhandled error",
        "client error (Connect)",
        "an error occurred while loading credentials",
        "the credential provider was not enabled",
    ];
    let mut said: Vec<String> = Vec::new();
    for text in chain(error).map(said_by) {
        let is_frame = text.is_empty()
            || FRAMES.contains(&text.as_str())
            || text.starts_with("unhandled error (");
        if !is_frame && !said.iter().any(|known| known.contains(&text)) {
            said.push(text);
        }
    }
    if said.is_empty() { error.to_string() } else { said.join(": ") }
}

/// Returns the answers of a batch in the order of its entries. The ids are positions. An entry that
/// the answer does not name is retried.
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
        // Text of this error: "The receipt handle has expired."
        | "InvalidParameterValue"
        | "InvalidParameterValueException" => EntryError::Lost(text),
        _ => EntryError::Retry(text),
    }
}

pub(super) fn shorten(text: &str) -> String {
    text.chars().take(DETAIL_CHARS_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Returns the message of a panic.
pub(super) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("it broke off").to_owned()
}

/// Why there are no credentials, as text for the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct CredentialsFailure(pub(super) String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_code_has_its_kind() {
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
            ("KmsDisabled", 400, QueueErrorKind::Denied),
            ("KmsInvalidState", 400, QueueErrorKind::Denied),
            ("KMS.NotFoundException", 400, QueueErrorKind::Denied),
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
        assert!(
            matches!(answers[4], Err(EntryError::Retry(_))),
            "an entry that is missing in the answer"
        );
    }

    #[test]
    fn an_expired_receipt_is_lost_and_a_throttled_entry_is_retried() {
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
