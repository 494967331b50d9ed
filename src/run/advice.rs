//! Advice about the queue's settings, for the log at the start and for `check`.

use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use crate::queue::sqs::{QueueAttributes, SqsQueue};

/// The `maxReceiveCount` below which the worker warns.
///
/// Each crash, rollout and early return of a message uses one receive.
const RECEIVES_WISE_MIN: u32 = 10;

/// Logs advice about the queue at startup, and finds the dead-letter queue before the first poison.
///
/// Polling does not wait for this.
pub(super) async fn advise(queue: Arc<SqsQueue>, has_dlq_url: bool) {
    match queue.attributes().await {
        Ok(attributes) => {
            let dlq_retention = queue.dead_letter_retention().await;
            advice(&attributes, has_dlq_url, dlq_retention).iter().for_each(|line| warn!("{line}"));
        }
        Err(error) => warn!(error = %error, "The queue's attributes could not be read"),
    }
    if let Err(error) = queue.dead_letter_url().await {
        warn!(error = %error, "The dead-letter queue could not be found yet");
    }
}

/// Returns warnings about unwise settings of a queue, one line each.
#[must_use]
pub fn advice(
    attributes: &QueueAttributes,
    has_dlq_url: bool,
    dlq_retention: Option<Duration>,
) -> Vec<String> {
    let mut lines = Vec::new();
    match &attributes.redrive {
        None if !has_dlq_url => lines.push(
            "The queue has no dead-letter queue: poison is never deleted and comes back until its retention ends; set a redrive policy, or SQS_DLQ_URL".to_owned(),
        ),
        Some(redrive) if redrive.max_receive_count < RECEIVES_WISE_MIN => lines.push(format!(
            "The queue's maxReceiveCount is {}: each crash, roll-out and hand-back spends a receive; {RECEIVES_WISE_MIN} or more is wise",
            redrive.max_receive_count
        )),
        None | Some(_) => {}
    }
    if let Some(kept) = dlq_retention
        && kept < attributes.retention
    {
        lines.push(format!(
            "The dead-letter queue keeps messages for {} s, the queue for {} s: a message that SQS moves keeps its age, and may be gone before anybody looks; the dead-letter queue's retention should be the longer one",
            kept.as_secs(),
            attributes.retention.as_secs()
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::sqs::Redrive;

    const DAY: Duration = Duration::from_secs(86_400);

    fn attributes(max_receive_count: Option<u32>) -> QueueAttributes {
        QueueAttributes {
            arn: None,
            message_bytes_max: 1_048_576,
            visibility: Duration::from_secs(30),
            retention: 4 * DAY,
            visible: 0,
            in_flight: 0,
            redrive: max_receive_count.map(|max_receive_count| Redrive {
                target_arn: "arn:aws:sqs:r:1:dlq".to_owned(),
                max_receive_count,
            }),
        }
    }

    #[test]
    fn a_well_configured_queue_gets_no_advice() {
        assert_eq!(advice(&attributes(Some(10)), false, Some(14 * DAY)), [""; 0]);
        assert_eq!(advice(&attributes(None), true, None), [""; 0], "SQS_DLQ_URL is set");
    }

    #[test]
    fn each_unfavourable_setting_gets_advice() {
        let only = |lines: Vec<String>, what: &str| {
            assert!(lines.len() == 1 && lines[0].contains(what), "{what}: {lines:?}");
        };
        only(advice(&attributes(None), false, None), "no dead-letter queue");
        only(advice(&attributes(Some(9)), false, None), "maxReceiveCount is 9");
        only(advice(&attributes(Some(10)), false, Some(DAY)), "retention should be the longer one");
        assert_eq!(advice(&attributes(Some(3)), true, Some(DAY)).len(), 2);
    }
}
