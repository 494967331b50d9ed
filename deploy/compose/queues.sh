#!/usr/bin/env bash
# Makes the queue and its dead-letter queue once LocalStack is up.
set -euo pipefail

awslocal sqs create-queue --queue-name reservations-dlq --attributes MessageRetentionPeriod=1209600
awslocal sqs create-queue --queue-name reservations --attributes '{
  "RedrivePolicy": "{\"deadLetterTargetArn\":\"arn:aws:sqs:us-east-1:000000000000:reservations-dlq\",\"maxReceiveCount\":\"10\"}"
}'
