"""The whole path: boto3 sends events to an independent SQS server, the worker's binary handles them, and the results are
read from the stand-ins' ledger and the queues. The worker's own counters are only compared with them.

Prints one line for each check that fails, and `N passed, N failed` at the end. Exit code 0 only if all passed.
Starting LocalStack is left to `run`.
"""

import argparse
import collections
import itertools
import json
import sys
import time
import uuid

import boto3
from botocore.config import Config

from harness import CHILDREN, CREDENTIALS, Checks, Queue, Sandbox, Worker, dlq, wait_until

KINDS = ("reservation.expired", "payment.approved", "payment.failed")
ENVELOPES = ("flat", "eventbridge whole", "eventbridge inner", "typed detail", "sns", "sns of eventbridge")
STATUS = dict(zip(KINDS, ("EXPIRED", "CONFIRMED", "CANCELLED")))
SHOW = "evt_2025_1001"
TIME = "2025-01-01T12:00:00Z"


def body(kind, envelope, event_id, reservation_id):
    """An event of a type in an envelope, as its producers write it. Each has two seats."""
    payload = {"qty": 2, "seat_ids": ["A-12", "A-13"]}
    if kind != "reservation.expired":
        payload |= {"payment_intent_id": f"pay_{event_id}", "amount": 120000, "user_id": "usr_1", "unheard_of": {"x": 1}}
    inner = {"reservation_id": reservation_id, "event_id": SHOW, **payload}
    flat = {"id": event_id, "type": kind, "reservation_id": reservation_id, "event_id": SHOW, "ts": TIME}
    flat["payload"] = payload

    def event_bridge(detail, own_id):
        return {
            "version": "0", "id": own_id, "detail-type": kind, "source": "tickets", "account": "123456789012",
            "time": TIME, "region": "us-east-1", "resources": [], "detail": detail,
        }  # fmt: skip

    def sns(message):
        return {"Type": "Notification", "MessageId": str(uuid.uuid4()), "Message": json.dumps(message), "Timestamp": TIME}

    shapes = {
        "flat": flat,
        "eventbridge whole": event_bridge(flat, f"envelope-{event_id}"),
        "eventbridge inner": event_bridge(inner, event_id),
        "typed detail": {"id": event_id, "type": kind, "source": "tickets", "detail": inner, "time": TIME},
        "sns": sns(flat),
        "sns of eventbridge": sns(event_bridge(inner, event_id)),
    }
    return json.dumps(shapes[envelope], ensure_ascii=False)


def expected_effects(kind):
    """The expected calls of an event with seats: (service, method, wording of the sandbox)."""
    seats = {
        "reservation.expired": ("inventory", "ReleaseHold", "EXPIRED x2"),
        "payment.approved": ("inventory", "CommitReservation", "x2"),
        "payment.failed": ("inventory", "ReleaseHold", "FAILED_PAYMENT x2"),
    }
    return [("reservation-api", "PATCH", STATUS[kind]), seats[kind]]


def effects(calls):
    """The number of times that each effect took place, by reservation."""
    return collections.Counter(
        (call["reservation"], call["service"], call["method"], call["asked"]) for call in calls if call["applied"]
    )


def wanted(events):
    """The ledger that these (kind, reservation) pairs must leave."""
    return collections.Counter((reservation, *effect) for kind, reservation in events for effect in expected_effects(kind))


def message(text, **attributes):
    found = {"MessageBody": text}
    if attributes:
        found["MessageAttributes"] = {
            name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()
        }
    return found


