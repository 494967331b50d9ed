"""Breaks valid objects, one fault at a time, and checks that the rules find it. This proves that each rule can fail."""

import copy

import rules
import schemas
from harness import of_kind, pod_specs


def pod(documents):
    return of_kind(documents, "Deployment")[0]["spec"]["template"]["spec"]


def worker(documents):
    return pod(documents)["containers"][0]


def scaled(documents):
    return of_kind(documents, "ScaledObject")[0]["spec"]


def metadata(documents):
    return scaled(documents)["triggers"][0]["metadata"]


def policy(documents):
    return of_kind(documents, "NetworkPolicy")[0]["spec"]


def rename(mapping, old, new):
    mapping[new] = mapping.pop(old)


def alert(documents, of=0):
    return of_kind(documents, "PrometheusRule")[of]["spec"]["groups"][0]["rules"][0]


# The fault, and a part of the finding.
BROKEN = [
    (lambda d: d.append(copy.deepcopy(d[0])), "is there twice"),
    (lambda d: of_kind(d, "Service")[0]["metadata"].update(name="my.worker"), "no name for a Service"),
    (lambda d: of_kind(d, "Service")[0]["metadata"]["labels"].update(x="v1-"), "label x: 'v1-' is no value"),
    (lambda d: of_kind(d, "Deployment")[0]["spec"].update(replicas=2), "one of them"),
    (lambda d: of_kind(d, "ScaledObject")[0]["metadata"].update(name="scaler"), "is named scaler"),
    (lambda d: of_kind(d, "ScaledObject")[0]["metadata"].update(name="a" * 55), "has no room for the name"),
    (lambda d: scaled(d)["scaleTargetRef"].update(name="worker"), "scales worker"),
    (lambda d: of_kind(d, "ScaledObject")[0]["metadata"].update(name="other-scaler"), "asks for ScaledObject reservation-worker-scaler"),
    (lambda d: alert(d).update(expr="sum(worker_events_total) > 0"), "worker_events_total is every release's"),
    (lambda d: alert(d).update(expr='worker_ready{namespace="tickets"} > 0'), "worker_ready is every release's"),
    (lambda d: alert(d).update(expr="namespace_job:worker_events_late:ratio5m > 0"), "worker_events_late:ratio5m is every release's"),
    (lambda d: alert(d)["labels"].pop("severity"), "has severity None"),
    (lambda d: alert(d).update(alert="ReservationWorkerStuck"), "ReservationWorkerStuck is there twice"),
    (lambda d: scaled(d)["scaleTargetRef"].update(envSourceContainerName="app"), "reads the environment of app"),
    (lambda d: scaled(d).update(minReplicaCount=51), "minReplicaCount is above"),
    (lambda d: scaled(d)["fallback"].update(replicas=51), "fallback.replicas is above"),
    (
        lambda d: scaled(d)["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"].update(stabilizationWindowSeconds=0),
        "within five minutes",
    ),
    (lambda d: rename(metadata(d), "scaleOnInFlight", "scaleOnInflight"), "scaleOnInflight is not known"),
    (lambda d: scaled(d)["triggers"].append({"type": "cron", "metadata": {"desiredReplicas": 5}}), "trigger cron: its metadata"),
    (lambda d: metadata(d).update(scaleOnInFlight="yes"), "scaleOnInFlight is 'yes'"),
    (lambda d: metadata(d).update(queueLength=10), "queueLength is no string"),
    (lambda d: metadata(d).update(activationQueueLength="none"), "activationQueueLength is no number"),
    (lambda d: metadata(d).update(queueURLFromEnv="SQS_QUEUE_URL"), "one of queueURL"),
    (lambda d: metadata(d).update(queueURL="https://sqs.eu-west-1.amazonaws.com/1/other"), "another queue"),
    (lambda d: metadata(d).update(awsRegion="eu-west-1"), "another region"),
    (lambda d: scaled(d)["triggers"][0].update(type="aws-sqs"), "type is aws-sqs"),
    (lambda d: scaled(d)["triggers"][0]["authenticationRef"].update(name="other"), "no TriggerAuthentication other"),
    (lambda d: of_kind(d, "Service")[0]["spec"]["selector"].update({"app.kubernetes.io/instance": "x"}), "Service: its selector does not"),
    (lambda d: of_kind(d, "Service")[0]["spec"]["selector"].pop("app.kubernetes.io/component"), "Service: its selector takes the test"),
    (lambda d: of_kind(d, "PodDisruptionBudget")[0]["spec"]["selector"]["matchLabels"].update(x="y"), "PodDisruptionBudget: its selector"),
    (lambda d: of_kind(d, "PodMonitor")[0]["spec"]["selector"]["matchLabels"].update(x="y"), "PodMonitor: its selector"),
    (lambda d: policy(d)["podSelector"]["matchLabels"].update({"app.kubernetes.io/component": "worker"}), "every pod of the release"),
    (lambda d: policy(d).update(policyTypes=["Ingress"]), "what is not allowed is not denied"),
    (lambda d: policy(d)["ingress"].append({}), "ingress[1] allows everybody"),
    (lambda d: policy(d)["egress"][1].pop("to"), "allows everybody"),
    (lambda d: policy(d)["egress"][2].pop("ports"), "allows every port"),
    (lambda d: policy(d)["egress"][1]["ports"].append({"protocol": "TCP", "port": 22}), "the whole Internet"),
    (lambda d: policy(d)["egress"].pop(0), "no DNS"),
    (lambda d: pod(d).update(terminationGracePeriodSeconds=29), "no margin"),
    (lambda d: worker(d)["ports"][0].update(containerPort=8041), "not SERVER_PORT"),
    (lambda d: worker(d)["livenessProbe"]["httpGet"].update(path="/"), "livenessProbe"),
    (lambda d: worker(d).pop("readinessProbe"), "readinessProbe"),
    (lambda d: of_kind(d, "PodMonitor")[0]["spec"]["podMetricsEndpoints"][0].update(port="metrics"), "port metrics is not"),
    (lambda d: worker(d)["resources"].pop("limits"), "resources.limits"),
    (lambda d: pod(d)["securityContext"].pop("seccompProfile"), "seccompProfile"),
    (lambda d: pod(d)["securityContext"].update(runAsUser=0), "runAsUser"),
    (lambda d: pod(d)["securityContext"].pop("runAsUser"), "runAsUser"),
    (lambda d: pod(d).update(hostNetwork=True), "host's namespaces"),
    (lambda d: pod(d).update(automountServiceAccountToken=True), "token for the Kubernetes API"),
    (lambda d: pod(d).update(enableServiceLinks=True), "Services in its environment"),
    (lambda d: pod(d).update(volumes=[{"name": "host", "hostPath": {"path": "/"}}]), "volume host"),
    (lambda d: worker(d)["securityContext"].update(readOnlyRootFilesystem=False), "readOnlyRootFilesystem"),
    (lambda d: worker(d)["securityContext"]["capabilities"].update(add=["NET_RAW"]), "capabilities"),
    (lambda d: worker(d)["ports"][0].update(hostPort=8040), "hostPort"),
    (lambda d: worker(d)["env"].append({"name": "AWS_REGION", "value": "x"}), "AWS_REGION is set twice"),
    (lambda d: worker(d)["env"].append({"name": "A", "value": 1}), "A is no string"),
    (lambda d: worker(d)["env"].append({"name": "A"}), "A needs one of"),
    (lambda d: worker(d)["env"].insert(0, {"name": "A", "value": "$(K8S_POD_NAME)"}), "not defined above it"),
    (lambda d: pod(d).update(serviceAccountName="other"), "no ServiceAccount other"),
    (lambda d: of_kind(d, "TriggerAuthentication")[0]["spec"]["podIdentity"].update(provider="aws-eks"), "provider is aws-eks"),
    (lambda d: of_kind(d, "TriggerAuthentication")[0]["spec"]["podIdentity"].update(roleArn="a"), "exclude each other"),
]

