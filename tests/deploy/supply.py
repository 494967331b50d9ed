"""Checks the files beside the chart: IAM policies, compose file, the burst's calculation, and the README that quotes it."""

import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys
import tarfile

import jsonschema
import yaml

from harness import CHART, HERE, ROOT, helm, render, worker_container

DEPLOY = ROOT / "deploy"
PLACEHOLDERS = {"REGION", "ACCOUNT", "QUEUE", "DLQ", "QUEUE_KEY", "DLQ_KEY", "CLUSTER", "OIDC_ID", "NAMESPACE", "SERVICE_ACCOUNT"}

# Who may do what by each statement: exactly this.
WORKER_MAY = {
    "arn:aws:sqs:REGION:ACCOUNT:QUEUE": {
        "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes",
    },
    "arn:aws:sqs:REGION:ACCOUNT:DLQ": {"sqs:SendMessage", "sqs:GetQueueUrl"},
    "arn:aws:kms:REGION:ACCOUNT:key/QUEUE_KEY": {"kms:Decrypt"},
    "arn:aws:kms:REGION:ACCOUNT:key/DLQ_KEY": {"kms:Decrypt", "kms:GenerateDataKey"},
}
OPERATOR_MAY = {
    "arn:aws:sqs:REGION:ACCOUNT:DLQ": {
        "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes", "sqs:GetQueueUrl",
    },
    "arn:aws:sqs:REGION:ACCOUNT:QUEUE": {"sqs:SendMessage", "sqs:GetQueueAttributes"},
    "arn:aws:kms:REGION:ACCOUNT:key/DLQ_KEY": {"kms:Decrypt"},
    "arn:aws:kms:REGION:ACCOUNT:key/QUEUE_KEY": {"kms:Decrypt", "kms:GenerateDataKey"},
}
KEDA_MAY = {"arn:aws:sqs:REGION:ACCOUNT:QUEUE": {"sqs:GetQueueAttributes"}}


def as_list(value):
    return value if isinstance(value, list) else [value]


def allowed(policy):
    """The allowed actions by resource."""
    may = {}
    for statement in policy["Statement"]:
        for resource in as_list(statement["Resource"]):
            may.setdefault(resource, set()).update(as_list(statement["Action"]))
    return may


def iam(checks):
    policies = {path.name: json.loads(path.read_text()) for path in sorted((DEPLOY / "iam").glob("*.json"))}
    names = ["keda-policy.json", "operator-policy.json", "policy.json", "trust-irsa.json", "trust-pod-identity.json"]
    checks.expect("deploy/iam: its files", list(policies) == names, str(list(policies)))
    checks.expect("policy.json allows what the worker needs, and nothing else", allowed(policies["policy.json"]) == WORKER_MAY)
    operators = allowed(policies["operator-policy.json"])
    checks.expect("operator-policy.json allows what `dlq` needs, and nothing else", operators == OPERATOR_MAY)
    checks.expect("keda-policy.json allows what KEDA needs, and nothing else", allowed(policies["keda-policy.json"]) == KEDA_MAY)
    readme = (DEPLOY / "README.md").read_text()
    for name, policy in policies.items():
        text = json.dumps(policy)
        checks.expect(f"{name}: a wildcard", "*" not in text and "NotAction" not in text and "NotResource" not in text)
        checks.expect(f"{name}: Version", policy["Version"] == "2012-10-17")
        checks.expect(f"{name}: Effect", all(one["Effect"] == "Allow" for one in policy["Statement"]))
        unknown = set(re.findall(r"\b[A-Z][A-Z_]+\b", text)) - PLACEHOLDERS
        checks.expect(f"{name}: placeholders that nobody explains: {unknown}", not unknown)
        for one in policy["Statement"]:
            for resource in as_list(one.get("Resource", [])):
                if resource.startswith("arn:aws:kms"):
                    via = one.get("Condition", {}).get("StringEquals", {}).get("kms:ViaService")
                    checks.expect(f"{name}: the key is used through SQS only", via == "sqs.REGION.amazonaws.com")
    for placeholder in PLACEHOLDERS:
        checks.expect(f"deploy/README.md: what is {placeholder}?", f"`{placeholder}`" in readme)
    command = re.search(r"^sed -e .*?policy\.json$", readme, re.MULTILINE | re.DOTALL).group(0)
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=10, check=False)
    left = set(re.findall(r"\b[A-Z][A-Z_]+\b", done.stdout))
    checks.expect(f"deploy/README.md: its sed leaves {left}", done.returncode == 0 and json.loads(done.stdout) and not left)
    account = "system:serviceaccount:NAMESPACE:SERVICE_ACCOUNT"
    checks.expect("trust-irsa.json: one service account", f":sub\": \"{account}\"" in json.dumps(policies["trust-irsa.json"]))
    pod_identity = policies["trust-pod-identity.json"]["Statement"][0]["Condition"]["StringEquals"]
    checks.expect("trust-pod-identity.json: one service account", pod_identity.get("aws:RequestTag/kubernetes-service-account") == "SERVICE_ACCOUNT")


