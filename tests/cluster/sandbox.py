"""The queue and both services of a run, through the sandbox's control port: what is sent, how they behave, and the account that
their ledger must give of each event at the end.

They run as a pod of SANDBOX_IMAGE, or already listen at SANDBOX_HOST, with `--control-port`.
"""

import collections
import json
import threading
import time

from cluster import Refused, request, wait_until

PORTS = {"sqs": 4566, "reservation-api": 8081, "inventory": 50051, "control": 4567}
# What each event must have done, once.
EFFECTS = ("status", "seats_released")


def manifests(image):
    """A pod with all of them, as Pod Security `restricted` wants it, and its Service."""
    labels = {"app": "sandbox"}
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "readOnlyRootFilesystem": True}
    container = {
        "name": "sandbox",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": ["--listen", "0.0.0.0", "--control-port", str(PORTS["control"])],
        "ports": [{"name": name, "containerPort": port} for name, port in PORTS.items()],
        "readinessProbe": {"httpGet": {"path": "/ledger", "port": "control"}, "periodSeconds": 1},
        "securityContext": security,
    }
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [container],
    }
    template = {"metadata": {"labels": labels}, "spec": pod}
    deployment = {
        "metadata": {"name": "sandbox"},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }
    ports = [{"name": name, "port": port} for name, port in PORTS.items()]
    return deployment, {"metadata": {"name": "sandbox"}, "spec": {"selector": labels, "ports": ports}}


class Sandbox:
    def __init__(self, cluster, namespace, image, host):
        self.image = image
        if host:
            self.host, self.control = host, f"http://{host}:{PORTS['control']}"
        else:
            deployment, service = manifests(image)
            cluster.post(f"/apis/apps/v1/namespaces/{namespace}/deployments", deployment)
            cluster.post(f"/api/v1/namespaces/{namespace}/services", service)
            # With the namespace: KEDA, which runs in another one, resolves it too.
            self.host = f"sandbox.{namespace}.svc"
            self.control = f"{cluster.base}/api/v1/namespaces/{namespace}/services/sandbox:control/proxy"
        wait_until("the sandbox answers on its control port", self.ledger, 120)

    def url(self, port):
        return f"http://{self.host}:{PORTS[port]}"

    @property
    def queue_url(self):
        return f"{self.url('sqs')}/000000000000/reservations"

    def values(self):
        """The chart's values with which the worker and KEDA use only these servers, with keys that nobody checks."""
        peer = {"podSelector": {"matchLabels": {"app": "sandbox"}}} if self.image else {"ipBlock": {"cidr": f"{self.host}/32"}}
        return {
            "config": {
                "sqsQueueUrl": self.queue_url,
                "awsRegion": "us-east-1",
                "awsEndpointUrlSqs": self.url("sqs"),
                "inventoryGrpcAddr": f"{self.host}:{PORTS['inventory']}",
                "reservationApiBase": self.url("reservation-api"),
                "otelSdkDisabled": True,
            },
            "existingSecret": "sandbox-keys",
            "aws": {"identity": "none"},
            "keda": {"authentication": {"existing": "sandbox-keys"}},
            "networkPolicy": {"extraEgress": [{"to": [peer], "ports": [{"protocol": "TCP", "port": PORTS["sqs"]}]}]},
        }

    def ledger(self):
        return json.loads(request("GET", f"{self.control}/ledger"))

    def calls(self, since):
        return json.loads(request("GET", f"{self.control}/calls/{since}"))

    def set(self, **settings):
        request("POST", f"{self.control}/settings", settings)

    def reset(self):
        self.set(services=True, attributes=True, latency_ms=0)

    def send(self, prefix, count):
        request("POST", f"{self.control}/send", {"prefix": prefix, "count": count})

    def left(self):
        return self.ledger()["queue"]["left"]


class Account:
    """What was sent in a case, and what the ledger says became of it."""

    def __init__(self, sandbox, name):
        self.sandbox, self.name = sandbox, name
        self.sent = {}
        self.before = sandbox.ledger()
        self.wrong = [] if self.before["queue"]["left"] == 0 else [f"{self.before['queue']['left']} messages were there before"]

    def send(self, count):
        # Each batch has a prefix of its own, over all runs: the stand-ins know old reservations as handled.
        prefix = f"{self.name}-{time.time_ns():x}"
        self.sent[prefix] = count
        self.sandbox.send(prefix, count)

    def total(self):
        return sum(self.sent.values())

    def wait_until_handled(self, limit_s=240):
        wait_until("the queue is empty", lambda: self.sandbox.left() == 0, limit_s)

    def change(self, name):
        return self.sandbox.ledger()["queue"][name] - self.before["queue"][name]

    def redelivered(self):
        return self.change("delivered") - self.change("sent")

    def judge(self):
        """Returns what is wrong: events that are lost or dead-lettered, or handled other than once."""
        wrong = list(self.wrong)
        now = self.sandbox.ledger()
        effects = collections.Counter(
            (call["reservation_id"], call["effect"]) for call in self.sandbox.calls(self.before["services"]["calls"]) if call["effect"]
        )
        expected = {(f"{prefix}-{n}", effect) for prefix, count in self.sent.items() for n in range(count) for effect in EFFECTS}
        lost = [one for one in expected if effects[one] == 0]
        twice = [one for one in expected if effects[one] > 1]
        if lost:
            wrong.append(f"{len(lost)} effects are missing, such as {min(lost)}")
        if twice:
            wrong.append(f"{len(twice)} effects happened more than once, such as {min(twice)}")
        if left := now["queue"]["left"]:
            wrong.append(f"{left} messages are left")
        if self.change("sent") != self.change("deleted"):
            wrong.append(f"{self.change('sent')} sent, {self.change('deleted')} deleted")
        dead = now["dead_letters"] - self.before["dead_letters"]
        if dead:
            wrong.append(f"{dead} dead-lettered")
        return wrong

    def figures(self):
        return f"{self.total():,} events, {self.redelivered():,} redelivered, {self.change('handed_back'):,} handed back"


class Load(threading.Thread):
    """Sends so many events a second until it is stopped."""

    def __init__(self, account, per_s):
        super().__init__(daemon=True)
        self.account, self.per_s = account, per_s
        self.over, self.failed = threading.Event(), None

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.stop()

    def run(self):
        while not self.over.wait(0.5):
            try:
                self.account.send(self.per_s // 2)
            except Refused as refusal:
                self.failed = refusal
                return

    def stop(self):
        self.over.set()
        self.join(timeout=60)
        if self.failed:
            raise self.failed
