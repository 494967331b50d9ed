"""Shared by `run`, `live` and `bench`: the queue, the services (two processes, so that the services can go down alone),
workers, a load, Prometheus. Standard library only.
"""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from cluster import KEDAS, NAME, NAMESPACE

ROOT = os.path.abspath(os.path.join(os.path.dirname(__file__), "../.."))
DASHBOARD = os.path.join(ROOT, "deploy/grafana/reservation-worker.json")
ALERTS = os.path.join(ROOT, "deploy/prometheus/alerts.yaml")
ALERT_TESTS = os.path.join(ROOT, "deploy/prometheus/alerts.test.yaml")
RUNBOOK = os.path.join(ROOT, "docs/runbook.md")
SANDBOX = os.path.join(ROOT, "target/debug/sandbox")
HALF_WELL = os.path.join(ROOT, "tests/observe/half_well.py")
PATIENCE_S = 60
# No proxy for this machine.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_until(what, condition, patience_s=PATIENCE_S):
    """Waits for a condition; ends the run on a timeout."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {patience_s} s")
        time.sleep(0.05)
    return value


def fetch(url, data=None, headers=None):
    """Returns the answer's body, or None without an answer or a success."""
    request = urllib.request.Request(url, data=data, headers=headers or {})
    try:
        with OPENER.open(request, timeout=10) as answer:
            return answer.read().decode()
    except (urllib.error.URLError, OSError):
        return None