def burst(check, sqs, sandbox, options, run_id):
    """Every type in every envelope, with traces, duplicates, an event that is too late, and poison."""
    queue = Queue(sqs, f"it-{run_id}-burst")
    worker = Worker(options.worker, worker_variables(options, sandbox, queue))
    worker.wait_until_ready()

    events, messages, traces = [], [], {}
    for number, (kind, envelope, _) in enumerate(itertools.product(KINDS, ENVELOPES, range(10))):
        event_id, reservation = f"evt_{run_id}_{number}", f"rsv_{run_id}_{number}"
        events.append((kind, reservation))
        text = body(kind, envelope, event_id, reservation)
        trace_id = f"{uuid.uuid4().hex}"
        if number % 3 == 0:
            traces[reservation] = trace_id
            messages.append(message(text, traceparent=f"00-{trace_id}-00f067aa0ba902b7-01", tenant="seoul"))
        elif number % 3 == 1:
            traces[reservation] = trace_id
            header = f"Root=1-{trace_id[:8]}-{trace_id[8:]};Parent=53995c3f42cd8ad8;Sampled=1"
            system = {"AWSTraceHeader": {"DataType": "String", "StringValue": header}}
            messages.append({**message(text), "MessageSystemAttributes": system})
        else:
            messages.append(message(text))
        if number % 9 == 0:
            messages.append(messages[-1])
    duplicates = len(messages) - len(events)

    poison = {
        "not JSON": '{"id":"evt_broken","type":"payment.approved",\n "reservation_id":"rsv_é',
        "unknown type": body("payment.refunded", "flat", f"evt_{run_id}_p1", f"rsv_{run_id}_p1"),
        "a seat too few": json.dumps({"id": "evt_p2", "type": "reservation.expired", "reservation_id": "rsv_p2",
                                "event_id": SHOW, "ts": TIME, "payload": {"qty": 0}}),
    }  # fmt: skip
    messages[20:20] = [message(text, tenant="seoul") for text in poison.values()]
    queue.send(messages)

    # Sold before its expiry arrives; sent one by one, to test SendMessage too.
    late = f"rsv_{run_id}_late"
    sqs.send_message(QueueUrl=queue.url, **message(body("payment.approved", "flat", f"evt_{run_id}_sold", late)))
    sold = ("reservation-api", "PATCH", "CONFIRMED")
    wait_until("the sale is confirmed", lambda: (late, *sold) in effects(sandbox.calls()))
    sqs.send_message(QueueUrl=queue.url, **message(body("reservation.expired", "flat", f"evt_{run_id}_late", late)))
    events.append(("payment.approved", late))
    queue.wait_until_empty()

    check.same_effects("each effect once, and no other", effects(sandbox.calls()), wanted(events))
    check.equal("success", worker.metric("worker_events_total", outcome="success"), len(events))
    check.equal("dropped: duplicates, and the late expiry",
                worker.metric("worker_events_total", outcome="dropped"), duplicates + 1)  # fmt: skip
    check.equal("failed: the poison", worker.metric("worker_events_total", outcome="failed"), len(poison))
    check.equal("latency is measured for each success", worker.metric("worker_latency_seconds_count") >= len(events), True)
    check.equal("no poll failed", worker.metric("sqs_poll_errors_total"), 0)
    check.equal("nobody is busy", worker.metric("worker_pool_active_gauge"), 0)
    for path in ("/healthz", "/health", "/readyz", "/ready"):
        check.equal(path, worker.get(path)[0], 200)
    dead_letters(check, queue, poison)

    code, log = worker.stop()
    check.equal("exit code after SIGTERM", code, 0)
    log_lines(check, log, traces)
    check.equal("nothing comes back after the worker has left", queue.held(queue.url), 0)
    queue.delete()


def dead_letters(check, queue, poison):
    """The poison is in the dead-letter queue, unchanged and with its attributes."""
    dead_letters = queue.dead_letters()
    check.equal("the dead-letter queue holds the poison, whole, and nothing else",
                sorted(dead_letter["Body"] for dead_letter in dead_letters), sorted(poison.values()))  # fmt: skip
    for dead_letter in dead_letters:
        attributes = {name: value["StringValue"] for name, value in dead_letter.get("MessageAttributes", {}).items()}
        check.that("its reason, error, original id and time are told",
                   all(attributes.get(f"dlq_{name}") for name in ("reason", "error", "message_id", "at_ms")), attributes)  # fmt: skip
        check.equal("its own attributes are kept", attributes.get("tenant"), "seoul")


def log_lines(check, log, traces):
    """The log has one flat JSON object per line, with the trace ids of the messages."""
    check.that("each line of the log is a JSON object", log and all(isinstance(line, dict) for line in log))
    log = [line for line in log if isinstance(line, dict)]
    check.that("each has ts, level and msg", all({"ts", "level", "msg"} <= line.keys() for line in log))
    check.that("none is nested", not any(isinstance(value, (dict, list)) for line in log for value in line.values()))
    handled = {line["reservation_id"]: line for line in log if line.get("outcome") == "success"}
    for reservation, trace_id in traces.items():
        check.equal(f"the trace of {reservation}", handled.get(reservation, {}).get("trace_id"), trace_id)
    check.equal("the last line's account balances", log[-1].get("balanced") if log else None, True)


def crash(check, sqs, sandbox, options, run_id):
    """After `kill -9` no event is lost, and the next process repeats calls with the same keys only."""
    queue = Queue(sqs, f"it-{run_id}-crash")
    before = len(sandbox.calls())
    variables = worker_variables(options, sandbox, queue) | {"SQS_VISIBILITY_TIMEOUT": "5", "WORKER_CONCURRENCY": "4"}
    events = [(KINDS[number % 3], f"rsv_{run_id}_crash_{number}") for number in range(100)]
    queue.send(
        message(body(kind, "flat", f"evt_{run_id}_crash_{number}", reservation))
        for number, (kind, reservation) in enumerate(events)
    )
    worker = Worker(options.worker, variables)
    wait_until("the first calls", lambda: len(sandbox.calls()) >= before + 20)
    worker.kill()
    check.that("work was left when the worker was killed", queue.held(queue.url) > 0)
    check.that("the killed worker had not done all", len(effects(sandbox.calls()[before:])) < len(wanted(events)))

    worker = Worker(options.worker, variables)
    queue.wait_until_empty()
    code, _ = worker.stop()
    check.equal("exit code of the second worker", code, 0)
    calls = sandbox.calls()[before:]
    check.same_effects("each effect once, over both processes", effects(calls), wanted(events))
    again = [call for call in calls if call["method"] != "GET" and not call["applied"]]
    check.that("every repeated call came with its first key", all(call["repeated"] for call in again), again)
    check.equal("nothing was dead-lettered", queue.held(queue.dlq_url), 0)
    queue.delete()


