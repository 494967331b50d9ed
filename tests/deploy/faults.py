"""Checks what each set of `values/` is there for: names, ways through the network, identities, blocks that are taken out."""

import re
import shutil

import yaml

import chart
import features
import schemas
from harness import CHART, HELMS, HERE, ROOT, applied, at_once, kustomize, objects, of_kind, one_of, render, template, worker_container, worker_pod

# Without these there is no worker.
NEVER_NULL = {"image", "config"}
# KEDA labels the HPA with the ScaledObject's name, and names it keda-hpa-NAME; both end at 63 characters.
SCALED_OBJECT_NAME_MAX = 63 - len("keda-hpa-")


def rendered(checks, name, *arguments, **options):
    return render(checks, HERE / f"values/{name}.yaml", *arguments, **options)


def egress(documents, port):
    """The peers of each rule of the network policy that has a port."""
    return [rule["to"] for rule in one_of(documents, "NetworkPolicy")["spec"]["egress"] for one in rule["ports"] if one["port"] == port]


def cidrs(documents, port):
    return [peer["ipBlock"]["cidr"] for peers in egress(documents, port) for peer in peers if "ipBlock" in peer]


def names(checks):
    documents = rendered(checks, "longest-name")
    name = one_of(documents, "ScaledObject")["metadata"]["name"]
    checks.expect(f"the longest name: {name}: {len(name)} characters", len(name) == SCALED_OBJECT_NAME_MAX)
    release = rendered(checks, "minimal", release="r" * 53)
    name = one_of(release, "ScaledObject")["metadata"]["name"]
    checks.expect(f"the longest release: {name}", len(name) <= SCALED_OBJECT_NAME_MAX)


def dns(checks):
    minimal = rendered(checks, "minimal")
    checks.expect("DNS: only pods and NodeLocal's address, unless said", cidrs(minimal, 53) == ["169.254.20.10/32"] * 2)
    node_local = rendered(checks, "dns-nodelocal")
    wanted = ["169.254.20.10/32", "10.96.0.10/32", "fd00:10:96::a/128"]
    checks.expect("DNS: addresses of the Service", cidrs(node_local, 53) == wanted * 2, str(cidrs(node_local, 53)))


def the_test(checks):
    documents = rendered(checks, "minimal", "--set", "podLabels.team=tickets")
    checks.expect("helm test: has the pods' labels", one_of(documents, "Pod")["metadata"]["labels"].get("team") == "tickets")
    notes = chart.notes("--values", HERE / "values/minimal.yaml")[1]
    line = "kubectl -n tickets exec deployment/reservation-worker -c worker -- /reservation-worker check"
    checks.expect("NOTES.txt: that the VPC CNI lets the test's pod out, and what to do", "VPC CNI" in notes and line in notes)


def memory(checks):
    documents = rendered(checks, "large-store")
    checks.expect("large-store: its limit", worker_container(documents)["resources"]["limits"]["memory"] == "798Mi")
    code, _, err = template("--values", HERE / "values/large-store.yaml", "--set", "resources.limits.memory=797Mi")
    checks.expect("large-store: a Mi less is refused", code != 0 and "= 798Mi" in err, err)
    shared = ("--set", "resources.limits.memory=688Mi", "--set", "config.idempotencyStore=redis://redis")
    checks.expect("a shared store takes none", template("--values", HERE / "values/large-store.yaml", *shared)[0] == 0)


def image(checks):
    version = yaml.safe_load((CHART / "Chart.yaml").read_text())["appVersion"]
    url = ("--set", "config.sqsQueueUrl=https://sqs.ap-northeast-2.amazonaws.com/123456789012/reservations")

    def worker_image(*settings):
        code, out, err = template(*url, *[part for one in settings for part in ("--set", one)])
        checks.expect(f"{settings}: helm template", code == 0, err)
        return worker_container(objects(out))["image"]

    published = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    tags = [step["with"]["tags"] for job in published.values() for step in job["steps"] if "tags" in step.get("with", {})]
    checks.expect("ci.yml: publishes the git tag, which begins with v", any("github.ref_name" in one for one in tags), str(tags))
    checks.expect("the default tag is one that is published", worker_image() == f"reservation-worker:v{version}", worker_image())
    whole = worker_image("image.registry=ghcr.io/acme")
    checks.expect("image.registry", whole == f"ghcr.io/acme/reservation-worker:v{version}", whole)
    whole = worker_image("image.registry=ghcr.io/acme", "global.imageRegistry=mirror.example.com", "image.tag=v1")
    checks.expect("global.imageRegistry wins", whole == "mirror.example.com/reservation-worker:v1", whole)


def spread(checks):
    keys = [one["topologyKey"] for one in worker_pod(rendered(checks, "minimal"))["spec"]["topologySpreadConstraints"]]
    checks.expect("pods are spread over zones only", keys == ["topology.kubernetes.io/zone"], str(keys))