class Child:
    """A program whose output goes to a file; it ends with this one."""

    def __init__(self, command, log, **options):
        self.log = log
        with open(log, "ab") as out:
            # In its own session, so that only this program gets a Ctrl-C.
            self.process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True, **options)

    def output(self):
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return log.read()

    def stop(self, how=signal.SIGTERM, patience_s=40):
        if self.process.poll() is None:
            self.process.send_signal(how)
        try:
            return self.process.wait(timeout=patience_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


class Stack:
    """All processes of a run, with their own folder."""

    def __init__(self, folder, worker):
        self.folder, self.worker = folder, worker
        self.children = []
        self.numbers = 0

    def __enter__(self):
        self.queue_port = free_port()
        self.reservation_port, self.inventory_port = free_port(), free_port()
        self.queue = self.sandbox("queue", self.queue_port, 0, 0)
        self.services = self.start_services()
        exports = dict(re.findall(r"^export (\w+)=(\S+)$", self.queue.output(), re.M))
        self.variables = {
            **exports,
            "INVENTORY_GRPC_ADDR": f"127.0.0.1:{self.inventory_port}",
            "RESERVATION_API_BASE": f"http://127.0.0.1:{self.reservation_port}",
            "SQS_WAIT_TIME": "1",
            "LOG_FORMAT": "json",
        }
        self.queue_url, self.endpoint = exports["SQS_QUEUE_URL"], exports["AWS_ENDPOINT_URL"]
        return self

    def __exit__(self, *_):
        for child in reversed(self.children):
            child.stop()

    def start(self, name, command, **options):
        child = Child(command, os.path.join(self.folder, f"{name}.log"), **options)
        self.children.append(child)
        return child

    def sandbox(self, name, sqs, reservation, inventory):
        ports = ["--sqs-port", sqs, "--reservation-port", reservation, "--inventory-port", inventory]
        child = self.start(name, [SANDBOX, *map(str, ports)])
        wait_until(f"the sandbox ({name})", lambda: "Ctrl-C ends" in child.output() or dead(child))
        return child

    def start_services(self):
        return self.sandbox("services", 0, self.reservation_port, self.inventory_port)

    def outage(self, seconds):
        """Takes the services down or brings them back."""
        self.services.stop(signal.SIGKILL)
        time.sleep(seconds)
        os.remove(self.services.log)
        self.services = self.start_services()

    def half_well(self, how, seconds):
        """Makes the Reservation API reject all calls, or fail for a tenth of the reservations; Inventory works."""
        self.services.stop(signal.SIGKILL)
        os.remove(self.services.log)
        inventory = self.sandbox("services", 0, 0, self.inventory_port)
        command = [sys.executable, HALF_WELL, str(self.reservation_port), how]
        reservation_api = self.start(how, command)
        wait_until(how, lambda: "ready" in reservation_api.output() or dead(reservation_api))
        time.sleep(seconds)
        reservation_api.stop(signal.SIGKILL)
        inventory.stop(signal.SIGKILL)
        os.remove(inventory.log)
        self.services = self.start_services()

    def start_worker(self, port=None, **variables):
        port = port or free_port()
        self.numbers += 1
        environment = {**self.variables, "SERVER_PORT": str(port), **variables}
        child = self.start(f"worker-{self.numbers}", [self.worker], env=environment)
        child.port = port
        wait_until("the worker is ready", lambda: fetch(f"http://127.0.0.1:{port}/readyz") or dead(child))
        return child

    def send(self, bodies):
        """Sends in batches of ten, unsigned, as the AWS SDKs do."""
        for at in range(0, len(bodies), 10):
            entries = [{"Id": str(n), "MessageBody": body} for n, body in enumerate(bodies[at : at + 10])]
            answer = self.sqs("SendMessageBatch", Entries=entries)
            if answer is None or answer.get("Failed"):
                raise RuntimeError(f"not sent: {answer}")

    def left(self):
        """The number of messages in the queue, visible or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = self.sqs("GetQueueAttributes", AttributeNames=names)
        return sum(int(answer["Attributes"][name]) for name in names)

    def sqs(self, action, **parameters):
        data = json.dumps({"QueueUrl": self.queue_url, **parameters}).encode()
        headers = {"Content-Type": "application/x-amz-json-1.0", "X-Amz-Target": f"AmazonSQS.{action}"}
        answer = fetch(self.endpoint, data, headers)
        return None if answer is None else json.loads(answer)

    def start_prometheus(self, worker_ports, port=None, cluster_port=None):
        """A Prometheus that scrapes every second and evaluates the rules, with the labels that the Prometheus Operator gives."""
        port = port or free_port()
        config = os.path.join(self.folder, "prometheus.yml")
        scrapes = [(f"{NAMESPACE}/{NAME}", NAMESPACE, worker_ports)]
        if cluster_port:
            scrapes.append((f"{KEDAS}/operator", KEDAS, [cluster_port]))
        jobs = [
            {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{one}" for one in ports], "labels": {"namespace": namespace}}]}
            for job, namespace, ports in scrapes
        ]
        with open(config, "w", encoding="utf-8") as out:
            out.write(
                "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
                f"rule_files: [{json.dumps(ALERTS)}]\n"
                f"scrape_configs: {json.dumps(jobs)}\n"
            )
        data = os.path.join(self.folder, "prometheus")
        self.prometheus = f"http://127.0.0.1:{port}"
        self.start(
            "prometheus",
            [
                tool("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={data}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
        )
        wait_until("Prometheus", lambda: fetch(f"{self.prometheus}/-/ready"))
        return config

    def api(self, path, **parameters):
        answer = fetch(f"{self.prometheus}/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        return json.loads(answer)["data"] if answer else None


def dead(child):
    if child.process.poll() is not None:
        raise RuntimeError(f"it ended with {child.process.returncode}:\n{child.output()[-2000:]}")
    return False


def tool(name):
    return shutil.which(name) or os.path.join("/usr/bin", name)


def event(number, kind):
    body = {
        "id": f"evt-{number}",
        "type": kind,
        "reservation_id": f"rsv-{number}",
        "event_id": "evt_2025_1001",
        "ts": "2025-01-01T12:00:00Z",
        "payload": {"qty": 2, "seat_ids": ["A-1", "A-2"], "payment_intent_id": "pay_1", "amount": 120000},
    }
    return json.dumps(body)


KINDS = ("reservation.expired", "payment.approved", "payment.failed")


class Load(threading.Thread):
    """Sends so many events per second until stopped: all types, one in twenty a copy, one in fifty poison."""

    def __init__(self, stack, per_s):
        super().__init__(daemon=True)
        self.stack, self.per_s, self.sent = stack, per_s, 0
        self.over = threading.Event()

    def run(self):
        tenth = max(1, self.per_s // 10)
        while not self.over.wait(0.1):
            self.stack.send([self.next() for _ in range(tenth)])

    def next(self):
        self.sent += 1
        if self.sent % 50 == 0:
            return event(self.sent, "made.up") if self.sent % 100 else "no event"
        if self.sent % 20 == 0:
            return event(self.sent - 1, KINDS[(self.sent - 1) % 3])
        return event(self.sent, KINDS[self.sent % 3])

    def stop(self):
        self.over.set()
        self.join(timeout=30)


def panels():
    """The dashboard's panels with queries: title, unit, and each query with its legend."""
    with open(DASHBOARD, encoding="utf-8") as text:
        dashboard = json.load(text)
    return dashboard, [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expression(expr, range_s):
    """A query as Grafana sends it, with all values selected."""
    values = {
        "$__rate_interval": "5s",
        "$__range_s": str(range_s),
        "$__range": f"{range_s}s",
        "$namespace": ".*",
        "$release": ".*",
        "$instance": ".*",
    }
    for name, value in values.items():
        expr = expr.replace(name, value)
    if "$" in expr:
        raise ValueError(f"a variable that is not known: {expr}")
    return expr
