"""The cases: each changes one thing while events are handled, and returns its figures. Every one of them ends with the ledger's
account: nothing lost, nothing dead-lettered, nothing handled twice.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import manifests
from cluster import CHART, NAME, RELEASE, ROOT, Failure, Refused, Watch, request, wait_until
from sandbox import Account, Load

# An event takes two calls of this length, one after the other.
CALL_MS = 250
BURST = 6_000
# The most pods in the cases that want all of them: what one look of the HPA makes of the first pod.
FULL = 26
OUTAGE_S = 60
KILLED = 5
FALLBACK = 5
QUICK = {
    "keda": {
        "pollingInterval": 5,
        "cooldownPeriod": 30,
        "fallback": {"failureThreshold": 3, "replicas": FALLBACK},
        "behavior": {"scaleDown": {"stabilizationWindowSeconds": 30}},
    }
}
FULL_SCALE = {"keda": {"maxReplicaCount": FULL}}


class LeftOut(Exception):
    """What this cluster cannot do, and what would help."""


class World:
    """What the cases share."""

    def __init__(self, cluster, sandbox, worker):
        self.cluster, self.sandbox, self.worker = cluster, sandbox, worker

    def account(self, name):
        self.sandbox.reset()
        return Account(self.sandbox, name)


def seconds(value):
    return "never" if value is None else f"{value:.1f} s"


def helm_test(world):
    """`helm test`: the check runs as a pod of the release."""
    world.worker.install()
    began = time.monotonic()
    code, said = world.cluster.helm("test", RELEASE, "--namespace", world.worker.namespace)
    if code != 0:
        raise Failure(said.strip()[-600:])
    return f"passed after {time.monotonic() - began:.1f} s"


def burst(world):
    """0, N, 0."""
    world.worker.install()
    world.worker.wait_for_none()
    account = world.account("burst")
    world.sandbox.set(latency_ms=CALL_MS)
    with Watch(world.worker) as watch:
        account.send(BURST)
        account.wait_until_handled()
        handled = watch.now()
        world.worker.wait_for_none()
        gone = watch.now() - handled
    most = watch.most()
    return account, (
        f"first pod ready after {seconds(watch.first(1))}, {most} pods after {seconds(watch.first(most))}, "
        f"all handled after {seconds(handled)}, last pod gone {seconds(gone)} later"
    )


def under_load(world, name, change, per_s=400, least=15, chart=CHART):
    """Runs `change` while events come in; returns the account, what `change` returned, and the fewest ready pods meanwhile."""
    world.worker.install(FULL_SCALE, chart)
    account = world.account(name)
    world.sandbox.set(latency_ms=CALL_MS)
    with Watch(world.worker) as watch:
        with Load(account, per_s):
            world.worker.wait_for_ready(least)
            wait_until("events are handled", lambda: account.change("deleted") >= per_s, 60)
            began = watch.now()
            result = change()
            fewest = watch.least(began)
            # Those that changed have work before the load ends.
            handled = account.change("deleted")
            wait_until("more events are handled", lambda: account.change("deleted") >= handled + per_s, 60)
        account.wait_until_handled()
    return account, result, fewest


def names(world):
    return {pod["metadata"]["name"] for pod in world.worker.pods()}


def roll_out(world):
    """All pods are replaced while events come in."""

    def change():
        before = names(world)
        began = time.monotonic()
        world.worker.install({**FULL_SCALE, "podAnnotations": {"rolled-out": str(time.time_ns())}})
        wait_until("the roll-out is complete", world.worker.is_rolled_out, 240)
        wait_until("the old pods are gone", lambda: not before & names(world), 120)
        return f"{len(before)} pods replaced in {time.monotonic() - began:.1f} s"

    account, said, fewest = under_load(world, "roll-out", change)
    return account, f"{said}, never fewer than {fewest} ready"


def outage(world):
    """Both services are away for a minute, while all pods are up and the queue is full."""
    world.worker.install(FULL_SCALE)
    account = world.account("outage")
    world.sandbox.set(latency_ms=CALL_MS)
    with Watch(world.worker) as watch:
        with Load(account, 1_500):
            world.worker.wait_for_ready(FULL)
        account.send(BURST)
        world.sandbox.set(services=False)
        away = watch.now()
        held_before = world.sandbox.left()
        time.sleep(OUTAGE_S)
        fewest = watch.least(away)
        held = world.sandbox.ledger()["queue"]["in_flight"]
        world.sandbox.set(services=True)
        back = watch.now()
        account.wait_until_handled(600)
        after = watch.now() - back
    if not held_before:
        raise Failure("no event was left when the services went away")
    if fewest < FULL:
        raise Failure(f"{fewest} pods were ready at one time of the outage, not {FULL}")
    return account, f"{FULL} pods stayed and held {held:,} messages, all handled {seconds(after)} after the services came back"


def local_process(pod):
    """The process of a pod that runs on this machine: its environment names the pod."""
    named = f"K8S_POD_NAME={pod}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if named in (folder / "environ").read_bytes().split(b"\0"):
                return int(folder.name)
        except OSError:
            continue
    return None


def kill_pod(namespace, pod):
    if command := os.environ.get("KILL"):
        subprocess.run([command, namespace, pod], check=True)
    elif process := local_process(pod):
        os.kill(process, signal.SIGKILL)
    else:
        raise LeftOut("the pods' processes are not on this machine, or not ours; KILL names a program that gets a namespace and a pod")


def killed(world):
    """Pods die of SIGKILL while events come in."""

    def change():
        began = time.monotonic()
        pods = [pod["metadata"]["name"] for pod in world.worker.pods() if is_ready(pod)][:KILLED]
        for pod in pods:
            kill_pod(world.worker.namespace, pod)
        wait_until("the killed pods run again", lambda: run_again(world, pods), 120)
        return f"{len(pods)} pods killed, all run again after {time.monotonic() - began:.1f} s"

    account, said, _ = under_load(world, "killed", change)
    # Whatever the node says of pods that were started again, the next case has new ones.
    world.worker.wait_for_none()
    return account, said


def is_ready(pod):
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def run_again(world, killed_names):
    found = {pod["metadata"]["name"]: pod["status"]["containerStatuses"][0] for pod in world.worker.pods()}
    again = [found[name] for name in killed_names if name in found]
    return len(again) == len(killed_names) and all(one["restartCount"] and "running" in one["state"] for one in again)


def scale_down(world):
    """The pods' number is cut while they hold all messages for services that are away."""
    few = 3
    world.worker.install(FULL_SCALE)
    account = world.account("scale-down")
    world.sandbox.set(services=False)
    account.send(BURST)
    world.worker.wait_for_ready(FULL)
    wait_until("every message is held", lambda: world.sandbox.ledger()["queue"]["visible"] == 0, 60)
    began = time.monotonic()
    world.worker.install({"keda": {"maxReplicaCount": few, "fallback": {"replicas": few}}})
    wait_until(f"{few} pods are left", lambda: len(world.worker.pods()) == few, 120)
    took = time.monotonic() - began
    world.sandbox.set(services=True)
    account.wait_until_handled()
    if not account.change("handed_back"):
        raise Failure("the pods that left handed nothing back")
    return account, f"{FULL} pods became {few} in {took:.1f} s"


