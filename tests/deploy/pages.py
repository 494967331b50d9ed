"""Checks that the values which pages quote are those of `values/`, which `chart` renders, and that they do what the pages say."""

import re

import yaml

from harness import HERE, ROOT, objects, of_kind, pod_specs, template

PAGES = ROOT / "docs/deploy"


def worker(documents):
    """The worker's pod: its metadata and its spec."""
    return next((metadata, spec) for document, metadata, spec in pod_specs(documents) if document["kind"] == "Deployment")


def ways(documents, direction):
    """Each peer with its port."""
    rules = of_kind(documents, "NetworkPolicy")[0]["spec"][direction]
    return [(peer, port["port"]) for rule in rules for peer in rule.get("from" if direction == "ingress" else "to", []) for port in rule["ports"]]


def out_on(documents, port):
    return [peer for peer, its in ways(documents, "egress") if its == port]


def istio_sidecar(documents):
    metadata, spec = worker(documents)
    config = yaml.safe_load(metadata["annotations"]["proxy.istio.io/config"])
    drains = int(config["terminationDrainDuration"].removesuffix("s")) >= spec["terminationGracePeriodSeconds"]
    unmeshed = metadata["annotations"]["traffic.sidecar.istio.io/excludeInboundPorts"]
    admin = str(spec["containers"][0]["ports"][0]["containerPort"])
    return drains and unmeshed == admin and out_on(documents, 15012) and out_on(documents, 50051) and out_on(documents, 8080)


def istio_ambient(documents):
    tunnel = len(out_on(documents, 15008)) == 2 and not out_on(documents, 50051) and not out_on(documents, 8080)
    probes = ({"ipBlock": {"cidr": "169.254.7.127/32"}}, "http") in ways(documents, "ingress")
    return tunnel and probes and out_on(documents, 4317) and worker(documents)[0]["labels"]["istio.io/dataplane-mode"] == "ambient"


def linkerd(documents):
    control = all(out_on(documents, port) for port in (8080, 8086, 8090))
    return control and len(out_on(documents, 4143)) == 2 and not out_on(documents, 50051)


def fargate(documents):
    _, spec = worker(documents)
    resources = spec["containers"][0]["resources"]
    has_role = "eks.amazonaws.com/role-arn" in of_kind(documents, "ServiceAccount")[0]["metadata"]["annotations"]
    return has_role and resources["requests"] == resources["limits"] and not of_kind(documents, "NetworkPolicy")


def spot(documents):
    _, spec = worker(documents)
    spread = [one["topologyKey"] for one in spec["topologySpreadConstraints"]]
    return spec["nodeSelector"]["karpenter.sh/capacity-type"] == "spot" and spread == ["topology.kubernetes.io/zone"] and spec["tolerations"]


def argo_cd(documents):
    kinds = {one["kind"] for one in documents}
    return {"PodMonitor", "PrometheusRule"} <= kinds and "Pod" not in kinds and "replicas" not in of_kind(documents, "Deployment")[0]["spec"]


def external_secrets(documents):
    _, spec = worker(documents)
    mounted = [volume["secret"]["secretName"] for volume in spec["volumes"]]
    named = [one["secretRef"]["name"] for one in spec["containers"][0]["envFrom"]]
    return mounted == ["reservation-worker-redis"] and named == ["reservation-worker-env"]


SHOWN = {
    "meshes": [istio_sidecar, istio_ambient, linkerd],
    "fargate": [fargate],
    "spot": [spot],
    "argo-cd": [argo_cd],
    "external-secrets": [external_secrets],
}


def quoted(path):
    """The YAML blocks of a page that are values of the chart."""
    return [block for block in re.findall(r"^```yaml\n(.*?)^```$", path.read_text(), re.MULTILINE | re.DOTALL) if block.startswith(("config:", "alerts:", "dashboard:"))]


def run(checks):
    readme = (ROOT / "deploy/README.md").read_text()
    found = {path.stem for path in PAGES.glob("*.md")}
    checks.expect("docs/deploy: its pages", found == SHOWN.keys(), str(found ^ SHOWN.keys()))
    for page, shown in SHOWN.items():
        checks.expect(f"deploy/README.md: no way to {page}.md", f"](../docs/deploy/{page}.md)" in readme)
        blocks = quoted(PAGES / f"{page}.md")
        checks.expect(f"{page}.md: {len(blocks)} blocks of values", len(blocks) == len(shown))
        for block, does in zip(blocks, shown):
            path = HERE / f"values/page-{does.__name__.replace('_', '-')}.yaml"
            checks.expect(f"{page}.md quotes other values than {path.name}", path.read_text().partition("\n")[2] == block)
            code, out, err = template("--values", path)
            checks.expect(f"{path.name} does not do what {page}.md says", code == 0 and does(objects(out)), err)
    blocks = quoted(ROOT / "docs/observability.md")
    checks.expect("docs/observability.md: its blocks of values", len(blocks) == 2)
    for name, block in zip(("dashboard", "alerts"), blocks):
        given = yaml.safe_load((HERE / f"values/{name}.yaml").read_text())[name]
        checks.expect(f"docs/observability.md quotes other values than {name}.yaml", yaml.safe_load(block)[name] == given)
