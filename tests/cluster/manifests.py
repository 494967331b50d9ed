"""`deploy/k8s` without Helm, in a namespace of its own: applied as it is, then with what deploy/README.md says to replace."""

import re
import shutil
import time
from pathlib import Path

from cluster import ROOT, Failure, wait_until
from sandbox import Account

MANIFESTS = ROOT / "deploy/k8s"
NAME = "reservation-worker"
# Objects of the Prometheus Operator, which a cluster may not have.
OPERATOR = {"podmonitors", "prometheusrules"}
EVENTS = 500


def apply(cluster, namespace, folder):
    """Applies a folder; returns how many objects the cluster took, and how many kinds it does not know."""
    by = "-k" if (folder / "kustomization.yaml").exists() else "-f"
    code, said = cluster.kube("apply", "--namespace", namespace, by, str(folder))
    taken = re.findall(r"^\S+ (?:created|configured|unchanged)$", said, re.M)
    unknown = re.findall(r"no matches for kind \"(\w+)\"", said)
    others = [kind for kind in unknown if f"{kind.lower()}s" not in OPERATOR]
    if others or (code != 0 and not unknown) or "forbidden" in said or "Warning" in said:
        raise Failure(f"kubectl apply {by} deploy/k8s: {said.strip()[-600:]}")
    return len(taken), len(unknown)


def replaced(world, folder):
    """A copy of the manifests with the sandbox's addresses, as deploy/README.md says."""
    image = world.worker.values["image"]
    config = world.worker.values["config"]
    replacements = {
        "https://sqs.ap-northeast-2.amazonaws.com/123456789012/reservations": config["sqsQueueUrl"],
        "ap-northeast-2": config["awsRegion"],
        "reservation-worker:v0.1.0": f"{image['repository']}:{image['tag']}",
        "http://reservation-api:8080": config["reservationApiBase"],
        "inventory:50051": config["inventoryGrpcAddr"],
    }
    shutil.copytree(MANIFESTS, folder)
    for path in folder.glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        for old, new in replacements.items():
            text = text.replace(old, new)
        path.write_text(text, encoding="utf-8")


def bring_to_life(world, namespace):
    """What a sandbox needs beside: an endpoint that is not AWS, and keys; with a look every 5 s."""
    cluster, endpoint = world.cluster, world.worker.values["config"]["awsEndpointUrlSqs"]
    # The policies know AWS and two Services by name.
    cluster.kube("delete", "networkpolicy", NAME, "--namespace", namespace)
    deployment = f"/apis/apps/v1/namespaces/{namespace}/deployments/{NAME}"
    (container,) = cluster.get(deployment)["spec"]["template"]["spec"]["containers"]
    container["env"] += [{"name": "AWS_ENDPOINT_URL_SQS", "value": endpoint}, {"name": "OTEL_SDK_DISABLED", "value": "true"}]
    container["envFrom"] = [{"secretRef": {"name": "sandbox-keys"}}]
    cluster.patch(deployment, {"spec": {"template": {"spec": {"containers": [container]}}}})
    path = f"/apis/keda.sh/v1alpha1/namespaces/{namespace}/scaledobjects/{NAME}-scaler"
    (trigger,) = cluster.get(path)["spec"]["triggers"]
    trigger["metadata"]["awsEndpoint"] = endpoint
    trigger["authenticationRef"]["name"] = "sandbox-keys"
    cluster.patch(path, {"spec": {"triggers": [trigger], "pollingInterval": 5, "cooldownPeriod": 30}})
    return deployment


def applied(world):
    """`kubectl apply` of deploy/k8s, and a burst."""
    cluster = world.cluster
    world.worker.uninstall()
    # Pods that leave still answer their last receive, on the same queue.
    world.worker.wait_for_none()
    namespace = f"{world.worker.namespace}-k8s"
    cluster.create_namespace(namespace)
    create_keys(cluster, namespace)
    taken, unknown = apply(cluster, namespace, MANIFESTS)
    folder = Path(cluster.scratch.name) / "k8s"
    replaced(world, folder)
    apply(cluster, namespace, folder)
    deployment = bring_to_life(world, namespace)
    account = Account(world.sandbox, "manifests")
    began = time.monotonic()
    account.send(EVENTS)
    account.wait_until_handled()
    handled = time.monotonic() - began
    wait_until("the pods are gone", lambda: cluster.get(deployment)["status"].get("replicas", 0) == 0, 120)
    missing = f" ({unknown} more need the Prometheus Operator)" if unknown else ""
    return account, f"{taken} objects as they are{missing}; with addresses replaced, all handled after {handled:.1f} s, then no pod"


def create_keys(cluster, namespace):
    """Keys that the sandbox does not check, for the worker and for KEDA."""
    keys = {"AWS_ACCESS_KEY_ID": "sandbox", "AWS_SECRET_ACCESS_KEY": "sandbox"}
    cluster.post(f"/api/v1/namespaces/{namespace}/secrets", {"metadata": {"name": "sandbox-keys"}, "stringData": keys})
    parameters = {"awsAccessKeyID": "AWS_ACCESS_KEY_ID", "awsSecretAccessKey": "AWS_SECRET_ACCESS_KEY"}
    targets = [{"parameter": parameter, "name": "sandbox-keys", "key": key} for parameter, key in parameters.items()]
    authentication = {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "TriggerAuthentication",
        "metadata": {"name": "sandbox-keys"},
        "spec": {"secretTargetRef": targets},
    }
    cluster.post(f"/apis/keda.sh/v1alpha1/namespaces/{namespace}/triggerauthentications", authentication)
