"""What the pages' commands talk to: the sandbox's queue and services, workers, a Redis, dead letters. Which command needs what is
left to `check`."""

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from pages import ROOT

sys.path.insert(0, str(ROOT / "tests/integration"))
from harness import CHILDREN, Sandbox, Worker, wait_until  # noqa: E402

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))
# As the pages show them.
SHOW, TIME = "evt_2025_1001", "2026-12-01T01:00:00Z"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NOT_FOUND = (404, "RESERVATION_NOT_FOUND", "no such reservation")
FORBIDDEN = (403, "FORBIDDEN", "not allowed")


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def event(number, kind, reservation=None, **payload):
    """A body without spaces, as producers send it."""
    named = number if isinstance(number, str) else f"evt_{number}"
    whole = {"id": named, "type": kind, "reservation_id": reservation or f"rsv_{number}", "event_id": SHOW, "ts": TIME}
    return json.dumps({**whole, "payload": {"qty": 2, **payload}}, separators=(",", ":"))


def payment(number, reservation=None):
    return event(number, "payment.approved", reservation, seat_ids=["A-12", "A-13"], payment_intent_id="pay_xyz789", amount=120000)


class Api:
    """The sandbox's Reservation API behind one that refuses some reservations."""

    def __init__(self, base):
        refusals = self.refusals = {}

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                refusal = refusals.get(self.path.rsplit("/", 1)[1])
                if refusal:
                    status, code, message = refusal
                    said = json.dumps({"error": {"code": code, "message": message, "trace_id": self.headers["traceparent"].split("-")[1]}}).encode()
                else:
                    status, said = forward(self, base, body)
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(said)))
                self.end_headers()
                self.wfile.write(said)

            do_GET = do_PATCH = answer

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.base = f"http://127.0.0.1:{self.server.server_port}"


def forward(handler, base, body):
    names = ("Content-Type", "Idempotency-Key", "traceparent")
    headers = {name: handler.headers[name] for name in names if handler.headers[name]}
    request = urllib.request.Request(base + handler.path, data=body or None, headers=headers, method=handler.command)
    try:
        with OPENER.open(request, timeout=10) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as refusal:
        return refusal.code, refusal.read()


