#!/usr/bin/env python3
"""How KEDA, the HPA and the workers meet a burst of events: a calculation in steps of one second, with nothing but the standard library.

    deploy/burst/burst.py

It follows the rules that the parts document: KEDA starts the first pod and takes the last away, the HPA does the rest. It leaves out
that SQS's counts lag (up to a minute) and that nodes may have to be added. What it assumes stands in the constants below; those that
are also in the chart's values.yaml are compared with it by a test.
"""

import math

# The chart's values.
PODS_MAX = 50
QUEUE_LENGTH = 10
POLLING_INTERVAL_S = 10
COOLDOWN_S = 300
UP_PERCENT, UP_PODS, UP_PERIOD_S = 100, 25, 15
DOWN_PERCENT, DOWN_PODS, DOWN_PERIOD_S = 20, 1, 60
DOWN_WINDOW_S = 300
# The worker's defaults.
CONCURRENCY = 20
IN_FLIGHT_MAX = 1000
WAIT_TIME_S = 20
# Leases are extended when half of SQS_VISIBILITY_TIMEOUT is left.
EXTEND_EVERY_S = 15
BATCH = 10
# Where a service is away, probes are at most 10 s apart.
PROBE_S = 10
# Kubernetes' own.
HPA_SYNC_S = 15
HPA_TOLERANCE = 0.1
# Assumed: the burst, the services, a pod on a node that has the image, SQS's price in US dollars a million requests.
EVENTS = 50_000
ARRIVAL_S = 10
EVENT_MS = 80
POD_START_S = 5
PRICE_PER_MILLION = 0.40