def keda_off_and_on(world):
    """`keda.enabled` becomes false and true again while events come in."""
    fixed = 4

    def change():
        world.worker.install({"keda": {"enabled": False}, "replicaCount": fixed})
        wait_until("KEDA's objects are gone", lambda: world.worker.scaled_object() is None and world.worker.hpa() is None, 60)
        wait_until(f"{fixed} pods are ready", lambda: world.worker.ready() == fixed, 120)
        began = time.monotonic()
        world.worker.install(FULL_SCALE)
        wait_until("the HPA is back", world.worker.hpa, 60)
        world.worker.wait_for_ready(least)
        return f"off: {fixed} pods; on: {least} again after {time.monotonic() - began:.1f} s"

    least = 8
    account, said, fewest = under_load(world, "keda-off-and-on", change, per_s=200, least=least)
    world.worker.wait_for_none()
    return account, f"{said}, never fewer than {fewest} ready, then none"


def keda_metrics(world):
    """What KEDA's operator counts for this ScaledObject, or None where nobody may read it."""
    namespace = os.environ.get("KEDA_NAMESPACE") or "keda"
    behind = f"{world.cluster.base}/api/v1/namespaces/{namespace}/services/keda-operator:8080/proxy/metrics"
    try:
        lines = request("GET", os.environ.get("KEDA_METRICS") or behind).splitlines()
    except Refused:
        return None
    of_ours = [line for line in lines if f'"{NAME}-scaler"' in line and f'"{world.worker.namespace}"' in line]
    return {line.split("{")[0]: float(line.rsplit(" ", 1)[1]) for line in of_ours}


