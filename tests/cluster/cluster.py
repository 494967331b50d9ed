"""Talks to the cluster: through one `kubectl proxy`, so that a look costs no process, and through helm and kubectl for what users
do with them. Knows the worker's objects; what a case does with them is left to `cases`.
"""

import contextlib
import json
import os
import re
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "deploy/helm/reservation-worker"
RELEASE = "rw"
NAME = "rw-reservation-worker"
PODS = f"labelSelector=app.kubernetes.io/instance%3D{RELEASE},app.kubernetes.io/component%3Dworker"
# Seconds between two looks at the Deployment.
LOOK_S = 0.2
# No proxy for this machine.
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Refused(Exception):
    """A server's answer that is no success; `status` is 0 where there was no answer."""

    def __init__(self, status, text):
        super().__init__(f"{status}: {text}")
        self.status = status


def request(method, url, body=None, kind="application/json"):
    """Returns the answer's text."""
    data = None if body is None else json.dumps(body).encode()
    asked = urllib.request.Request(url, data=data, method=method, headers={"Content-Type": kind})
    try:
        with OPENER.open(asked, timeout=30) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as refusal:
        raise Refused(refusal.code, refusal.read().decode(errors="replace")[:500]) from None
    except OSError as error:
        raise Refused(0, f"{url}: {error}") from None


def wait_until(what, condition, limit_s=120, every_s=LOOK_S):
    """Returns the condition's value once it is true. A server that does not answer for a moment counts as not yet."""
    deadline = time.monotonic() + limit_s
    last = None
    while True:
        try:
            if value := condition():
                return value
            last = None
        except Refused as refusal:
            last = refusal
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {limit_s} s" + (f" ({last})" if last else ""))
        time.sleep(every_s)


def merged(base, extra):
    """`base` with what `extra` says; neither is changed."""
    if not (isinstance(base, dict) and isinstance(extra, dict)):
        return extra
    return {key: merged(base[key], extra[key]) if key in base and key in extra else {**base, **extra}[key] for key in {**base, **extra}}


class Cluster:
    """A context of the kubeconfig, and the namespaces that this run has made there."""

    def __init__(self, context):
        self.context = context
        self.kubectl = os.environ.get("KUBECTL") or "kubectl"
        self.helm_path = subprocess.run([ROOT / "tests/deploy/tools", "helm"], capture_output=True, text=True, check=True).stdout.strip()
        self.made = []
        self.scratch = tempfile.TemporaryDirectory()
        self.proxy = subprocess.Popen(
            [self.kubectl, "--context", context, "proxy", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        said = self.proxy.stdout.readline()
        if not (found := re.search(r"127\.0\.0\.1:\d+", said)):
            raise SystemExit(f"kubectl proxy does not start: {said.strip()}")
        self.base = f"http://{found[0]}"

    def close(self):
        for namespace in self.made:
            with contextlib.suppress(Refused):
                self.delete(f"/api/v1/namespaces/{namespace}")
        for namespace in self.made:
            try:
                wait_until("it is gone", lambda name=namespace: self.find(f"/api/v1/namespaces/{name}") is None, 300)
            except TimeoutError as late:
                print(f"namespace {namespace}: {late}")
        self.proxy.terminate()
        self.proxy.wait()
        self.scratch.cleanup()

    # The API.

    def get(self, path):
        return json.loads(request("GET", self.base + path))

    def find(self, path):
        """The object, or None where there is none."""
        try:
            return self.get(path)
        except Refused as refusal:
            if refusal.status == 404:
                return None
            raise

    def post(self, path, body):
        return json.loads(request("POST", self.base + path, body))

    def patch(self, path, body):
        return json.loads(request("PATCH", self.base + path, body, "application/merge-patch+json"))

    def delete(self, path):
        return request("DELETE", self.base + path)

    def create_namespace(self, name):
        """Makes a namespace that enforces Pod Security `restricted`."""
        labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "warn")}
        self.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": labels}})
        self.made.append(name)
        account = f"/api/v1/namespaces/{name}/serviceaccounts/default"
        wait_until(f"the default account of {name}", lambda: self.find(account), 60)

    # Programs.

    def run(self, *command, limit_s=300):
        """Runs a program; returns its exit code and all that it said."""
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s, check=False)
        return done.returncode, done.stdout + done.stderr

    def kube(self, *arguments, **options):
        return self.run(self.kubectl, "--context", self.context, *arguments, **options)

    def helm(self, *arguments, **options):
        return self.run(self.helm_path, "--kube-context", self.context, *arguments, **options)


