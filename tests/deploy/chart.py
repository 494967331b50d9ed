"""Renders the chart with every set in `values/` and checks the result against the schemas, the rules and the values."""

import math
import re

import yaml

import features
import rules
import sabotage
import schemas
from harness import CHART, HELMS, HERE, ROOT, at_once, helm, kustomize, objects, of_kind, one_of, render, template, worker_container

KINDS_OF_MINIMAL = [
    "Deployment", "NetworkPolicy", "Pod", "PodDisruptionBudget", "ScaledObject", "Service", "ServiceAccount", "TriggerAuthentication",
]
VALUE_SETS_MIN = 30
MONITORS = ("--set", "podMonitor.enabled=true", "--set", "prometheusRule.enabled=true")


def variable(key):
    """The worker's variable name of a value below `config`."""
    return re.sub("([A-Z])", r"_\1", key).upper()


def text(value):
    """A value as the worker reads it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def environment(documents):
    return {one["name"]: one for one in worker_container(documents)["env"]}


def said_of(path, scratch):
    """What the tools say of a set of values: each helm's rendering, helm's lint, kustomize's reading."""
    renderings = {name: template("--values", path, helm_name=name) for name in HELMS}
    folder = scratch / "kustomize" / path.stem
    folder.mkdir(parents=True)
    (folder / "all.yaml").write_text(renderings["helm 4"][1])
    (folder / "kustomization.yaml").write_text("resources: [all.yaml]\n")
    return path, renderings, helm("lint", "--strict", "--values", path, CHART), kustomize(folder)


def value_sets(checks, scratch):
    paths = [*sorted((HERE / "values").glob("*.yaml")), *features.EXAMPLES, ROOT / "deploy/k8s.values.yaml"]
    checks.expect(f"{len(paths)} sets of values are too few", len(paths) >= VALUE_SETS_MIN)
    for path, renderings, lint, kustomized in at_once(lambda path: said_of(path, scratch), paths):
        code, out, err = renderings.pop("helm 4")
        checks.expect(f"{path.name}: helm template", code == 0, err)
        if code != 0:
            continue
        documents = objects(out)
        checks.none(f"{path.name}: schemas", [found for one in documents for found in schemas.findings(one)])
        given = yaml.safe_load(path.read_text())
        # Probes and a security context are missing where they are taken out on purpose.
        if "probes" not in given:
            checks.none(f"{path.name}: rules", rules.findings(documents))
        config_is_taken(checks, path, documents)
        checks.expect(f"{path.name}: helm lint", lint[0] == 0 and "[WARNING]" not in lint[1], lint[1] + lint[2])
        for name, (code, other, err) in renderings.items():
            checks.expect(f"{path.name}: {name} renders something else", code == 0 and objects(other) == documents, err)
        code, out, err = kustomized
        checks.expect(f"{path.name}: kubectl kustomize", code == 0 and len(objects(out)) == len(documents), err)


def config_is_taken(checks, path, documents):
    """Checks that the container's environment has the variables of a set's `config`, and no others."""
    given = yaml.safe_load(path.read_text()).get("config", {})
    variables = environment(documents)
    for key, value in given.items():
        name = variable(key)
        if key == "idempotencyStoreSecret":
            reference = variables["IDEMPOTENCY_STORE"].get("valueFrom", {}).get("secretKeyRef")
            checks.expect(f"{path.name}: IDEMPOTENCY_STORE", reference == value, str(reference))
        elif key == "otelResourceAttributes":
            checks.expect(f"{path.name}: {name}", variables[name]["value"].endswith("," + value))
        elif value is None:
            checks.expect(f"{path.name}: {name} is set, and was taken out", name not in variables)
        else:
            found = variables.get(name, {}).get("value")
            checks.expect(f"{path.name}: {name} is {found!r}", found == text(value))
    always = {"OTEL_RESOURCE_ATTRIBUTES", "AWS_REGION", "SHUTDOWN_GRACE", "SERVER_PORT", "INVENTORY_GRPC_ADDR", "RESERVATION_API_BASE"}
    always |= {"IDEMPOTENCY_STORE"} if "idempotencyStoreSecret" in given else set()
    extra = {one["name"] for one in yaml.safe_load(path.read_text()).get("extraEnv") or []}
    unasked = {name for name in variables if not name.startswith("K8S_")} - always - extra - {variable(key) for key in given}
    checks.expect(f"{path.name}: nobody asked for {unasked}", not unasked)


