"""Measures the scale-to-zero contract, with the chart's own defaults, and prints it as the table of deploy/README.md."""

import statistics
import time

from cases import BURST, CALL_MS, seconds
from cluster import Watch, wait_until
from sandbox import Account

# How often a single event is sent to no pod at all.
SINGLES = 5
# The chart's default.
POLLING_INTERVAL_S = 10
LARGE = 50_000


def no_pods(world):
    """Takes the pods away as a cooldown does, without its wait."""
    world.worker.uninstall()
    world.worker.install()
    world.worker.wait_for_none()


def single(world, after_s):
    """Seconds until an event that comes to no pod finds a ready one, and until it is handled."""
    no_pods(world)
    # KEDA looks first when it sees the release, and then once in its interval: each event comes at another moment of that.
    time.sleep(after_s)
    account = Account(world.sandbox, "single")
    with Watch(world.worker) as watch:
        account.send(1)
        account.wait_until_handled()
        handled = watch.now()
        wait_until("a pod is ready", lambda: watch.first(1) is not None)
    return watch.first(1), handled, account


def burst(world, count, latency_ms):
    """A burst to no pod, up to the moment when the last pod is gone."""
    no_pods(world)
    account = Account(world.sandbox, f"burst-{count}")
    world.sandbox.set(latency_ms=latency_ms)
    with Watch(world.worker) as watch:
        account.send(count)
        account.wait_until_handled(600)
        handled = watch.now()
        world.worker.wait_for_none(900)
        gone = watch.now() - handled
    return watch, handled, gone, account


def row(*cells):
    print("| " + " | ".join(cells) + " |", flush=True)


def measured(world):
    began = time.monotonic()
    row("what", "measured")
    row("---", "---")
    wrong = []
    singles = [single(world, POLLING_INTERVAL_S * (n + 1) / SINGLES) for n in range(SINGLES)]
    for name, values in (("a pod is ready", [ready for ready, _, _ in singles]), ("it is handled", [handled for _, handled, _ in singles])):
        text = f"{statistics.median(values):.1f} s (median of {SINGLES}; {min(values):.1f} to {max(values):.1f} s)"
        row(f"one event at no pod: {name}", text)
    wrong += [fault for _, _, account in singles for fault in account.judge()]
    for count, latency_ms in ((BURST, CALL_MS), (LARGE, CALL_MS)):
        watch, handled, gone, account = burst(world, count, latency_ms)
        wrong += account.judge()
        most = watch.most()
        name = f"{count:,} events of {2 * latency_ms} ms at no pod"
        row(f"{name}: the first pod is ready", seconds(watch.first(1)))
        if most > 26:
            row(f"{name}: 26 pods are ready", seconds(watch.first(26)))
        row(f"{name}: {most} pods are ready, the most", seconds(watch.first(most)))
        row(f"{name}: all handled", seconds(handled))
        row(f"{name}: the last pod is gone, after the last event", seconds(gone))
        row(f"{name}: redelivered, handed back", f"{account.redelivered():,}, {account.change('handed_back'):,}")
    print(f"measured in {(time.monotonic() - began) / 60:.0f} minutes; " + ("; ".join(wrong) or "nothing lost, nothing dead-lettered"))
    return 1 if wrong else 0
