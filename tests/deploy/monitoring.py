"""Checks what the chart makes for Prometheus and Grafana: the rules with what `alerts` sets, the dashboard, and the runbook's headings."""

import copy
import json
import os
import pathlib
import re
import shutil
import subprocess

import yaml

import rules
from harness import CHART, HERE, ROOT, objects, of_kind, template

WITH_RULES = ("--values", HERE / "values/minimal.yaml", "--set-json", "podMonitor.enabled=true,prometheusRule.enabled=true")
SOURCE = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"]
ALERTS = [rule["alert"] for group in SOURCE for rule in group["rules"] if "alert" in rule]
OWN = 'namespace="tickets", job=~"(.+/)?reservation-worker"'
DLQ = "ReservationWorkerDeadLetterQueueFilled"
KEDAS = {"ReservationWorkerNoPods", "ReservationWorkerScalingFails", "ReservationWorkerScalingPaused"}
# A number to set `above` to that is nobody's default.
ABOVE = 0.123


def rendered(checks, *settings, also=()):
    arguments = [part for setting in settings for part in ("--set-json", setting)]
    code, out, err = template(*WITH_RULES, *arguments, *also)
    checks.expect(f"{settings}: helm template", code == 0, err)
    return objects(out) if code == 0 else []


def by_name(documents):
    """Each alert and record by its name."""
    groups = [group for one in of_kind(documents, "PrometheusRule") for group in one["spec"]["groups"]]
    return {rule.get("alert") or rule["record"]: rule for group in groups for rule in group["rules"]}


def runbook(checks):
    """One heading for each alert, in the same order; a case for firing and one for not firing. `make test-observe` runs the cases."""
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/runbook.md").read_text(), re.MULTILINE)
    checks.expect("docs/runbook.md: one heading for each alert, in their order", headings == ALERTS, str(set(headings) ^ set(ALERTS)))
    cases = re.findall(r"alertname: (\w+)\n +exp_alerts:( \[\])?", (ROOT / "deploy/prometheus/alerts.test.yaml").read_text())
    for alert in ALERTS:
        checks.expect(f"{alert}: a case in which it fires", (alert, "") in cases)
        checks.expect(f"{alert}: a case in which it does not", (alert, " []") in cases)


def defaults(checks):
    """Without settings: all alerts but the one on a queue that nobody named, of this release alone."""
    documents = rendered(checks)
    found = by_name(documents)
    checks.expect("alerts: all of them", [name for name in ALERTS if name not in found] == [DLQ], str(set(ALERTS) - found.keys()))
    source = {rule.get("alert") or rule["record"]: rule for group in SOURCE for rule in group["rules"]}
    for name, rule in found.items():
        same = {key: value for key, value in rule.items() if key != "expr"} == {key: value for key, value in source[name].items() if key != "expr"}
        checks.expect(f"alerts: {name} is another rule than in the file", same)
        own = source[name]["expr"].replace('job=~".+"', OWN).strip()
        checks.expect(f"alerts: {name} has another expression", name in KEDAS or rule["expr"].strip() == own, rule["expr"])
    for name in KEDAS:
        here = 'and on (namespace) label_replace(vector(1), "namespace", "tickets", "", "")'
        checks.expect(f"alerts: {name} is for every namespace", found[name]["expr"].endswith(here), found[name]["expr"])
    first, second = of_kind(documents, "PrometheusRule")
    checks.expect("alerts: KEDA's are an object of their own", second["metadata"]["name"] == "reservation-worker-external")
    text = yaml.safe_dump(first)
    checks.expect("alerts: the first object reads the worker's series only", "keda_" not in text and "aws_" not in text)
    unmonitored = by_name(rendered(checks, "podMonitor.enabled=false"))["ReservationWorkerStuck"]["expr"]
    checks.expect("alerts: any job where the chart makes no monitor", 'worker_alive{namespace="tickets", job=~".+"}' in unmonitored, unmonitored)
    no_keda = by_name(rendered(checks, "keda.enabled=false"))
    checks.expect("alerts: none on KEDA where it does not rule", not KEDAS & no_keda.keys())


