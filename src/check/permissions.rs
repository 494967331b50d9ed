//! Checks the permissions of the worker's role on its queues, with calls that change nothing.
//!
//! A permission that only the action itself can show is reported as unknown.

use super::Finding;
use crate::metrics::QueueAction;
use crate::queue::sqs::SqsQueue;
use crate::queue::{Permission, Queue, QueueError, QueueErrorKind};

/// Returns one finding for each action.
pub(super) async fn permissions(
    queue: &SqsQueue,
    attributes: Result<(), &QueueError>,
) -> Vec<Finding> {
    let dead_letters = queue.dead_letter_url().await;
    let mut findings = Vec::new();
    for action in QueueAction::ALL {
        findings.push(match action {
            QueueAction::Receive | QueueAction::Extend | QueueAction::Delete => {
                judge(action, "the queue", queue.probe(action).await)
            }
            QueueAction::Attributes => about_attributes(attributes),
            QueueAction::DeadLetter => match &dead_letters {
                Ok(Some(_)) => judge(action, "the dead-letter queue", queue.probe(action).await),
                Ok(None) | Err(_) => Finding::Unknown(
                    "sqs:SendMessage: cannot be asked, as no dead-letter queue is known".to_owned(),
                ),
            },
        });
    }
    findings
}

/// Other details are in the finding about the queue itself.
fn about_attributes(answer: Result<(), &QueueError>) -> Finding {
    let what = "sqs:GetQueueAttributes on the queue";
    match answer {
        Ok(()) => Finding::Ok(format!("{what}: allowed")),
        Err(why) if why.kind == QueueErrorKind::Denied => Finding::Wrong(format!("{what}: denied")),
        Err(_) => Finding::Unknown(format!("{what}: cannot be asked now")),
    }
}

fn judge(action: QueueAction, on: &str, answer: Result<Permission, QueueError>) -> Finding {
    let what = format!("sqs:{} on {on}", action.api_name());
    match answer {
        Ok(Permission::Allowed) => Finding::Ok(format!("{what}: allowed")),
        Ok(Permission::CannotBeAsked) => {
            Finding::Unknown(format!("{what}: cannot be asked, {}", why_not(action)))
        }
        Err(why) if why.kind == QueueErrorKind::Denied => {
            Finding::Wrong(format!("{what}: denied ({why}); {}", consequence(action)))
        }
        Err(why) => Finding::Unknown(format!("{what}: cannot be asked now ({why})")),
    }
}

fn why_not(action: QueueAction) -> &'static str {
    match action {
        QueueAction::Receive => "as that takes a message, and spends one of its receives",
        QueueAction::DeadLetter => {
            "as that sends a message; it is not denied as far as a batch without entries shows"
        }
        QueueAction::Extend | QueueAction::Delete | QueueAction::Attributes => {
            "by this implementation of SQS"
        }
    }
}

/// Returns the effect of a missing permission.
fn consequence(action: QueueAction) -> &'static str {
    match action {
        QueueAction::Receive => "nothing is received without it",
        QueueAction::Extend => {
            "without it few messages are taken at a time, each for fifteen minutes or more, and none is handed back early"
        }
        QueueAction::Delete => "without it nothing is received, as nothing could be deleted",
        QueueAction::DeadLetter => {
            "without it poison is left to the queue's redrive policy, spaced out"
        }
        QueueAction::Attributes => "without it the dead-letter queue is known by SQS_DLQ_URL only",
    }
}
