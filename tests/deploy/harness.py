"""Shared by the deployment checks: counting, running helm, reading YAML. The checks are left to the other modules."""

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
HELM_S_MAX = 60


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


def helm(*arguments, helm_name="helm 4"):
    """Runs helm and returns exit code, stdout and stderr."""
    command = [HELMS[helm_name], *map(str, arguments)]
    # Otherwise helm would read the user's own cluster address and plugins.
    environment = {"PATH": os.environ["PATH"], "HOME": os.environ["DEPLOY_SCRATCH"], "KUBECONFIG": "/dev/null"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=HELM_S_MAX, env=environment, check=False)
    return done.returncode, done.stdout, done.stderr


def template(*arguments, release="reservation-worker", helm_name="helm 4"):
    return helm("template", release, CHART, "--namespace", "tickets", *arguments, helm_name=helm_name)


def objects(text):
    """The objects in a YAML stream, without empty documents."""
    return [document for document in yaml.safe_load_all(text) if document]


def of_kind(documents, kind):
    return [document for document in documents if document["kind"] == kind]


def pod_specs(documents):
    """The metadata and spec of each pod, with the kind of its object."""
    for document in documents:
        if document["kind"] == "Pod":
            yield document, document["metadata"], document["spec"]
        elif document["kind"] == "Deployment":
            pod = document["spec"]["template"]
            yield document, pod["metadata"], pod["spec"]