# The same for the flavours that only an example has: a CiliumNetworkPolicy and a ServiceMonitor.
def cilium(documents):
    return of_kind(documents, "CiliumNetworkPolicy")[0]["spec"]


BROKEN_FLAVOURS = [
    (lambda d: cilium(d)["endpointSelector"]["matchLabels"].update(x="y"), "CiliumNetworkPolicy: its selector"),
    (lambda d: cilium(d).pop("ingress"), "no ingress: what is not allowed is not denied"),
    (lambda d: cilium(d)["egress"][0].pop("toEndpoints"), "egress[0] has peers of 0 kinds"),
    (lambda d: cilium(d)["egress"][0].update(toEntities=["host"]), "egress[0] has peers of 2 kinds"),
    (lambda d: cilium(d)["egress"][1].pop("toPorts"), "egress[1] allows every port"),
    (lambda d: of_kind(d, "ServiceMonitor")[0]["spec"]["selector"]["matchLabels"].update(x="y"), "ServiceMonitor: its selector"),
    (lambda d: of_kind(d, "ServiceMonitor")[0]["spec"]["endpoints"][0].update(port="metrics"), "port metrics is not"),
]

# The same for the schemas: one fault for Kubernetes' schemas, one for each CRD.
MISFIT = [
    (lambda d: pod(d).update(terminationGracePeriod=30), "terminationGracePeriod"),
    (lambda d: worker(d)["resources"]["limits"].update(memory=[1]), "memory"),
    (lambda d: scaled(d).update(maxReplicas=5), "maxReplicas"),
    (lambda d: scaled(d)["fallback"].update(behavior="keep"), "keep"),
    (lambda d: of_kind(d, "TriggerAuthentication")[0]["spec"]["podIdentity"].update(provider="amazon"), "amazon"),
    (lambda d: of_kind(d, "PodMonitor")[0]["spec"]["podMetricsEndpoints"][0].update(interval="often"), "often"),
    (lambda d: of_kind(d, "PrometheusRule")[0]["spec"]["groups"][0]["rules"][0].pop("expr"), "expr"),
]
MISFIT_FLAVOURS = [
    (lambda d: cilium(d)["egress"][0].update(toEndpoint=[]), "toEndpoint"),
    (lambda d: of_kind(d, "ServiceMonitor")[0]["spec"]["endpoints"][0].update(interval="often"), "often"),
]


def run(checks, documents, flavours):
    """`documents` are the valid objects of a release with everything enabled; `flavours`, those that take another's place."""
    for rule, valid in [(one, documents) for one in BROKEN] + [(one, flavours) for one in BROKEN_FLAVOURS]:
        break_it, expected = rule
        broken = copy.deepcopy(valid)
        break_it(broken)
        found = rules.findings(broken)
        checks.expect(f"sabotage: nothing says {expected!r}", any(expected in text for text in found), str(found))
    for rule, valid in [(one, documents) for one in MISFIT] + [(one, flavours) for one in MISFIT_FLAVOURS]:
        break_it, expected = rule
        broken = copy.deepcopy(valid)
        break_it(broken)
        found = [text for document in broken for text in schemas.findings(document)]
        checks.expect(f"sabotage: no schema says {expected!r}", any(expected in text for text in found), str(found))
    checks.expect("sabotage: there are no pods to check", len(list(pod_specs(documents))) == 2)
