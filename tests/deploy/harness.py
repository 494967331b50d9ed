"""Shared by the deployment checks: counting, running helm, reading YAML. The checks are left to the other modules."""

import concurrent.futures
import os
import pathlib
import subprocess
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/deploy"
CHART = ROOT / "deploy/helm/reservation-worker"
HELMS = {"helm 4": os.environ["HELM"]}
if os.environ.get("HELM3"):
    HELMS["helm 3"] = os.environ["HELM3"]
# kubectl for `kustomize` only, which needs no cluster.
KUBECTL = os.environ["KUBECTL"]
TOOL_S_MAX = 60
# Renderings at once: helm uses a core each.
AT_ONCE = 4


class Checks:
    """Counts passed and failed checks, and prints each failure at once."""

    def __init__(self):
        self.passed = 0
        self.failed = 0

    def expect(self, what, holds, detail=""):
        if holds:
            self.passed += 1
            return
        self.failed += 1
        print(f"deploy: {what}{': ' if detail else ''}{detail}", file=sys.stderr)

    def none(self, what, findings):
        """Expects an empty list, and prints what it contains."""
        self.expect(what, not findings, "; ".join(findings))


def tool(*command):
    """Runs a tool and returns exit code, stdout and stderr."""
    # Otherwise helm would read the user's own cluster address and plugins.
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["DEPLOY_SCRATCH"], "KUBECONFIG": "/dev/null"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=TOOL_S_MAX, env=environment, check=False)
    return done.returncode, done.stdout, done.stderr


def helm(*arguments, helm_name="helm 4"):
    return tool(HELMS[helm_name], *arguments)


def template(*arguments, release="reservation-worker", helm_name="helm 4", chart=CHART):
    return helm("template", release, chart, "--namespace", "tickets", *arguments, helm_name=helm_name)


def render(checks, path, *arguments, **options):
    """The objects of one set of values; none where helm refuses it."""
    code, out, err = template("--values", path, *arguments, **options)
    checks.expect(f"{path.name} {' '.join(arguments)}: helm template", code == 0, err)
    return objects(out)


def kustomize(folder):
    return tool(KUBECTL, "kustomize", folder)


def applied(folder):
    """What `kubectl apply -f` would send of a folder, as KIND.GROUP/NAME; read by a command that needs no cluster."""
    return tool(KUBECTL, "label", "--local", "--filename", folder, "read=yes", "--output", "name")


def at_once(function, items):
    """The results of `function` for each item, in order; several run at once."""
    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(function, items))


class StrictLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
    """Refuses a key that is there twice, as kustomize and Kubernetes' own strict decoding do. PyYAML takes the last."""

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        twice = {key for key in keys if keys.count(key) > 1}
        if twice:
            raise yaml.constructor.ConstructorError(None, None, f"keys that are there twice: {twice}", node.start_mark)
        return super().construct_mapping(node, deep)


def objects(text):
    """The objects in a YAML stream, without empty documents."""
    return [document for document in yaml.load_all(text, Loader=StrictLoader) if document]  # noqa: S506: it is a safe loader


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def one_of(documents, kind):
    (document,) = of_kind(documents, kind)
    return document


def worker_pod(documents):
    """The template of the worker's pods."""
    return one_of(documents, "Deployment")["spec"]["template"]


def worker_container(documents):
    (container,) = [one for one in worker_pod(documents)["spec"]["containers"] if one["name"] == "worker"]
    return container


def pod_specs(documents):
    """The metadata and spec of each pod, with the kind of its object."""
    for document in documents:
        if document["kind"] == "Pod":
            yield document, document["metadata"], document["spec"]
        elif document["kind"] == "Deployment":
            pod = document["spec"]["template"]
            yield document, pod["metadata"], pod["spec"]