def unreadable(world):
    """KEDA may not read the queue's length: the fallback keeps the pods, and its metrics say so."""

    def is_fallback():
        conditions = world.worker.scaled_object()["status"].get("conditions", [])
        return any(one["type"] == "Fallback" and one["status"] == "True" for one in conditions)

    def change():
        before = keda_metrics(world)
        pods = world.worker.ready()
        began = time.monotonic()
        world.sandbox.set(attributes=False)
        wait_until("KEDA falls back", is_fallback, 120)
        took = time.monotonic() - began
        # Longer than the cooldown and the stabilisation window.
        time.sleep(45)
        fewest = world.worker.ready()
        after = keda_metrics(world)
        world.sandbox.set(attributes=True)
        wait_until("KEDA reads the queue again", lambda: not is_fallback(), 120)
        if fewest < max(FALLBACK, pods // 2):
            raise Failure(f"{pods} pods became {fewest} while KEDA could not read the queue")
        return f"{pods} pods, fallback after {took:.1f} s, then {fewest} pods; {alert_metrics(before, after)}"

    account, said, _ = under_load(world, "unreadable", change, per_s=200, least=8)
    return account, said


def alert_metrics(before, after):
    """Compares the counter that the alert reads."""
    name = "keda_scaled_object_errors_total"
    if after is None:
        return "KEDA's metrics: left out, KEDA_METRICS names where they are"
    grown = after.get(name, 0) - (before or {}).get(name, 0)
    if grown <= 0:
        raise Failure(f"{name} has not grown; there are {', '.join(sorted(after))}")
    return f"{name} grew by {grown:.0f}"


def chart_before(world):
    """The chart as it was before the last commit that changed it, or before what is not committed."""
    where = "deploy/helm/reservation-worker"
    commit = os.environ.get("BEFORE")
    if not commit:
        changed = subprocess.run(["git", "diff", "--quiet", "HEAD", "--", where], cwd=ROOT, check=False).returncode
        last = subprocess.run(["git", "log", "-1", "--format=%H", "--", where], cwd=ROOT, capture_output=True, text=True, check=False)
        commit = "HEAD" if changed else f"{last.stdout.strip()}^"
    packed = Path(world.cluster.scratch.name) / "before.tar"
    done = subprocess.run(["git", "archive", f"--output={packed}", commit, where], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LeftOut(f"git has no chart of {commit} ({done.stderr.strip()}); BEFORE names a commit")
    folder = packed.with_suffix("")
    folder.mkdir(exist_ok=True)
    subprocess.run(["tar", "--extract", f"--file={packed}", f"--directory={folder}"], check=True)
    name = subprocess.run(["git", "rev-parse", "--short", commit], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    return name, folder / where


def upgrade(world):
    """An upgrade from the chart of the commit before, while events come in."""
    commit, chart = chart_before(world)
    world.worker.uninstall()
    world.worker.wait_for_none()

    def change():
        before = names(world)
        began = time.monotonic()
        world.worker.install(FULL_SCALE)
        wait_until("the upgrade is complete", world.worker.is_rolled_out, 240)
        return f"from {commit} in {time.monotonic() - began:.1f} s, {len(before - names(world))} of {len(before)} pods replaced"

    account, said, fewest = under_load(world, "upgrade", change, chart=chart)
    return account, f"{said}, never fewer than {fewest} ready"


CASES = {
    "helm-test": helm_test,
    "burst": burst,
    "roll-out": roll_out,
    "outage": outage,
    "killed": killed,
    "scale-down": scale_down,
    "keda-off-and-on": keda_off_and_on,
    "unreadable": unreadable,
    "upgrade": upgrade,
    "manifests": manifests.applied,
}