def compose(checks):
    text = (DEPLOY / "compose.yaml").read_text()
    document = yaml.safe_load(text)
    schema = json.loads((HERE / "schemas/compose-spec.json").read_text())
    errors = [f"{error.json_path}: {error.message[:200]}" for error in jsonschema.Draft7Validator(schema).iter_errors(document)]
    checks.none("compose.yaml: the schema", errors)
    services = document["services"]
    checks.expect("compose.yaml: its services", services.keys() == {"localstack", "sandbox", "worker", "prometheus", "grafana", "jaeger"})
    for name, service in services.items():
        checks.expect(f"compose.yaml: {name}: needs services that are there", set(service.get("depends_on", {})) <= services.keys())
        for port in service.get("ports", []):
            checks.expect(f"compose.yaml: {name}: {port} is open to the network", port.startswith("127.0.0.1:"))
        for volume in service.get("volumes", []):
            source = DEPLOY / volume.split(":")[0]
            # The folder of dashboards may be empty.
            checks.expect(f"compose.yaml: {name}: no {source.name}", source.exists() or source == DEPLOY / "grafana")
        image = service.get("image", "")
        checks.expect(f"compose.yaml: {name}: an image without a version", not image or re.search(r":[^:/}]+}?$", image))
    used = dict(re.findall(r"\$\{([A-Z_]+):-([^}]*)\}", text))
    told = dict(re.findall(r"^([A-Z_]+)=(.*)$", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
    checks.expect("deploy/.env.example: other variables or defaults than in compose.yaml", used == told, str(used.items() ^ told.items()))
    known = set(re.findall(r"^    ([A-Z][A-Z_]+): ", (ROOT / "src/config/table.rs").read_text(), re.MULTILINE))
    own = {name for name in services["worker"]["environment"] if not name.startswith("AWS_")}
    checks.none("compose.yaml: variables that the worker does not know", sorted(own - known))
    queues = (DEPLOY / "compose/queues.sh").read_text()
    redrive = json.loads(json.loads(re.search(r"'(\{.*?\n\})'", queues, re.DOTALL).group(1))["RedrivePolicy"])
    checks.expect("queues.sh: the redrive policy", redrive["deadLetterTargetArn"].endswith(":reservations-dlq") and redrive["maxReceiveCount"] == "10")
    scrapes = yaml.safe_load((DEPLOY / "compose/prometheus.yaml").read_text())["scrape_configs"]
    targets = [target for scrape in scrapes for group in scrape["static_configs"] for target in group["targets"]]
    aliases = services["sandbox"]["networks"]["default"]["aliases"]
    checks.expect("compose/prometheus.yaml: scrapes the worker", targets == [f"{aliases[0]}:8040"])
    shares = services["worker"]["network_mode"] == "service:sandbox"
    checks.expect("compose.yaml: the worker shares the sandbox's network, where the services listen on 127.0.0.1", shares)


def burst_module():
    spec = importlib.util.spec_from_file_location("burst", DEPLOY / "burst/burst.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def burst(checks):
    done = subprocess.run([sys.executable, DEPLOY / "burst/burst.py"], capture_output=True, text=True, timeout=60, check=False)
    readme = (DEPLOY / "README.md").read_text()
    quoted = re.search(r"<!-- burst -->\n```\n(.*?)```\n<!-- /burst -->", readme, re.DOTALL).group(1)
    checks.expect("deploy/README.md quotes another output of burst.py", done.returncode == 0 and quoted.strip() == done.stdout.strip(), done.stderr)
    module = burst_module()
    keda = yaml.safe_load((CHART / "values.yaml").read_text())["keda"]
    up, down = (
        {one["type"]: (one["value"], one["periodSeconds"]) for one in keda["behavior"][direction]["policies"]}
        for direction in ("scaleUp", "scaleDown")
    )
    pairs = [
        (module.PODS_MAX, keda["maxReplicaCount"]),
        (module.QUEUE_LENGTH, keda["queueLength"]),
        (module.POLLING_INTERVAL_S, keda["pollingInterval"]),
        (module.COOLDOWN_S, keda["cooldownPeriod"]),
        (module.DOWN_WINDOW_S, keda["behavior"]["scaleDown"]["stabilizationWindowSeconds"]),
        ({"Percent": (module.UP_PERCENT, module.UP_PERIOD_S), "Pods": (module.UP_PODS, module.UP_PERIOD_S)}, up),
        ({"Percent": (module.DOWN_PERCENT, module.DOWN_PERIOD_S), "Pods": (module.DOWN_PODS, module.DOWN_PERIOD_S)}, down),
    ]
    for mine, theirs in pairs:
        checks.expect(f"burst.py counts with {mine}, values.yaml says {theirs}", mine == theirs)
    outage = (0, 1800)
    steady, wild = (module.play(3600, outage=outage, counts_in_flight=counts)[0] for counts in (True, False))
    for world in (steady, wild):
        total = world.handled + world.visible + world.parked
        checks.expect("burst.py: no message appears or is lost", total == module.EVENTS, str(total))
        checks.expect("burst.py: pods within bounds", world.pods_most <= module.PODS_MAX)
    checks.expect("scaleOnInFlight true hands nothing back in an outage", steady.handed_back == 0)
    checks.expect("scaleOnInFlight false hands messages back in an outage", wild.handed_back > module.EVENTS)


def links(checks):
    """Every relative link of deploy/README.md leads to a file, and every make target that it names exists."""
    readme = (DEPLOY / "README.md").read_text()
    for link in re.findall(r"\]\(([^)#:]+)\)", readme):
        checks.expect(f"deploy/README.md: {link} does not exist", (DEPLOY / link).exists())
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"`make ([a-z-]+)`", readme)):
        checks.expect(f"deploy/README.md: make {target}: no such target", re.search(rf"^{target}:", makefile, re.MULTILINE))


def dockerfile(checks):
    """The image's build has all manifests of the workspace: cargo reads them even for members it does not build."""
    manifest = (ROOT / "Cargo.toml").read_text()
    members = set(re.findall(r'"([^"]+)"', re.search(r"^members = \[(.*)\]", manifest, re.MULTILINE).group(1))) - {"."}
    dockerfile, ignored = (ROOT / "Dockerfile").read_text(), (ROOT / ".dockerignore").read_text()
    for test in re.findall(r'^\[\[test\]\]\nname = "([^"]+)"', manifest, re.MULTILINE):
        checks.expect(f"Dockerfile: tests/{test}/main.rs has no placeholder", f"tests/{test}/main.rs" in dockerfile)
    for member in members:
        checks.expect(f"Dockerfile: {member}/Cargo.toml is not copied", f"COPY {member}/Cargo.toml" in dockerfile)
        checks.expect(f".dockerignore: {member}/Cargo.toml is left out", f"!{member}/Cargo.toml" in ignored)
    sandbox = (DEPLOY / "compose/sandbox.Dockerfile.dockerignore").read_text().split()
    for folder in {member.split("/")[0] for member in members} | {"src", "proto", "tests"}:
        checks.expect(f"sandbox.Dockerfile.dockerignore: {folder} is left out", f"!{folder}" in sandbox)


def workflow(checks):
    """The workflow runs every part of .ci/run through that script, and installs what the tests need."""
    parts = re.search(r"parts=\((check [a-z -]+)\)", (ROOT / ".ci/run").read_text()).group(1).split()
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    # Its tools come from npm and PyPI, which the runner can reach.
    run_by_it = {"test-deploy"} if "make test-deploy" in commands else set()
    run_by_it |= {part for command in commands if command.startswith(".ci/run ") for part in command.split()[1:]}
    checks.none("ci.yml: parts of .ci/run that no job runs", sorted(set(parts) - run_by_it))
    release = jobs["release"]
    checks.expect("ci.yml: what is published waits for every other job", set(release["needs"]) == jobs.keys() - {"images", "release"})
    checks.expect("ci.yml: only a version is published", release["if"] == "startsWith(github.ref, 'refs/tags/v')")
    for name, job in jobs.items():
        rights = set(job.get("permissions", {}).values())
        checks.expect(f"ci.yml: {name} may write", name == "release" or rights <= {"read"})
        pushes = [step["with"]["push"] for step in job["steps"] if "push" in step.get("with", {})]
        checks.expect(f"ci.yml: {name} pushes {pushes}", pushes == ([True] if name == "release" else [False] if name == "images" else []))
    names = "\n".join(step.get("run", "") for step in release["steps"] if "GITHUB_ENV" in step.get("run", ""))
    checks.expect("ci.yml: an owner in upper case makes no name of an image", names.count("${GITHUB_REPOSITORY_OWNER,,}") == 2)
    text = (ROOT / ".github/workflows/ci.yml").read_text()
    whole = [one for one in re.findall(r"\$\{\{ ?github\.repository\w* ?\}\}", text) if "repository" in one]
    checks.expect(f"ci.yml: {whole} is as it is spelt", not whole)


def published_chart(checks):
    """The chart as it is published: its registry, version and home; without a registry to push to."""
    scratch = pathlib.Path(os.environ["DEPLOY_SCRATCH"])
    command = [HERE / "publish", "ghcr.io/acme", "https://github.com/Acme/tickets", "1.2.3"]
    environment = {**os.environ, "HOME": str(scratch), "DESTINATION": str(scratch)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    package = scratch / "reservation-worker-1.2.3.tgz"
    checks.expect("publish", done.returncode == 0 and done.stdout.strip() == str(package), done.stderr)
    code, out, err = helm("show", "chart", package)
    about = yaml.safe_load(out) if code == 0 else {}
    wanted = {"version": "1.2.3", "appVersion": "1.2.3", "home": "https://github.com/Acme/tickets", "sources": ["https://github.com/Acme/tickets"]}
    checks.expect("the published chart: version, home, sources", wanted.items() <= about.items(), str(about) + err)
    checks.expect("the published chart: its icon", about.get("icon", "").startswith("data:image/svg+xml;base64,"))
    documents = render(checks, HERE / "values/longest-name.yaml", chart=package)
    image = worker_container(documents)["image"]
    checks.expect("the published chart: the image that is published with it", image == "ghcr.io/acme/reservation-worker:v1.2.3", image)
    with tarfile.open(package) as archive:
        names = archive.getnames()
    checks.expect("the published chart: README and examples", {"reservation-worker/README.md", "reservation-worker/examples/irsa.yaml"} <= set(names))


def run(checks):
    iam(checks)
    compose(checks)
    dockerfile(checks)
    workflow(checks)
    published_chart(checks)
    burst(checks)
    links(checks)
