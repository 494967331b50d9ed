// Handles reservation events with bbc/sqs-consumer. Which guide each part follows: ../README.md.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";
import { SQSClient } from "@aws-sdk/client-sqs";
import { Consumer } from "sqs-consumer";

if (process.argv[2] === "--version") {
  const found = createRequire(import.meta.url).resolve("sqs-consumer");
  const { version } = JSON.parse(readFileSync(found.replace(/dist.*/, "package.json")));
  console.log(`bbc/sqs-consumer ${version} on Node ${process.versions.node}`);
  process.exit(0);
}

const BATCH_SIZE = 10; // SQS's limit
const VISIBILITY_TIMEOUT_S = 30;
const env = process.env;
const concurrency = Number(env.WORKER_CONCURRENCY ?? 20);

const includeDirs = [fileURLToPath(new URL("../../../../proto", import.meta.url))];
const { InventoryService } = grpc.loadPackageDefinition(
  protoLoader.loadSync("reservation/v1/inventory.proto", { includeDirs, keepCase: true, enums: String }),
).reservation.v1;
const inventory = new InventoryService(env.INVENTORY_GRPC_ADDR, grpc.credentials.createInsecure());

const STATUS = {
  "reservation.expired": "EXPIRED",
  "payment.approved": "CONFIRMED",
  "payment.failed": "CANCELLED",
};
const RELEASED = ["RELEASE_STATUS_SUCCESS", "RELEASE_STATUS_ALREADY_RELEASED", "RELEASE_STATUS_NOT_FOUND"];

async function handle(event) {
  const status = STATUS[event.type];
  if (!status) throw new Error(`unknown type: ${event.type}`);
  await setStatus(event, status);
  const { qty, seat_ids: seats = [] } = event.payload;
  const quantity = qty ?? seats.length;
  if (quantity === 0) return;
  const about = { reservation_id: event.reservation_id, event_id: event.event_id, seat_ids: seats, quantity };
  if (status === "CONFIRMED") {
    const { payment_intent_id = "", user_id = "" } = event.payload;
    const idempotency_key = `${event.id}/inventory-commit`;
    const answer = await call("CommitReservation", { ...about, payment_intent_id, user_id, idempotency_key });
    if (answer.status !== "COMMIT_STATUS_SUCCESS") throw new Error(`commit: ${answer.status}`);
  } else {
    const reason = status === "EXPIRED" ? "EXPIRED" : "FAILED_PAYMENT";
    const answer = await call("ReleaseHold", { ...about, reason, idempotency_key: `${event.id}/inventory-release` });
    if (!RELEASED.includes(answer.status)) throw new Error(`release: ${answer.status}`);
  }
}

async function setStatus(event, status) {
  const path = `/internal/reservations/${encodeURIComponent(event.reservation_id)}`;
  const response = await fetch(env.RESERVATION_API_BASE + path, {
    method: "PATCH",
    headers: { "Content-Type": "application/json", "Idempotency-Key": `${event.id}/reservation-status` },
    body: JSON.stringify({ status, payment_intent_id: event.payload.payment_intent_id }),
    signal: AbortSignal.timeout(Number(env.RESERVATION_TIMEOUT_MS ?? 5000)),
  });
  if (!response.ok) throw new Error(`status: ${response.status} ${await response.text()}`);
  await response.json();
}

function call(method, request) {
  const deadline = Date.now() + Number(env.INVENTORY_TIMEOUT_MS ?? 2000);
  return new Promise((resolve, reject) => {
    inventory[method](request, { deadline }, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

function backoff([message]) {
  return Math.min(2 ** Number(message.Attributes.ApproximateReceiveCount), VISIBILITY_TIMEOUT_S);
}

const sqs = new SQSClient({});
const consumers = Array.from({ length: Math.ceil(concurrency / BATCH_SIZE) }, () =>
  Consumer.create({
    queueUrl: env.SQS_QUEUE_URL,
    sqs,
    batchSize: BATCH_SIZE,
    waitTimeSeconds: Number(env.SQS_WAIT_TIME ?? 20),
    visibilityTimeout: VISIBILITY_TIMEOUT_S,
    heartbeatInterval: VISIBILITY_TIMEOUT_S / 3,
    messageSystemAttributeNames: ["ApproximateReceiveCount"],
    terminateVisibilityTimeout: backoff,
    pollingCompleteWaitTimeMs: 25_000,
    handleMessage: async (message) => {
      const event = JSON.parse(message.Body);
      await handle(event);
      console.log(JSON.stringify({ msg: "done", event_type: event.type, reservation_id: event.reservation_id }));
      return message;
    },
  }),
);

for (const consumer of consumers) {
  for (const name of ["error", "processing_error", "timeout_error"]) {
    consumer.on(name, (error) => console.error(JSON.stringify({ msg: name, error: error.message })));
  }
  consumer.start();
}

let left = consumers.length;
for (const signal of ["SIGINT", "SIGTERM"]) {
  process.once(signal, () => {
    for (const consumer of consumers) {
      consumer.once("stopped", () => --left === 0 && process.exit(0));
      consumer.stop();
    }
  });
}