class Worker:
    """The release in its namespace."""

    def __init__(self, cluster, namespace, values):
        self.cluster, self.namespace, self.values = cluster, namespace, values
        self.path = f"/apis/apps/v1/namespaces/{namespace}/deployments/{NAME}"

    def install(self, extra=None, chart=CHART):
        """Installs or upgrades with the base values and `extra`; it does not wait for pods."""
        values = Path(self.cluster.scratch.name) / "values.json"
        values.write_text(json.dumps(merged(self.values, extra or {})), encoding="utf-8")
        code, said = self.cluster.helm("upgrade", "--install", RELEASE, str(chart), "--namespace", self.namespace, "--values", str(values))
        if code != 0:
            raise Failure(f"helm upgrade --install: {said.strip()[-600:]}")

    def uninstall(self):
        self.cluster.helm("uninstall", RELEASE, "--namespace", self.namespace, "--ignore-not-found", "--wait")

    def deployment(self):
        return self.cluster.get(self.path)

    def pods(self):
        return self.cluster.get(f"/api/v1/namespaces/{self.namespace}/pods?{PODS}")["items"]

    def scaled_object(self):
        return self.cluster.find(f"/apis/keda.sh/v1alpha1/namespaces/{self.namespace}/scaledobjects/{NAME}-scaler")

    def hpa(self):
        return self.cluster.find(f"/apis/autoscaling/v2/namespaces/{self.namespace}/horizontalpodautoscalers/keda-hpa-{NAME}-scaler")

    def ready(self):
        return self.deployment()["status"].get("readyReplicas", 0)

    def wait_for_ready(self, least, limit_s=120):
        return wait_until(f"{least} pods are ready", lambda: self.ready() >= least, limit_s)

    def wait_for_none(self, limit_s=240):
        wait_until("there is no pod", lambda: not self.pods(), limit_s)

    def is_rolled_out(self):
        found = self.deployment()
        status = found["status"]
        counts = {status.get(name, 0) for name in ("replicas", "updatedReplicas", "readyReplicas")} | {found["spec"]["replicas"]}
        return status.get("observedGeneration", 0) >= found["metadata"]["generation"] and len(counts) == 1


class Failure(Exception):
    """Something that a case may not see."""


class Watch(threading.Thread):
    """Looks at the Deployment while a case runs: (seconds since `began`, pods that are wanted, pods that are ready)."""

    def __init__(self, worker):
        super().__init__(daemon=True)
        self.worker, self.began, self.seen = worker, time.monotonic(), []
        self.over = threading.Event()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.join(timeout=60)

    def run(self):
        while not self.over.wait(LOOK_S):
            with contextlib.suppress(Refused):
                found = self.worker.deployment()
                at = time.monotonic() - self.began
                self.seen.append((at, found["spec"].get("replicas", 0), found["status"].get("readyReplicas", 0)))

    def now(self):
        return time.monotonic() - self.began

    def first(self, count):
        """When so many pods were ready first; None where they never were."""
        return next((at for at, _, ready in self.seen if ready >= count), None)

    def most(self):
        return max((ready for _, _, ready in self.seen), default=0)

    def least(self, since):
        """The fewest pods that were ready at one time from `since` on."""
        return min((ready for at, _, ready in self.seen if at >= since), default=0)
