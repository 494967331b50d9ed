"""Shared by the driver: counted checks, the sandbox, queues, the worker's process.
The events and expectations are left to `driver`.
"""

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

CREDENTIALS = {
    "AWS_REGION": "us-east-1",
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
}
# An empty queue must be seen so often in a row: the counts of LocalStack, as of SQS, are
# approximate.
EMPTY_SIGHTINGS = 3
PATIENCE_S = 90
# No child outlives this program.
CHILDREN = []

# A line of the sandbox: seconds, service, method, reservation, request, answer, effect.
CALL = re.compile(
    r"^ *[\d.]+s (?P<service>reservation-api|inventory) +(?P<method>\w+) +(?P<reservation>\S+) "
    r"(?P<asked>.*?)-> (?P<answer>.*?)(?P<applied>, applied)?(?P<repeated>, key seen before)?$"
)


class Checks:
    """Counts passed and failed checks, and prints the failed ones."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def that(self, what, holds, found=None):
        if holds:
            self.passed += 1
            return
        self.failed += 1
        print(f"FAILED: {what}" + ("" if found is None else f"; found {found!r}"[:400]))

    def same_effects(self, what, found, expected):
        missing, extra = expected - found, found - expected
        self.that(what, not missing and not extra, {"missing": dict(missing), "too many": dict(extra)})

    def equal(self, what, found, expected):
        self.that(f"{what}: expected {expected!r}"[:300], found == expected, found)


def wait_until(what, condition, patience_s=PATIENCE_S):
    """Waits for a condition; ends the run on a timeout."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience_s} s")
        time.sleep(0.05)
    return value


def start(command, **options):
    """A child whose stdout is a pipe of text."""
    CHILDREN.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, **options))
    return CHILDREN[-1]


class Lines:
    """A child's stdout, collected while it runs."""

    def __init__(self, process):
        self.lines = []
        self.thread = threading.Thread(target=self._read, args=(process.stdout,), daemon=True)
        self.thread.start()

    def _read(self, stream):
        for line in stream:
            self.lines.append(line.rstrip("\n"))

    def all(self):
        """The whole text, after the child has ended."""
        self.thread.join(timeout=10)
        return list(self.lines)


class Sandbox:
    """The stand-ins for the two services. Their own queue is not used here."""

    def __init__(self, binary):
        ports = ["--sqs-port", "0", "--reservation-port", "0", "--inventory-port", "0"]
        self.process = start([binary, *ports])
        self.output = Lines(self.process)
        wait_until("the sandbox starts", lambda: any("Ctrl-C ends" in line for line in self.output.lines), 30)
        self.variables = dict(
            line.removeprefix("export ").split("=", 1) for line in self.output.lines if line.startswith("export ")
        )

    def calls(self):
        """Each answered call so far."""
        found = []
        for line in list(self.output.lines):
            if call := CALL.match(line):
                found.append({**call.groupdict(), "asked": call["asked"].strip()})
        return found

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=10)