def settings(checks):
    """Each of the values below `alerts` changes what it says, and nothing else."""
    before = by_name(rendered(checks))
    named = by_name(rendered(checks, 'alerts.labels={"team":"tickets","severity":"info"}'))
    labels = [rule["labels"] for rule in named.values() if "alert" in rule]
    checks.expect("alerts.labels: of every alert", labels and all(one == {"team": "tickets", "severity": "info"} for one in labels), str(labels[:1]))
    linked = by_name(rendered(checks, 'alerts.runbookUrl="https://git.example.com/main/"'))
    for name, rule in linked.items():
        link = rule.get("annotations", {}).get("runbook_url")
        wanted = f"https://git.example.com/main/docs/runbook.md#{name.lower()}"
        checks.expect(f"alerts.runbookUrl: {name} has {link}", "record" in rule or link == wanted and "runbook" not in rule["annotations"])
    few = by_name(rendered(checks, 'alerts.disabled=["ReservationWorkerSpansDropped","ReservationWorkerNoPods"]'))
    gone = before.keys() - few.keys()
    checks.expect("alerts.disabled: those, and no others", gone == {"ReservationWorkerSpansDropped", "ReservationWorkerNoPods"}, str(gone))
    none = rendered(checks, f"alerts.disabled={json.dumps(sorted(KEDAS))}")
    checks.expect("alerts.disabled: no empty object", len(of_kind(none, "PrometheusRule")) == 1)
    own = by_name(rendered(checks, 'alerts.selector="cluster=\\"a\\", job=\\"w\\""'))
    checks.expect("alerts.selector: at each series", all('{cluster="a", job="w"' in rule["expr"] for name, rule in own.items() if name not in KEDAS))
    slower = by_name(rendered(checks, 'alerts.objective={"share":0.99,"seconds":300}'))
    late, fast = slower["namespace_job:worker_events_late:increase5m"]["expr"], slower["ReservationWorkerBudgetBurnsFast"]["expr"]
    checks.expect("alerts.objective: its seconds", 'le="300"' in late and 'le="60"' not in late, late)
    checks.expect("alerts.objective: its share", fast.count("(1 - 0.99)") == 4 and "0.95" not in fast, fast)
    buckets = re.search(r"AGE_BUCKETS.*?\[([^\]]*)\];", (ROOT / "src/metrics/build.rs").read_text(), re.DOTALL).group(1)
    bounds = {float(bound) for bound in buckets.split(",")}
    allowed = schema()["properties"]["alerts"]["properties"]["objective"]["properties"]["seconds"]["enum"]
    checks.expect("alerts.objective: each allowed number of seconds is a bucket's", set(allowed) <= bounds, str(bounds))


def schema():
    return yaml.safe_load((CHART / "values.schema.json").read_text())


def thresholds(checks):
    """The schema knows every alert, and allows `above` for those that compare with a number, which is the one that changes."""
    properties = schema()["properties"]["alerts"]["properties"]["thresholds"]["properties"]
    known = {name for name, one in properties.items() if one["$ref"].endswith("/compared")}
    checks.expect("values.schema.json: the alerts that have thresholds", list(properties) == ALERTS)
    checks.expect("values.schema.json: the alerts that can be disabled", schema()["definitions"]["alert"]["enum"] == ALERTS)
    queue = 'alerts.deadLetterQueue.name="q-dlq"'
    before = by_name(rendered(checks, queue))
    lasting = {name: {"for": "1h"} for name in ALERTS}
    compared = {name: {"above": ABOVE} for name in known}
    after = by_name(rendered(checks, queue, f"alerts.thresholds={json.dumps(lasting)}"))
    checks.expect("alerts.thresholds: for", all(rule["for"] == "1h" for name, rule in after.items() if name in ALERTS))
    after = by_name(rendered(checks, queue, f"alerts.thresholds={json.dumps(compared)}"))
    for name in ALERTS:
        changed = re.sub(r"> [0-9.]+$", f"> {ABOVE}", before[name]["expr"].strip()) if name in known else before[name]["expr"].strip()
        checks.expect(f"alerts.thresholds: {name}", after[name]["expr"].strip() == changed, after[name]["expr"])
        differs = changed != before[name]["expr"].strip()
        checks.expect(f"alerts.thresholds: {name}: `above` changes nothing", differs or name not in known)
    wrong = [
        ('alerts.thresholds={"ReservationWorkerEventsFail":{"for":"1h"}}', "'/alerts/thresholds'"),
        ('alerts.thresholds={"ReservationWorkerStuck":{"above":1}}', "'/alerts/thresholds/ReservationWorkerStuck'"),
        ('alerts.thresholds={"ReservationWorkerStuck":{"for":"soon"}}', "'/alerts/thresholds/ReservationWorkerStuck/for'"),
        ('alerts.disabled=["Stuck"]', "'/alerts/disabled/0'"),
        ("alerts.objective.seconds=30", "'/alerts/objective/seconds'"),
        # 14.4 times a budget of more than a fourteenth is more than everything: the alert would never fire.
        ("alerts.objective.share=0.9", "'/alerts/objective/share'"),
        ('alerts.labels={"my-team":"x"}', "'/alerts/labels'"),
    ]
    for setting, expected in wrong:
        code, out, err = template(*WITH_RULES, "--set-json", setting)
        checks.expect(f"{setting} is not refused", code != 0 and not out and expected in err, err)