class World:
    """The queue, the pods, and who scales them."""

    def __init__(self, services_per_s=math.inf, outage=(0, 0), counts_in_flight=True):
        self.services_per_s = services_per_s
        self.outage = outage
        self.counts_in_flight = counts_in_flight
        self.now = 0
        self.visible = self.parked = self.running = 0
        self.handled = self.handed_back = self.pods_most = 0
        self.pods = []  # when each is ready
        self.wanted = []  # what the HPA wanted, for its window
        self.changes = []  # when the HPA changed their number, and by how many
        self.last_active = 0
        self.calls = dict.fromkeys(("receive", "delete", "extend", "count"), 0.0)
        self.pod_s = 0
        self.drained_at = None

    def ready(self):
        return sum(1 for at in self.pods if at <= self.now)

    def is_away(self):
        """Whether the services are away, or back without a probe having told so yet."""
        begin, end = self.outage
        return begin <= self.now < end + PROBE_S and end > begin

    def length(self):
        """What KEDA reads."""
        return self.visible + (self.parked + self.running if self.counts_in_flight else 0)

    def step(self):
        if self.now < ARRIVAL_S:
            self.visible += EVENTS * (self.now + 1) // ARRIVAL_S - EVENTS * self.now // ARRIVAL_S
        self.work()
        # The burst begins at the worst moment: KEDA and the HPA have just looked.
        if (self.now + 1) % POLLING_INTERVAL_S == 0:
            self.keda()
        if (self.now + 1) % HPA_SYNC_S == 0 and self.pods:
            self.hpa()
        self.pods_most = max(self.pods_most, len(self.pods))
        self.pod_s += len(self.pods)
        if self.handled == EVENTS and self.drained_at is None:
            self.drained_at = self.now + 1
        self.now += 1

    def work(self):
        ready = self.ready()
        self.calls["extend"] += self.parked / BATCH / EXTEND_EVERY_S
        if self.is_away():
            taken = min(self.visible, ready * IN_FLIGHT_MAX - self.parked)
            self.take(taken, ready)
            self.parked += taken
            self.running = 0
            return
        able = min(ready * CONCURRENCY * 1000 // EVENT_MS, self.services_per_s)
        from_parked = min(self.parked, able)
        taken = min(self.visible, able - from_parked)
        self.take(taken, ready)
        self.parked -= from_parked
        self.handled += from_parked + taken
        self.calls["delete"] += (from_parked + taken) / BATCH
        # In hand at an instant, by Little's law.
        self.running = (from_parked + taken) * EVENT_MS // 1000

    def take(self, taken, ready):
        self.visible -= taken
        self.calls["receive"] += taken / BATCH + (ready / WAIT_TIME_S if taken == 0 else 0)

    def keda(self):
        self.calls["count"] += 1
        if self.length() > 0:
            self.last_active = self.now
            if not self.pods:
                self.resize(1)
        elif self.pods and self.now - self.last_active >= COOLDOWN_S:
            self.resize(0)

    def hpa(self):
        self.calls["count"] += 1
        count = len(self.pods)
        ratio = self.length() / (QUEUE_LENGTH * count)
        wanted = count if abs(ratio - 1) <= HPA_TOLERANCE else math.ceil(self.length() / QUEUE_LENGTH)
        wanted = min(max(wanted, 1), PODS_MAX)
        self.wanted = [(at, pods) for at, pods in self.wanted if at > self.now - DOWN_WINDOW_S] + [(self.now, wanted)]
        if wanted > count:
            start = count - self.changed(UP_PERIOD_S)
            self.resize(min(wanted, max(start + UP_PODS, math.ceil(start * (1 + UP_PERCENT / 100)))))
        steady = max(pods for _, pods in self.wanted)
        if steady < count:
            start = count - self.changed(DOWN_PERIOD_S)
            self.resize(max(steady, min(start - DOWN_PODS, int(start * (1 - DOWN_PERCENT / 100)))))
        self.changes.append((self.now, len(self.pods) - count))

    def changed(self, period_s):
        return sum(by for at, by in self.changes if at > self.now - period_s)

    def resize(self, count):
        by = count - len(self.pods)
        if by > 0:
            self.pods += [self.now + POD_START_S] * by
        elif by < 0:
            # Each pod that leaves hands back its share of what is parked: one receive of each message is spent.
            back = self.parked * -by // len(self.pods)
            self.parked -= back
            self.visible += back
            self.handed_back += back
            self.pods = self.pods[:count]
        if count == 0:
            self.wanted = []


def play(until_s, **circumstances):
    """The world after so many seconds, and what was seen every five of the first minute."""
    world = World(**circumstances)
    seen = []
    while world.now < until_s:
        world.step()
        if world.now % 5 == 0 and world.now <= 60:
            seen.append((world.now, len(world.pods), world.ready(), world.visible + world.parked, world.handled))
    return world, seen


def summary(title, world):
    calls = sum(world.calls.values())
    drained = f"{world.drained_at} s" if world.drained_at else "not within the time"
    print(f"{title}")
    print(f"  all handled after   {drained}; {world.handled:,} of {EVENTS:,}")
    print(f"  pods                {world.pods_most} at most, {world.pod_s / 60:,.0f} pod-minutes in {world.now / 60:.0f} minutes")
    print(f"  handed back         {world.handed_back:,} messages, {world.handed_back / EVENTS:.1f} receives each")
    parts = ", ".join(f"{name} {math.ceil(number):,}" for name, number in world.calls.items())
    print(f"  SQS requests        {calls:,.0f} (${calls * PRICE_PER_MILLION / 1e6:.3f}): {parts}")
    print()


def main():
    world, seen = play(900)
    print(f"{EVENTS:,} events in {ARRIVAL_S} s; {EVENT_MS} ms an event, so {CONCURRENCY * 1000 // EVENT_MS} events a second and pod\n")
    print("   time    pods   ready    waiting    handled")
    for second, pods, ready, waiting, handled in seen:
        print(f"{second:5} s {pods:7} {ready:7} {waiting:10,} {handled:10,}")
    print()
    summary("The services keep up:", world)
    summary("The services manage 1,000 events a second:", play(900, services_per_s=1000)[0])
    away = (0, 1800)
    summary("The services are away for half an hour, scaleOnInFlight true:", play(3600, outage=away)[0])
    summary("The same, scaleOnInFlight false:", play(3600, outage=away, counts_in_flight=False)[0])


if __name__ == "__main__":
    main()
