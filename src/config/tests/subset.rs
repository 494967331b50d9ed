//! The parts that commands read which need only the queue or only the store.

use super::*;

fn vars(given: &[(&str, &str)]) -> Vec<(String, String)> {
    given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

const QUEUE: (&str, &str) = ("SQS_QUEUE_URL", "http://127.0.0.1:4566/000000000000/orders");
const REDIS: (&str, &str) = ("IDEMPOTENCY_STORE", "rediss://me@cache.example:6379/0");
const IAM: [(&str, &str); 2] =
    [("IDEMPOTENCY_STORE_AUTH", "aws-iam"), ("IDEMPOTENCY_STORE_AWS_CACHE", "cache-1")];

#[test]
fn the_queues_part_needs_no_service() {
    let part = QueuePart::from_vars(vars(&[QUEUE, ("AWS_REGION", "eu-west-1")])).unwrap();
    assert_eq!(part.sqs.queue_url.as_str(), QUEUE.1);
    assert_eq!(part.aws.region.as_deref(), Some("eu-west-1"));
    // What another part does not allow is none of its business.
    let also = vars(&[QUEUE, ("MAX_RETRIES", "many"), ("IDEMPOTENCY_STORE", "postgres://x")]);
    assert!(QueuePart::from_vars(also).is_ok());
}

#[test]
fn the_queues_part_lists_its_own_faults() {
    let wrong =
        vars(&[("SQS_WAIT_TIME", "21"), ("AWS_REGION", "eu west"), ("MAX_RETRIES", "many")]);
    let errors = QueuePart::from_vars(wrong).unwrap_err();
    let names: Vec<&str> = errors.as_slice().iter().map(|error| error.name).collect();
    assert_eq!(names, ["SQS_QUEUE_URL", "SQS_WAIT_TIME", "AWS_REGION"]);
}

#[test]
fn the_stores_part_needs_the_queue_only_for_tokens_of_aws() {
    let part = StorePart::from_vars(vars(&[])).unwrap();
    assert_eq!(part.idempotency.store, IdempotencyStore::Memory);
    let part = StorePart::from_vars(vars(&[REDIS])).unwrap();
    assert!(matches!(part.idempotency.store, IdempotencyStore::Redis(_)) && part.queue.is_none());
    let with_tokens = [&[REDIS], &IAM[..]].concat();
    let errors = StorePart::from_vars(vars(&with_tokens)).unwrap_err();
    assert_eq!(errors.as_slice().len(), 1, "{errors}");
    assert_eq!(errors.as_slice()[0].name, "SQS_QUEUE_URL");
    let part = StorePart::from_vars(vars(&[&with_tokens[..], &[QUEUE]].concat())).unwrap();
    assert_eq!(part.queue.unwrap().sqs.queue_url.as_str(), QUEUE.1);
}