def dead_letter_queue(checks):
    """The alert on the dead-letter queue's depth is there where its name or its depth is known."""
    url = "https://sqs.ap-northeast-2.amazonaws.com/123456789012/seats-dlq.fifo"
    found = by_name(rendered(checks, f'config.sqsDlqUrl="{url}"')).get(DLQ, {}).get("expr", "")
    both = all(f'{label}="seats-dlq.fifo"' in found for label in ("dimension_QueueName", "queue_name"))
    checks.expect("the dead-letter queue: the name in its URL", both and "reservations-dlq" not in found, found)
    given = by_name(rendered(checks, f'config.sqsDlqUrl="{url}"', 'alerts.deadLetterQueue.name="other"')).get(DLQ, {}).get("expr", "")
    checks.expect("the dead-letter queue: the name that is given wins", '="other"' in given and "seats" not in given, given)
    depth = 'alerts.deadLetterQueue.depth="my_queue_depth{queue=\\"q\\"}"'
    own = by_name(rendered(checks, depth, f'alerts.thresholds={{"{DLQ}":{{"above":5}}}}')).get(DLQ, {}).get("expr")
    checks.expect("the dead-letter queue: another exporter's metric", own == 'max(my_queue_depth{queue="q"}) > 5', str(own))


def dashboard(checks):
    """The ConfigMap holds the dashboard as it is; each of its queries looks at the release that is chosen."""
    whole = json.loads((ROOT / "deploy/grafana/reservation-worker.json").read_text())
    checks.expect("dashboard: none unless it is wanted", not of_kind(rendered(checks), "ConfigMap"))
    (found,) = of_kind(rendered(checks, 'dashboard={"enabled":true,"labels":{"grafana_dashboard":"1"}}'), "ConfigMap")
    checks.expect("dashboard: the sidecar's label", found["metadata"]["labels"].get("grafana_dashboard") == "1")
    checks.expect("dashboard: in the release's namespace", "namespace" not in found["metadata"])
    checks.expect("dashboard: whole", {name: json.loads(text) for name, text in found["data"].items()} == {"reservation-worker.json": whole})
    (other,) = of_kind(rendered(checks, also=("--values", HERE / "values/dashboard.yaml")), "ConfigMap")
    checks.expect("dashboard: another namespace", other["metadata"]["namespace"] == "monitoring")
    checks.expect("dashboard: the folder", other["metadata"]["annotations"] == {"grafana_folder": "Tickets"})
    taken = set()
    for panel in whole["panels"]:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        checks.expect(f"dashboard: {panel['title']} lies on another panel", not cells & taken and place["x"] + place["w"] <= 24)
        taken |= cells
        for expr in [target["expr"] for target in panel.get("targets", [])]:
            for metric, matchers in re.findall(r"\b((?:worker|sqs|process|keda|kube)_\w+)(\{[^}]*\})?", expr):
                chosen = "$release" in matchers and "$namespace" in matchers
                checks.expect(f"dashboard: {panel['title']}: {metric} of every release", chosen, expr)