class Servers:
    """A sandbox, and what a command needs to reach it. A subclass has more."""

    def __init__(self, programs):
        self.programs = programs
        self.sandbox = Sandbox(programs["sandbox"])
        self.variables = dict(self.sandbox.variables)
        self.queue = self.variables["SQS_QUEUE_URL"]
        self.dlq = f"{self.queue}-dlq"
        # Those that the pages name, and those that this sandbox has.
        addresses = {"4566": "AWS_ENDPOINT_URL", "8081": "RESERVATION_API_BASE", "50051": "INVENTORY_GRPC_ADDR"}
        self.ports = {page: self.variables[name].rpartition(":")[2] for page, name in addresses.items()}
        self.names, self.worker = {}, None
        self.children = [self.sandbox.process]

    def start(self, **variables):
        """Starts a worker, which the commands' `SERVER_PORT` then names."""
        # Each worker has a port of its own.
        self.variables.pop("SERVER_PORT", None)
        self.worker = self.add({**self.variables, "SQS_WAIT_TIME": "1", **variables})
        self.ports["8040"] = self.variables["SERVER_PORT"] = str(self.worker.port)

    def add(self, variables):
        """Starts a worker with these variables only."""
        worker = Worker(self.programs["worker"], variables)
        self.children.append(worker.process)
        worker.wait_until_ready()
        return worker

    def close(self):
        for child in self.children:
            child.kill()
            child.wait()

    def sqs(self, action, **parameters):
        headers = {"X-Amz-Target": f"AmazonSQS.{action}", "Content-Type": "application/x-amz-json-1.0"}
        request = urllib.request.Request(self.variables["AWS_ENDPOINT_URL"], data=json.dumps(parameters).encode(), headers=headers)
        with OPENER.open(request, timeout=10) as answer:
            return json.loads(answer.read() or b"{}")

    def send(self, body, **attributes):
        typed = {name: {"DataType": "String", "StringValue": value} for name, value in attributes.items()}
        self.sqs("SendMessage", QueueUrl=self.queue, MessageBody=body, MessageAttributes=typed)

    def counts(self, url):
        """The numbers of messages that are visible, and that somebody holds."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        attributes = self.sqs("GetQueueAttributes", QueueUrl=url, AttributeNames=names)["Attributes"]
        return [int(attributes[name]) for name in names]

    def quiet(self):
        """Waits until the worker has nothing left to do, and nobody looks at the dead-letter queue."""
        wait_until("the queue is empty", lambda: self.counts(self.queue) == [0, 0] and self.counts(self.dlq)[1] == 0)

    def released(self, reservation):
        """Waits until the seats of a reservation were released."""
        wait_until(
            f"ReleaseHold takes effect for {reservation}",
            lambda: any(c["reservation"] == reservation and c["method"] == "ReleaseHold" and c["applied"] for c in self.sandbox.calls()),
            30,
        )

    def before(self, text):
        """What must have happened before a command."""


class Running(Servers):
    """A worker that has nothing to do."""

    def __init__(self, programs):
        super().__init__(programs)
        self.start()


class Bare(Servers):
    """A server without the page's queues, as LocalStack is at first: they have other names than the sandbox's own."""

    def __init__(self, programs):
        super().__init__(programs)
        self.names = {"reservations": "created"}
        self.variables = {}


class Letters(Servers):
    """Dead letters of several reasons: those that the list of operations.md shows, in its order; `refused` more of a service's
    refusals. The cause is repaired before the first redrive."""

    def __init__(self, programs, refused):
        super().__init__(programs)
        self.api = Api(self.variables["RESERVATION_API_BASE"])
        self.variables["RESERVATION_API_BASE"] = self.api.base
        self.variables["DLQ_URL"] = self.dlq
        self.start()
        self.letters = 0
        for number in range(410, 414):
            self.refuse(number, NOT_FOUND)
        for number in range(600, 600 + refused):
            self.refuse(number, FORBIDDEN if number % 2 else NOT_FOUND)
        for number in (500, 501):
            self.dead(event(number, "reservation.extended"))
        self.send(event(776, "reservation.expired", "rsv_abc123"))
        self.released("rsv_abc123")
        self.dead(payment(777, "rsv_abc123"))
        self.move(event(900, "reservation.expired"))

    def refuse(self, number, refusal):
        # A success before each: else the service as a whole is judged to refuse, and events wait.
        self.send(event(f"evt_before_{number}", "reservation.expired", f"rsv_before_{number}"))
        self.released(f"rsv_before_{number}")
        self.api.refusals[f"rsv_{number}"] = refusal
        self.dead(payment(number), traceparent=TRACE)

    def dead(self, body, **attributes):
        """Sends an event that the worker sets aside, and waits for that: letters are in this order."""
        self.send(body, **attributes)
        self.letters += 1
        wait_until(f"{self.letters} dead letters", lambda: self.counts(self.dlq)[0] == self.letters)

    def move(self, body):
        """Has SQS itself move a message, while no worker takes it."""
        self.worker.stop()
        self.send(body)
        self.letters += 1

        def moved():
            self.sqs("ReceiveMessage", QueueUrl=self.queue, MaxNumberOfMessages=10, VisibilityTimeout=0)
            return self.counts(self.dlq)[0] == self.letters

        wait_until("SQS moves the message", moved)
        self.start()

    def before(self, text):
        if " dlq redrive " in text and "--dry-run" not in text:
            self.api.refusals.clear()
        self.quiet()


class Held(Servers):
    """A shared store, and a worker that holds an event since the Inventory service is away; or, with `is_well`, that has handled
    it."""

    def __init__(self, programs, is_well=False):
        super().__init__(programs)
        port = free_port()
        command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.children.append(subprocess.Popen(command, stdout=subprocess.DEVNULL))
        self.variables["IDEMPOTENCY_STORE"] = f"redis://127.0.0.1:{port}"
        self.start(**({} if is_well else {"INVENTORY_GRPC_ADDR": f"127.0.0.1:{free_port()}"}))
        self.send(event("evt_123456", "reservation.expired", "rsv_abc123"))
        wait_until("the event is begun", lambda: self.state("handled" if is_well else "in_progress"))
        self.send(event("evt_123457", "reservation.expired", "rsv_abc123"))

    def state(self, wanted):
        command = [self.programs["worker"], "event", "evt_123456", "--json"]
        said = subprocess.run(command, env=self.variables, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        found = json.loads(said.stdout) if said.returncode == 0 else {}
        return found.get("state") == wanted and (wanted == "handled" or found.get("steps_done") == ["reservation-status"])


class Nothing:
    """For commands that need no other program."""

    def __init__(self, _):
        self.variables, self.ports, self.names = {}, {}, {}

    def before(self, text):
        pass

    def close(self):
        pass


def environment(folder):
    """What every command has; nothing of who runs the tests."""
    path = os.pathsep.join([str(folder / "bin"), os.environ["PATH"]])
    return {"PATH": path, "HOME": str(folder), "LANG": "C.UTF-8", "TERM": "xterm", "MANPAGER": "cat", "KUBECONFIG": "/dev/null"}