def documented_command(checks):
    """Checks the README's command: its release, its two values, and the names from the issue."""
    url = "https://sqs.ap-northeast-2.amazonaws.com/123456789012/reservations"
    code, out, err = template("--set", "image.tag=v0.1.0", "--set", f"config.sqsQueueUrl={url}")
    checks.expect("the documented command", code == 0, err)
    documents = objects(out)
    kinds = sorted(one["kind"] for one in documents)
    checks.expect("the documented command: its objects", kinds == KINDS_OF_MINIMAL, str(kinds))
    scaled = of_kind(documents, "ScaledObject")[0]
    wanted = {"queueLength": "10", "activationQueueLength": "0", "awsRegion": "ap-northeast-2", "scaleOnInFlight": "true", "queueURL": url}
    checks.expect("ScaledObject: its name", scaled["metadata"]["name"] == "reservation-worker-scaler")
    checks.expect("ScaledObject: its target", scaled["spec"]["scaleTargetRef"]["name"] == "reservation-worker")
    replicas = scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]
    checks.expect("ScaledObject: 0 to 50 pods", replicas == (0, 50), str(replicas))
    checks.expect("ScaledObject: its trigger", scaled["spec"]["triggers"][0]["metadata"] == wanted)
    attributes = environment(documents)["OTEL_RESOURCE_ATTRIBUTES"]["value"]
    for name in ("k8s.pod.name", "k8s.namespace.name", "k8s.node.name", "k8s.deployment.name"):
        checks.expect(f"OTEL_RESOURCE_ATTRIBUTES: {name}", f"{name}=" in attributes)
    code, out, err = template("--values", HERE / "values/minimal.yaml", *MONITORS)
    checks.expect("the documented command, with monitors", code == 0, err)
    flavours = ("--set", "networkPolicy.flavour=cilium", "--set", "serviceMonitor.enabled=true")
    sabotage.run(checks, objects(out), render(checks, HERE / "values/minimal.yaml", *flavours))