def dead_letter_commands(check, sqs, sandbox, options, run_id):
    """`dlq` with messages that SQS itself has moved: they are listed, and come back whole; on a FIFO queue in order."""
    for fifo in (False, True):
        kind = "FIFO" if fifo else "standard"
        queue = Queue(sqs, f"it-{run_id}-dlq", max_receive_count=1, fifo=fifo)
        variables = {**CREDENTIALS, "AWS_ENDPOINT_URL": options.endpoint, "SQS_QUEUE_URL": queue.url}
        bodies = [body(KINDS[number % 3], "flat", f"evt_{run_id}_d{number}", f"rsv_{run_id}_{kind}_{number}") for number in range(25)]
        header = {"AWSTraceHeader": {"DataType": "String", "StringValue": "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=1"}}
        messages = [{**message(text, tenant="seoul"), "MessageSystemAttributes": header} for text in bodies]
        if fifo:
            messages = [{**one, "MessageGroupId": f"g{number % 2}", "MessageDeduplicationId": f"d{number}"} for number, one in enumerate(messages)]
        queue.send(messages)
        queue.exhaust(len(bodies))

        code, listed = dlq(options.worker, variables, "list", "--json")
        check.equal(f"{kind}: dlq list", (code, listed[-1]["summary"]["by"][0]["reason"]), (0, None))
        if not fifo:
            check.equal("dlq list: all of them", listed[-1]["summary"]["matching"], len(bodies))
        code, done = dlq(options.worker, variables, "redrive", "--all", "--yes", "--rate", "200", "--json")
        check.equal(f"{kind}: dlq redrive", (code, done[-1]["summary"].get("redriven")), (0, len(bodies)))
        check.equal(f"{kind}: the dead-letter queue is empty", queue.held(queue.dlq_url), 0)
        back = queue.take(queue.url, len(bodies))
        texts = [one["Body"] for one in back]
        check.equal(f"{kind}: every body came back", sorted(texts), sorted(bodies))
        originals = {line["message_id"] for line in done[:-1]}
        for one in back:
            attributes = {name: value["StringValue"] for name, value in one["MessageAttributes"].items()}
            whole = attributes.get("tenant") == "seoul" and attributes.get("redrive_of") in originals
            whole = whole and one["Attributes"].get("AWSTraceHeader") == header["AWSTraceHeader"]["StringValue"]
            check.that(f"{kind}: attributes and trace header came back", whole, one)
        if fifo:
            for parity in (0, 1):
                group = [one["Body"] for one in back if one["Attributes"]["MessageGroupId"] == f"g{parity}"]
                check.equal(f"group g{parity} is in order", group, bodies[parity::2])
        queue.delete()


def worker_variables(options, sandbox, queue):
    services = {name: sandbox.variables[name] for name in ("INVENTORY_GRPC_ADDR", "RESERVATION_API_BASE")}
    return {
        **CREDENTIALS,
        **services,
        "AWS_ENDPOINT_URL": options.endpoint,
        "SQS_QUEUE_URL": queue.url,
        "SQS_WAIT_TIME": "5",
        "OTEL_SDK_DISABLED": "true",
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--endpoint", required=True, help="of an SQS server")
    parser.add_argument("--worker", required=True, help="the worker's binary")
    parser.add_argument("--sandbox", required=True, help="the sandbox's binary")
    options = parser.parse_args()

    sqs = boto3.client(
        "sqs",
        endpoint_url=options.endpoint,
        region_name=CREDENTIALS["AWS_REGION"],
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        config=Config(retries={"max_attempts": 3}, proxies={}),
    )
    check = Checks()
    sandbox = Sandbox(options.sandbox)
    run_id = uuid.uuid4().hex[:8]
    for part in (burst, crash, dead_letter_commands):
        began = time.monotonic()
        try:
            part(check, sqs, sandbox, options, run_id)
        except Exception as error:  # The other parts still run.
            check.that(f"{part.__name__}: {type(error).__name__}: {error}", False)
        print(f"{part.__name__}: {time.monotonic() - began:.1f} s")
    check.equal("the sandbox's exit code after Ctrl-C", sandbox.stop(), 0)
    for child in CHILDREN:
        if child.poll() is None:
            child.kill()
    print(f"{check.passed} passed, {check.failed} failed")
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