def restarts(checks, scratch):
    """Another version of the chart changes no pod; with a digest, another version of the application neither."""
    later = scratch / "later"
    shutil.copytree(CHART, later)
    text = (later / "Chart.yaml").read_text()
    (later / "Chart.yaml").write_text(re.sub("(?m)^version: .*$", "version: 9.9.9", text))
    before, after = (rendered(checks, "minimal", chart=where) for where in (CHART, later))
    labels = one_of(after, "Deployment")["metadata"]["labels"]
    checks.expect("Deployment: the chart's version", labels["helm.sh/chart"] == "reservation-worker-9.9.9")
    checks.expect("another version of the chart restarts pods", worker_pod(before) == worker_pod(after))
    text = (later / "Chart.yaml").read_text()
    (later / "Chart.yaml").write_text(re.sub("(?m)^appVersion: .*$", 'appVersion: "9.9.9"', text))
    pinned = ("--set", "image.digest=sha256:" + "0" * 64, "--set", "image.tag=null")
    before, after = (rendered(checks, "minimal", *pinned, chart=where) for where in (CHART, later))
    checks.expect("another appVersion restarts pods whose image has a digest", worker_pod(before) == worker_pod(after))


def same_names(checks):
    documents = rendered(checks, "same-names")
    account = one_of(documents, "ServiceAccount")["metadata"]
    wanted = {
        "owner": "identity",
        "eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/reservation-worker",
        "eks.amazonaws.com/sts-regional-endpoints": "false",
    }
    checks.expect("same names: the account's annotations win", account["annotations"] == wanted, str(account["annotations"]))
    checks.expect("same names: the account's labels win", (account["labels"]["team"], account["labels"]["kind"]) == ("identity", "any"))
    pod = worker_pod(documents)["metadata"]
    checks.expect("same names: the pod's win", (pod["labels"]["team"], pod["annotations"]["owner"]) == ("sales", "sales"))
    others = [one["metadata"] for one in documents if one["kind"] in ("Deployment", "Service", "NetworkPolicy", "ScaledObject")]
    common = all((one["labels"]["team"], one["annotations"]["owner"]) == ("tickets", "tickets") for one in others)
    checks.expect("same names: all others have the common ones", len(others) == 4 and common)


def identities(checks):
    foreign = rendered(checks, "foreign-account")
    checks.expect("a foreign account: none is made", not of_kind(foreign, "ServiceAccount"))
    checks.expect("a foreign account: it is used", worker_pod(foreign)["spec"]["serviceAccountName"] == "tickets")
    node = rendered(checks, "node-role")
    metadata = ["169.254.169.254/32", "fd00:ec2::254/128"]
    checks.expect("the node's role: its metadata is reached", cidrs(node, 80) == metadata, str(cidrs(node, 80)))
    checks.expect("the node's role: no other identity reaches it", metadata[0] not in cidrs(rendered(checks, "minimal"), 80))
    notes = chart.notes("--values", HERE / "values/minimal.yaml", "--set", "aws.identity=none")[1]
    checks.expect("NOTES.txt: the node's role is not offered where it is blocked", "No AWS role" in notes and "or the node" not in notes)
    domains = rendered(checks, "public-domains")
    checks.expect("acme.io is no namespace", cidrs(domains, 8443) == ["203.0.113.0/24"], str(egress(domains, 8443)))
    dev = [[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "dev"}}}]]
    checks.expect("reservation-api.dev.svc is in namespace dev", egress(domains, 8080) == dev, str(egress(domains, 8080)))
    china = rendered(checks, "china")
    trigger = one_of(china, "ScaledObject")["spec"]["triggers"][0]["metadata"]
    checks.expect("China: KEDA's region", trigger["awsRegion"] == "cn-north-1")


def null_blocks(checks):
    documents = rendered(checks, "null-blocks")
    kinds = sorted(one["kind"] for one in documents)
    checks.expect("blocks that are null: nothing is made of them", kinds == ["Deployment", "ServiceAccount"], str(kinds))
    checks.expect("blocks that are null: no hole in the text", "Error" not in str(documents) and "<nil>" not in str(documents))
    every = [key for key in yaml.safe_load((CHART / "values.yaml").read_text()) if key not in NEVER_NULL]

    def without(case):
        key, helm_name = case
        return template("--values", HERE / "values/minimal.yaml", "--set", f"{key}=null", helm_name=helm_name)

    cases = [(key, helm_name) for key in every for helm_name in HELMS]
    for (key, helm_name), (code, out, err) in zip(cases, at_once(without, cases), strict=True):
        holes = [word for word in ("<nil>", "<no value>", "Error", "%!") if word in out]
        found = [text for one in objects(out) for text in schemas.findings(one)]
        checks.expect(f"{helm_name}: {key}=null: {holes} {found}", code == 0 and not holes and not found, err)


PARENT = """apiVersion: v2
name: shop
version: 1.0.0
dependencies:
  - {name: reservation-worker, version: ">=0.0.0", repository: "", condition: reservation-worker.enabled}
"""