# Series of a release `reservation-worker` in namespace tickets, beside another release and another namespace. Each case: the series,
# the alert, and whether it fires.
TICKETS = 'namespace="tickets",job="tickets/reservation-worker",pod="a"'
OTHER = 'namespace="tickets",job="tickets/other-reservation-worker-2",pod="b"'
KEDA = 'namespace="keda",exported_namespace="%s",scaledObject="reservation-worker-scaler"'
CASES = [
    ({f"worker_alive{{{TICKETS}}}": "0x20"}, "ReservationWorkerStuck", True),
    ({f"worker_alive{{{OTHER}}}": "0x20"}, "ReservationWorkerStuck", False),
    ({"worker_alive{namespace=\"tickets\",job=\"reservation-worker\"}": "0x20"}, "ReservationWorkerStuck", True),
    ({"worker_alive{namespace=\"staging\",job=\"staging/reservation-worker\"}": "0x20"}, "ReservationWorkerStuck", False),
    ({f"keda_scaler_metrics_value{{{KEDA % 'tickets'}}}": "9x20"}, "ReservationWorkerNoPods", True),
    ({f"keda_scaler_metrics_value{{{KEDA % 'tickets'}}}": "9x20", f"worker_ready{{{OTHER}}}": "1x20"}, "ReservationWorkerNoPods", True),
    ({f"keda_scaler_metrics_value{{{KEDA % 'tickets'}}}": "9x20", f"worker_ready{{{TICKETS}}}": "1x20"}, "ReservationWorkerNoPods", False),
    ({f"keda_scaler_metrics_value{{{KEDA % 'staging'}}}": "9x20"}, "ReservationWorkerNoPods", False),
    ({f"keda_scaled_object_paused{{{KEDA % 'tickets'}}}": "1x20"}, "ReservationWorkerScalingPaused", True),
    ({f"keda_scaled_object_paused{{{KEDA % 'staging'}}}": "1x20"}, "ReservationWorkerScalingPaused", False),
    ({f"keda_scaled_object_errors_total{{{KEDA % 'tickets'}}}": "0+9x20"}, "ReservationWorkerScalingFails", True),
    ({f"keda_scaled_object_errors_total{{{KEDA % 'staging'}}}": "0+9x20"}, "ReservationWorkerScalingFails", False),
]


def evaluated(checks):
    """promtool evaluates the rendered rules: a release's alerts are about that release alone."""
    promtool = shutil.which("promtool")
    if not promtool:
        print("deploy: LEFT OUT: the rendered rules in promtool (Debian: apt-get install prometheus)")
        return
    scratch = pathlib.Path(os.environ["DEPLOY_SCRATCH"])
    documents = rendered(checks, 'alerts.deadLetterQueue.name="q-dlq"')
    groups = [group for one in of_kind(documents, "PrometheusRule") for group in one["spec"]["groups"]]
    # What a case expects of annotations is alerts.test.yaml's matter.
    for rule in [rule for group in groups for rule in group["rules"]]:
        rule.pop("annotations", None)
    names = {rule.get("alert"): rule.get("labels") for group in groups for rule in group["rules"]}
    (scratch / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    tests = []
    for series, alert, fires in CASES:
        labels = {**names[alert], "namespace": "tickets"}
        if alert == "ReservationWorkerStuck":
            (name,) = series
            labels = {**labels, **dict(re.findall(r'(\w+)="([^"]*)"', name))}
        expected = [{"exp_labels": labels}] if fires else []
        test = {"interval": "1m", "input_series": [{"series": name, "values": values} for name, values in series.items()]}
        tests.append({**test, "alert_rule_test": [{"eval_time": "19m", "alertname": alert, "exp_alerts": expected}]})

    def run(cases):
        (scratch / "cases.yaml").write_text(yaml.safe_dump({"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": cases}))
        done = subprocess.run([promtool, "test", "rules", scratch / "cases.yaml"], capture_output=True, text=True, timeout=120, check=False)
        return done.returncode == 0, done.stdout + done.stderr

    holds, said = run(tests)
    checks.expect("the rendered rules in promtool", holds, said)
    wrong = copy.deepcopy(tests)
    wrong[1]["alert_rule_test"][0]["exp_alerts"] = [{"exp_labels": {"severity": "critical"}}]
    checks.expect("promtool takes an alert that does not fire for one that does", not run(wrong)[0])


def run(checks):
    runbook(checks)
    defaults(checks)
    settings(checks)
    thresholds(checks)
    dead_letter_queue(checks)
    dashboard(checks)
    evaluated(checks)
    checks.none("every alert set and disabled: rules", rules.findings(rendered(checks, 'alerts.labels={"team":"tickets"}')))