class Queue:
    """A queue of this run, with a dead-letter queue."""

    def __init__(self, sqs, name, max_receive_count=10, fifo=False):
        self.sqs = sqs
        suffix, kind = (".fifo", {"FifoQueue": "true"}) if fifo else ("", {})
        self.dlq_url = sqs.create_queue(QueueName=f"{name}-dlq{suffix}", Attributes=kind)["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=self.dlq_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        redrive = {"deadLetterTargetArn": arn, "maxReceiveCount": str(max_receive_count)}
        attributes = {"RedrivePolicy": json.dumps(redrive), **kind}
        self.url = sqs.create_queue(QueueName=f"{name}{suffix}", Attributes=attributes)["QueueUrl"]

    def held(self, url):
        """The numbers of messages in a queue: visible, in flight, delayed."""
        names = ("", "NotVisible", "Delayed")
        names = [f"ApproximateNumberOfMessages{name}" for name in names]
        attributes = self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
        return sum(int(attributes[name]) for name in names)

    def wait_until_empty(self):
        sightings = itertools.count(1)

        def empty():
            nonlocal sightings
            if self.held(self.url):
                sightings = itertools.count(1)
                return False
            return next(sightings) >= EMPTY_SIGHTINGS

        wait_until("the queue is empty", empty)

    def send(self, messages):
        """Sends in batches of ten; every entry must be accepted."""
        for batch in tens(messages):
            entries = [{"Id": str(index), **message} for index, message in enumerate(batch)]
            answer = self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)
            if answer.get("Failed"):
                raise RuntimeError(f"not sent: {answer['Failed']}")

    def dead_letters(self):
        letters = []
        while len(letters) < self.held(self.dlq_url):
            answer = self.sqs.receive_message(
                QueueUrl=self.dlq_url, MaxNumberOfMessages=10, WaitTimeSeconds=1, MessageAttributeNames=["All"]
            )
            letters.extend(answer.get("Messages", []))
        return letters

    def exhaust(self, count):
        """Receives until SQS has moved this many messages to the dead-letter queue, by itself."""

        def moved():
            self.sqs.receive_message(QueueUrl=self.url, MaxNumberOfMessages=10, VisibilityTimeout=0)
            return self.held(self.dlq_url) >= count

        wait_until(f"SQS moves {count} messages", moved)

    def take(self, url, count):
        """Receives and deletes this many messages, with everything that they carry."""
        taken = []

        def all_taken():
            answer = self.sqs.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
            )
            for one in answer.get("Messages", []):
                taken.append(one)
                self.sqs.delete_message(QueueUrl=url, ReceiptHandle=one["ReceiptHandle"])
            return len(taken) >= count

        wait_until(f"{count} messages", all_taken)
        return taken

    def delete(self):
        for url in (self.url, self.dlq_url):
            self.sqs.delete_queue(QueueUrl=url)


def tens(messages):
    """In batches of at most ten, the limit of SQS."""
    messages = list(messages)
    return (messages[at : at + 10] for at in range(0, len(messages), 10))


class Worker:
    """The worker's binary, in a process that has these environment variables only."""

    def __init__(self, binary, variables):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        environment = {"PATH": os.environ["PATH"], "SERVER_PORT": str(self.port), "LOG_FORMAT": "json", **variables}
        self.process = start([binary], env=environment)
        self.output = Lines(self.process)

    def get(self, path):
        """Status and body of a page of the admin port; status 0 if no process listens."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as refusal:
            return refusal.code, refusal.read().decode()
        except OSError:
            return 0, ""

    def wait_until_ready(self):
        def ready():
            if self.process.poll() is not None:
                raise RuntimeError(f"the worker ended with {self.process.returncode}: {self.output.all()[-3:]}")
            return self.get("/readyz")[0] == 200

        wait_until("the worker is ready", ready, 30)

    def metric(self, name, **labels):
        """The sum of the series of a metric that have these labels."""
        total = 0.0
        for line in self.get("/metrics")[1].splitlines():
            series, _, value = line.rpartition(" ")
            if re.split(r"[{ ]", series)[0] == name and all(f'{k}="{v}"' in series for k, v in labels.items()):
                total += float(value)
        return total

    def stop(self):
        """Sends SIGTERM; returns the exit code and the log as parsed lines (None for a line that is not JSON)."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=40)
        return code, [parsed(line) for line in self.output.all()]

    def kill(self):
        self.process.kill()
        self.process.wait(timeout=10)


def dlq(binary, variables, *arguments):
    """Runs `dlq` with these variables only; returns its exit code and its output as parsed lines."""
    command = [binary, "dlq", *arguments]
    done = subprocess.run(command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
    return done.returncode, [parsed(line) for line in done.stdout.splitlines()]


def parsed(line):
    try:
        return json.loads(line)
    except ValueError:
        return None