def subchart(checks, scratch):
    """The chart as a part of another: its condition, what is global, blocks that are null."""
    parent = scratch / "shop"
    (parent / "charts").mkdir(parents=True)
    (parent / "Chart.yaml").write_text(PARENT)
    (parent / "values.yaml").write_text("global: {imageRegistry: mirror.example.com, imagePullSecrets: [mirror], other: {team: tickets}}\n")
    shutil.copytree(CHART, parent / "charts/reservation-worker")
    values = yaml.safe_load((HERE / "values/null-blocks.yaml").read_text())
    del values["global"]
    # Helm 3.16 takes a subchart's default where the value is null; newer ones take the block out.
    made = {"helm 3": None, "helm 4": ["Deployment", "ServiceAccount"]}
    for name, given in (("null-blocks", values), ("minimal", yaml.safe_load((HERE / "values/minimal.yaml").read_text()))):
        path = scratch / f"shop-{name}.yaml"
        path.write_text(yaml.safe_dump({"reservation-worker": {"enabled": True, **given}}))
        for helm_name in HELMS:
            documents = render(checks, path, release="shop", chart=parent, helm_name=helm_name)
            checks.expect(f"{helm_name}: a part of another chart: {name}: global.imageRegistry", worker_image_of(documents) == "mirror.example.com")
            secrets = worker_pod(documents)["spec"]["imagePullSecrets"]
            checks.expect(f"{helm_name}: a part of another chart: {name}: global.imagePullSecrets", secrets == [{"name": "mirror"}])
            if name == "null-blocks" and made[helm_name]:
                kinds = sorted(one["kind"] for one in documents)
                checks.expect(f"a part of another chart: blocks that are null: {kinds}", kinds == made[helm_name])
            off = render(checks, path, "--set", "reservation-worker.enabled=false", release="shop", chart=parent, helm_name=helm_name)
            checks.expect(f"{helm_name}: a part of another chart: {name}: its condition", off == [], str(off))


def same_as_a_part(checks, scratch):
    """Every set of values renders the same objects where the chart is a part of another, by each helm."""
    parent = scratch / "same"
    (parent / "charts").mkdir(parents=True)
    (parent / "Chart.yaml").write_text(PARENT)
    shutil.copytree(CHART, parent / "charts/reservation-worker")
    (scratch / "parts").mkdir()

    def rendered_twice(case):
        path, helm_name = case
        part = scratch / "parts" / f"{helm_name}-{path.name}"
        part.write_text(yaml.safe_dump({"reservation-worker": yaml.safe_load(path.read_text())}))
        alone = template("--values", path, helm_name=helm_name)
        return case, alone, template("--values", part, helm_name=helm_name, chart=parent)

    # What Helm does with a null differs: above.
    paths = [path for path in [*sorted((HERE / "values").glob("*.yaml")), *features.EXAMPLES] if "null" not in path.read_text()]
    for (path, helm_name), alone, part in at_once(rendered_twice, [(path, name) for path in paths for name in HELMS]):
        same = (alone[0], part[0]) == (0, 0) and sorted(map(str, objects(alone[1]))) == sorted(map(str, objects(part[1])))
        checks.expect(f"{helm_name}: {path.name}: another rendering as a part of another chart", same, part[2])


def strategy(checks):
    spec = one_of(rendered(checks, "recreate"), "Deployment")["spec"]
    checks.expect("Recreate has no rolling update", spec["strategy"] == {"type": "Recreate"}, str(spec["strategy"]))


def worker_image_of(documents):
    return worker_container(documents)["image"].split("/")[0]


def manifests(checks):
    """deploy/k8s: what `kubectl apply -f` sends of it, any cluster with KEDA knows; kustomize reads it too."""
    folder = ROOT / "deploy/k8s"
    code, out, err = applied(folder)
    checks.expect("kubectl reads deploy/k8s", code == 0, err)
    kinds = {name.partition("/")[0] for name in out.split()}
    allowed = {"", "apps", "policy", "networking.k8s.io", "keda.sh"}
    checks.expect(f"deploy/k8s: kinds that a cluster may lack: {kinds}", {kind.partition(".")[2] for kind in kinds} <= allowed)
    checks.expect(f"deploy/k8s: {kinds}", len(kinds) == len(list(folder.glob("*.yaml"))))
    worker = {"Deployment", "NetworkPolicy", "PodDisruptionBudget", "ScaledObject", "Service", "ServiceAccount", "TriggerAuthentication"}
    for where, wanted in ((folder, worker), (folder / "monitoring", {"PodMonitor", "PrometheusRule"})):
        code, out, err = kustomize(where)
        checks.expect(f"kubectl kustomize {where.relative_to(ROOT)}", code == 0, err)
        found = {one["kind"] for one in objects(out)}
        checks.expect(f"kubectl kustomize {where.relative_to(ROOT)}: only {found}", found >= wanted)


def run(checks, scratch):
    names(checks)
    dns(checks)
    the_test(checks)
    memory(checks)
    image(checks)
    spread(checks)
    restarts(checks, scratch)
    same_names(checks)
    identities(checks)
    null_blocks(checks)
    subchart(checks, scratch)
    same_as_a_part(checks, scratch)
    strategy(checks)
    manifests(checks)