def particulars(checks):
    """Checks details that only one set of values shows."""
    def rendered(name, *more, release="reservation-worker"):
        return render(checks, HERE / f"values/{name}.yaml", *more, release=release)

    def egress(documents, port):
        return [rule["to"] for rule in of_kind(documents, "NetworkPolicy")[0]["spec"]["egress"] for one in rule["ports"] if one["port"] == port]

    minimal = rendered("minimal")
    agent = [[{"ipBlock": {"cidr": "169.254.170.23/32"}}, {"ipBlock": {"cidr": "fd00:ec2::23/128"}}]]
    checks.expect("Pod Identity: its agent is reached", egress(minimal, 80) == agent)
    production = rendered("production")
    checks.expect("IRSA: Pod Identity's agent is not reached", agent[0] not in egress(production, 80))
    account = of_kind(production, "ServiceAccount")[0]["metadata"]["annotations"]
    checks.expect("IRSA: the role", account["eks.amazonaws.com/role-arn"] == "arn:aws:iam::123456789012:role/reservation-worker")
    tickets = [[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "tickets"}}}]]
    checks.expect("a service in another namespace, on its pods' port", egress(production, 9090) == tickets)
    cidrs = [[{"ipBlock": {"cidr": "10.20.0.0/24"}}, {"ipBlock": {"cidr": "10.20.1.0/24"}}]]
    checks.expect("AWS only where it is said to be", egress(production, 443) == cidrs)
    everything = rendered("everything")
    checks.expect("fullnameOverride", of_kind(everything, "ScaledObject")[0]["metadata"]["name"] == "tickets-worker-scaler")
    checks.expect("an address in the cluster", egress(everything, 8443) == [[{"ipBlock": {"cidr": "10.1.2.3/32"}}]])
    checks.expect("Redis on its usual port", egress(everything, 6379) == [[{"ipBlock": {"cidr": "10.1.2.5/32"}}]])
    existing = of_kind(rendered("existing-config"), "ScaledObject")[0]["spec"]["triggers"][0]["metadata"]
    checks.expect("a queue that only a ConfigMap names", existing.get("queueURLFromEnv") == "SQS_QUEUE_URL")
    no_collector = egress(rendered("localstack"), 4317)
    checks.expect("no traces, no way to a collector", no_collector == [])
    other = rendered("minimal", *MONITORS, release="tickets")
    checks.none("another release's name: rules", rules.findings(other))
    checks.expect("another release's name", of_kind(other, "Deployment")[0]["metadata"]["name"] == "tickets-reservation-worker")
    tag = "build-" + "0" * 56 + "-1"
    odd = rendered("minimal", *MONITORS, "--set-string", f"image.tag={tag},nameOverride=my.worker", release="team.tickets")
    checks.none("names with dots and a long tag: rules", rules.findings(odd))
    redis = ("--set", "existingSecret=worker", "--set", "networkPolicy.redis.to[0].ipBlock.cidr=10.9.0.0/16")
    checks.expect("a way to a Redis that only a Secret names", egress(rendered("minimal", *redis), 6379) == [[{"ipBlock": {"cidr": "10.9.0.0/16"}}]])
    code, out, _ = template("--values", HERE / "values/minimal.yaml", "--api-versions", "monitoring.coreos.com/v1")
    checks.expect("monitors where the cluster knows them", code == 0 and of_kind(objects(out), "PodMonitor"))
    code, out, _ = template("--values", HERE / "values/minimal.yaml", "--show-only", "templates/tests/check.yaml")
    pod = objects(out)[0]
    checks.expect("helm test: runs `check`", pod["spec"]["containers"][0]["args"] == ["check"])
    checks.expect("helm test: is a test", pod["metadata"]["annotations"]["helm.sh/hook"] == "test")
    # Helm reads the logs after it deleted what succeeded, and fails: https://github.com/helm/helm/issues/9098
    policy = pod["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    checks.expect("helm test --logs: its pod stays until the next test", policy == "before-hook-creation", policy)
    replicas = one_of(rendered("no-keda"), "Deployment")["spec"].get("replicas")
    checks.expect("without KEDA the Deployment says how many pods", replicas == 3, str(replicas))
    notes_say(checks)


def right_values_are_taken(checks):
    """Checks unusual valid values: regions of every partition, old queue URLs, the longest names."""
    urls = {
        "https://eu-west-1.queue.amazonaws.com/123456789012/q": "eu-west-1",
        "https://queue.amazonaws.com/123456789012/q": "us-east-1",
        "https://sqs.eu-west-1.api.aws/123456789012/q": "eu-west-1",
        "https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q": "cn-north-1",
        "https://sqs.us-gov-west-1.amazonaws.com/123456789012/q": "us-gov-west-1",
        "https://sqs.eusc-de-east-1.amazonaws.eu/123456789012/q": "eusc-de-east-1",
    }
    for url, region in urls.items():
        code, out, err = template("--set", f"config.sqsQueueUrl={url}")
        found = environment(objects(out))["AWS_REGION"]["value"] if code == 0 else err
        checks.expect(f"{url}: the region", found == region, found)
    long_name = "a" * 253
    right = [
        "config.awsRegion=eusc-de-east-1,config.sqsQueueUrl=null,existingConfigMap=worker",
        f"config.idempotencyStoreSecret.name={long_name},networkPolicy.redis.to[0].ipBlock.cidr=10.0.0.0/8",
        "config.idempotencyStore=valkeys://worker@redis.cache,config.idempotencyStoreAuth=aws-iam,config.idempotencyStoreAwsCache=serverless/c",
        "config.idempotencyStore=redis://worker@redis,config.idempotencyStoreAuth=file,config.idempotencyStorePasswordFile=/etc/reservation-worker/idempotency-store/p,serviceSecrets.idempotencyStore=redis",
        "config.idempotencyStoreSecret.name=r,config.idempotencyStoreCaFile=/ca,networkPolicy.redis.to[0].ipBlock.cidr=10.0.0.0/8",
        f"serviceAccount.name={long_name}",
        f"keda.authentication.existing={long_name}",
        "config.otelResourceAttributes=team=tickets\\,site=a%20b",
        "podMonitor.enabled=true,podMonitor.interval=1m,podMonitor.scrapeTimeout=60s",
        "keda.maxReplicaCount=119,strategy.rollingUpdate.maxSurge=0,strategy.rollingUpdate.maxUnavailable=1",
        "keda.maxReplicaCount=117,strategy.rollingUpdate.maxSurge=2",
        "keda.maxReplicaCount=95",
        "config.workerThreads=2,resources.limits.cpu=2",
        "config.workerThreads=1,resources.limits.cpu=500m",
        "resources.requests.cpu=1,resources.requests.memory=768Mi",
        "resources.limits=null,config.maxInFlightMb=4096",
    ]
    for settings in right:
        code, _, err = template("--values", HERE / "values/minimal.yaml", "--set", settings)
        checks.expect(f"{settings[:60]} is refused", code == 0, err)


def notes(*arguments):
    """Exit code, NOTES.txt and stderr: `helm template` leaves the notes out, a dry run on the client renders them."""
    code, out, err = helm("install", "reservation-worker", CHART, "--namespace", "tickets", "--dry-run=client", *arguments)
    return code, out.partition("NOTES:")[2], err


def notes_say(checks):
    code, text, err = notes("--values", HERE / "values/minimal.yaml")
    checks.expect("NOTES.txt", code == 0 and "helm -n tickets test reservation-worker --logs" in text, err)
    checks.expect("NOTES.txt: no hole in the text", "<no value>" not in text and "%!" not in text)
    code, text, err = notes("--values", HERE / "values/minimal.yaml", "--set", "existingConfigMap=worker")
    said = "INVENTORY_GRPC_ADDR is inventory:50051, whatever they say" in text
    checks.expect("NOTES.txt: that config's addresses win over an existing ConfigMap's", code == 0 and said, err)


def versions_agree(checks):
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    crate = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.MULTILINE).group(1)
    checks.expect("Chart.yaml: appVersion is the crate's version", chart["appVersion"] == crate, f"{chart['appVersion']}, {crate}")


def memory_has_room(checks):
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    limit = values["resources"]["limits"]["memory"]
    checks.expect("values.yaml: the memory limit is in Mi", limit.endswith("Mi"))
    # The largest measured memory with default settings, in MB: see the comment in values.yaml.
    held_mb = 636
    checks.expect("values.yaml: the memory limit", int(limit[:-2]) >= math.ceil(held_mb * 1e6 / 2**20))


def run(checks, scratch):
    value_sets(checks, scratch)
    documented_command(checks)
    particulars(checks)
    right_values_are_taken(checks)
    versions_agree(checks)
    memory_has_room(checks)
