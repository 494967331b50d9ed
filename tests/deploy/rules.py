"""Rules for rendered objects that no schema checks: references between them, KEDA, Pod Security, the worker's needs.

`findings` takes the objects of one release and returns the faults as text. `sabotage` proves that each rule can fail.
"""

import re

from harness import of_kind, pod_specs, worker_container

# From KEDA's documentation of the aws-sqs-queue scaler, which ignores unknown names.
SQS_METADATA = {
    "queueURL", "queueURLFromEnv", "queueLength", "activationQueueLength", "awsRegion", "awsEndpoint", "scaleOnInFlight", "scaleOnDelayed",
}
GRACE_MARGIN_S = 5
# KEDA names the HPA keda-hpa-NAME, and labels it with NAME: both end at 63.
SCALED_OBJECT_NAME_MAX = 54
SIDE_PATHS = {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def findings(documents):
    """Applies every rule to the objects of one release."""
    found = [text for rule in (names, scaling, alerts, selectors, pods, network, references) for text in rule(documents)]
    for document, metadata, spec in pod_specs(documents):
        where = f"{document['kind']}/{document['metadata']['name']}"
        found += [f"{where}: {text}" for text in restricted(spec)]
        found += [f"{where}: {text}" for container in spec["containers"] for text in environment(container)]
    return found


def names(documents):
    seen = set()
    for document in documents:
        key = document["kind"], document["metadata"]["name"]
        if key in seen:
            yield f"{key} is there twice"
        seen.add(key)
        # RFC 1035, which the API server requires for a Service; names of hosts and labels have the
        # same limit.
        if document["kind"] == "Service" and not re.fullmatch("[a-z]([a-z0-9-]{0,61}[a-z0-9])?", key[1]):
            yield f"{key}: no name for a Service"
    for _, metadata, _ in [*pod_specs(documents), *[(None, document["metadata"], None) for document in documents]]:
        for name, value in metadata.get("labels", {}).items():
            if not re.fullmatch("([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?", value):
                yield f"label {name}: {value!r} is no value for one"


def scaling(documents):
    (deployment,) = of_kind(documents, "Deployment")
    scaled = of_kind(documents, "ScaledObject")
    if scaled and "replicas" in deployment["spec"]:
        yield "Deployment: replicas, or a ScaledObject: one of them, as KEDA and Helm would undo each other's number"
    for document in scaled:
        spec = document["spec"]
        if len(document["metadata"]["name"]) > SCALED_OBJECT_NAME_MAX:
            yield f"ScaledObject: KEDA's HPA has no room for the name {document['metadata']['name']}"
        if document["metadata"]["name"] != deployment["metadata"]["name"] + "-scaler":
            yield f"ScaledObject: is named {document['metadata']['name']}"
        if spec["scaleTargetRef"]["name"] != deployment["metadata"]["name"]:
            yield f"ScaledObject: scales {spec['scaleTargetRef']['name']}"
        container = spec["scaleTargetRef"].get("envSourceContainerName")
        if container not in [one["name"] for one in deployment["spec"]["template"]["spec"]["containers"]]:
            yield f"ScaledObject: reads the environment of {container}"
        if not 0 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]:
            yield "ScaledObject: minReplicaCount is above maxReplicaCount"
        if spec.get("fallback", {}).get("replicas", 0) > spec["maxReplicaCount"]:
            yield "ScaledObject: fallback.replicas is above maxReplicaCount"
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        if behavior["scaleDown"]["stabilizationWindowSeconds"] < 300:
            yield "ScaledObject: scales down within five minutes"
        queue, *more = spec["triggers"]
        yield from sqs_trigger(queue, documents)
        for trigger in more:
            if not all(isinstance(value, str) for value in trigger["metadata"].values()):
                yield f"trigger {trigger['type']}: its metadata are not all strings"


def sqs_trigger(trigger, documents):
    metadata = trigger["metadata"]
    if trigger["type"] != "aws-sqs-queue":
        yield f"trigger: type is {trigger['type']}"
    for name, value in metadata.items():
        if name not in SQS_METADATA:
            yield f"trigger: metadata.{name} is not known to KEDA"
        if not isinstance(value, str):
            yield f"trigger: metadata.{name} is no string: {value!r}"
    for name in ("queueLength", "activationQueueLength"):
        if not re.fullmatch("[0-9]+", str(metadata.get(name))):
            yield f"trigger: metadata.{name} is no number: {metadata.get(name)!r}"
    if metadata.get("scaleOnInFlight") not in ("true", "false"):
        yield f"trigger: metadata.scaleOnInFlight is {metadata.get('scaleOnInFlight')!r}"
    if ("queueURL" in metadata) == ("queueURLFromEnv" in metadata):
        yield "trigger: one of queueURL and queueURLFromEnv is needed"
    container = worker_container(documents)
    variables = {one["name"]: one.get("value") for one in container["env"]}
    if "queueURL" in metadata and metadata["queueURL"] != variables.get("SQS_QUEUE_URL"):
        yield "trigger: queueURL is another queue than the worker's"
    if metadata.get("awsRegion") != variables.get("AWS_REGION"):
        yield "trigger: awsRegion is another region than the worker's"


def alerts(documents):
    """Alerts look at this release: at its series, and, in KEDA's metrics, at its ScaledObject; with another name they never fire."""
    scaled = {one["metadata"]["name"] for one in of_kind(documents, "ScaledObject")}
    for document in of_kind(documents, "PrometheusRule"):
        rules = [rule for group in document["spec"]["groups"] for rule in group["rules"]]
        for expr in [rule["expr"] for rule in rules]:
            for name in re.findall(r'scaledObject="([^"]*)"', expr):
                if scaled and name not in scaled:
                    yield f"PrometheusRule: asks for ScaledObject {name}"
            for metric, matchers in re.findall(r"\b((?:worker|sqs)_[a-z_]+)\b(?!:)(\{[^}]*\})?", expr):
                if "job=~" not in matchers:
                    yield f"PrometheusRule: {metric} is every release's"
            for record, matchers in re.findall(r"\b(namespace_job:[\w:]+)(\{[^}]*\})?", expr):
                if "job=~" not in matchers:
                    yield f"PrometheusRule: {record} is every release's"
        names = [rule["alert"] for rule in rules if "alert" in rule]
        for name in {name for name in names if names.count(name) > 1}:
            yield f"PrometheusRule: {name} is there twice"
        for rule in rules:
            if "alert" in rule and rule["labels"].get("severity") not in ("critical", "warning", "info"):
                yield f"PrometheusRule: {rule['alert']} has severity {rule['labels'].get('severity')}"


def within(selector, labels):
    return selector and selector.items() <= labels.items()


def selectors(documents):
    """Every selector selects the worker's pods; only the network policy also selects the test's pod."""
    (deployment,) = of_kind(documents, "Deployment")
    pod = deployment["spec"]["template"]
    tests = [document["metadata"].get("labels", {}) for document in of_kind(documents, "Pod")]
    chosen = [("Deployment", deployment["spec"]["selector"]["matchLabels"])]
    chosen += [("Service", one["spec"]["selector"]) for one in of_kind(documents, "Service")]
    for kind in ("PodDisruptionBudget", "PodMonitor"):
        chosen += [(kind, one["spec"]["selector"]["matchLabels"]) for one in of_kind(documents, kind)]
    spread = pod["spec"].get("topologySpreadConstraints", [])
    chosen += [("topologySpreadConstraints", one["labelSelector"]["matchLabels"]) for one in spread]
    for what, selector in chosen:
        if not within(selector, pod["metadata"]["labels"]):
            yield f"{what}: its selector does not take the worker's pods"
        if any(within(selector, labels) for labels in tests):
            yield f"{what}: its selector takes the test's pod"
    for policy in of_kind(documents, "ServiceMonitor"):
        labels = [one["metadata"]["labels"] for one in of_kind(documents, "Service")]
        if not any(within(policy["spec"]["selector"]["matchLabels"], one) for one in labels):
            yield "ServiceMonitor: its selector does not take the Service"
    policies = [(one, "podSelector") for one in of_kind(documents, "NetworkPolicy")]
    policies += [(one, "endpointSelector") for one in of_kind(documents, "CiliumNetworkPolicy")]
    for policy, selector in policies:
        for labels in [pod["metadata"]["labels"], *tests]:
            if not within(policy["spec"][selector].get("matchLabels"), labels):
                yield f"{policy['kind']}: its selector does not take every pod of the release"


def pods(documents):
    """The worker's pod: ports, probes and the termination grace period."""
    (deployment,) = of_kind(documents, "Deployment")
    spec = deployment["spec"]["template"]["spec"]
    container = worker_container(documents)
    variables = {one["name"]: one.get("value") for one in container["env"]}
    if spec["terminationGracePeriodSeconds"] < int(variables["SHUTDOWN_GRACE"]) + GRACE_MARGIN_S:
        yield "Deployment: terminationGracePeriodSeconds leaves no margin above SHUTDOWN_GRACE"
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    if ports.get("http") != int(variables["SERVER_PORT"]):
        yield "Deployment: port http is not SERVER_PORT"
    for probe, path in SIDE_PATHS.items():
        get = container.get(probe, {}).get("httpGet", {})
        if get.get("path") != path or get.get("port") not in ports:
            yield f"Deployment: {probe} does not ask {path} on a port that is there"
    targets = [port["targetPort"] for one in of_kind(documents, "Service") for port in one["spec"]["ports"]]
    targets += [end["port"] for one in of_kind(documents, "PodMonitor") for end in one["spec"]["podMetricsEndpoints"]]
    targets += [end["port"] for one in of_kind(documents, "ServiceMonitor") for end in one["spec"]["endpoints"]]
    for target in targets:
        if target not in ports:
            yield f"port {target} is not the container's"
    for part in ("requests", "limits"):
        if not {"cpu", "memory"} <= container["resources"].get(part, {}).keys():
            yield f"Deployment: resources.{part} needs cpu and memory"


def restricted(spec):
    """Pod Security Standards, level `restricted` (kubernetes.io/docs/concepts/security/pod-security-standards), and more."""
    pod = spec.get("securityContext", {})
    if pod.get("seccompProfile", {}).get("type") != "RuntimeDefault":
        yield "seccompProfile is not RuntimeDefault"
    # Without a number the platform chooses one, as OpenShift does; then the group is its choice too.
    if pod.get("runAsUser") == 0 or ("runAsUser" in pod) != ("fsGroup" in pod) or pod.get("runAsNonRoot") is not True:
        yield "runAsUser is root, or may be"
    if any(spec.get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "uses the host's namespaces"
    if spec.get("automountServiceAccountToken") is not False:
        yield "has a token for the Kubernetes API"
    if spec.get("enableServiceLinks") is not False:
        yield "has the namespace's Services in its environment"
    allowed = {"configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"}
    for volume in spec.get("volumes", []):
        if not volume.keys() - {"name"} <= allowed:
            yield f"volume {volume['name']} is of a kind that is not allowed"
    for container in [*spec["containers"], *spec.get("initContainers", [])]:
        own = container.get("securityContext", {})
        wanted = {"allowPrivilegeEscalation": False, "privileged": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True}
        for name, value in wanted.items():
            if own.get(name) is not value:
                yield f"container {container['name']}: {name} is not {value}"
        if own.get("capabilities") != {"drop": ["ALL"]}:
            yield f"container {container['name']}: capabilities are not all dropped"
        if any("hostPort" in port for port in container.get("ports", [])):
            yield f"container {container['name']}: has a hostPort"


def environment(container):
    """No variable twice, every value a string, every $(NAME) defined above its use."""
    seen = set()
    for variable in container.get("env", []):
        name = variable["name"]
        if name in seen:
            yield f"{name} is set twice"
        if ("value" in variable) == ("valueFrom" in variable):
            yield f"{name} needs one of value and valueFrom"
        if not isinstance(variable.get("value", ""), str):
            yield f"{name} is no string"
        for used in re.findall(r"\$\(([^)]*)\)", str(variable.get("value", ""))):
            if used not in seen:
                yield f"{name} uses {used}, which is not defined above it"
        seen.add(name)


def network(documents):
    """All traffic is denied in both directions, except by rules that name peers and ports."""
    for policy in of_kind(documents, "NetworkPolicy"):
        spec = policy["spec"]
        if sorted(spec.get("policyTypes", [])) != ["Egress", "Ingress"]:
            yield "NetworkPolicy: policyTypes are not Ingress and Egress: what is not allowed is not denied"
        for direction, peers in (("ingress", "from"), ("egress", "to")):
            for index, rule in enumerate(spec.get(direction) or []):
                where = f"NetworkPolicy: {direction}[{index}]"
                if not rule.get(peers) or not all(rule[peers]):
                    yield f"{where} allows everybody"
                if not rule.get("ports") or not all(port.get("port") for port in rule["ports"]):
                    yield f"{where} allows every port"
        open_ends = [
            port["port"]
            for rule in spec["egress"]
            if any(peer.get("ipBlock", {}).get("cidr") in ("0.0.0.0/0", "::/0") for peer in rule.get("to", []))
            for port in rule.get("ports", [])
        ]
        if set(open_ends) - {443}:
            yield f"NetworkPolicy: the whole Internet on {open_ends}"
        if not any(port["port"] == 53 for rule in spec["egress"] for port in rule.get("ports", [])):
            yield "NetworkPolicy: no DNS"
    for policy in of_kind(documents, "CiliumNetworkPolicy"):
        yield from cilium(policy["spec"])


def cilium(spec):
    """A direction that has rules denies what they do not allow; a rule has one kind of peer, and ports."""
    for direction, way in (("ingress", "from"), ("egress", "to")):
        if not spec.get(direction):
            yield f"CiliumNetworkPolicy: no {direction}: what is not allowed is not denied"
        for index, rule in enumerate(spec.get(direction) or []):
            where = f"CiliumNetworkPolicy: {direction}[{index}]"
            peers = [key for key in rule if key.startswith(way) and key != "toPorts"]
            if len(peers) != 1 or not rule[peers[0]]:
                yield f"{where} has peers of {len(peers)} kinds"
            if not rule.get("toPorts") or not all(ports.get("ports") for ports in rule["toPorts"]):
                yield f"{where} allows every port"


def references(documents):
    """Every object that another one names exists."""
    accounts = {one["metadata"]["name"] for one in of_kind(documents, "ServiceAccount")}
    for document, _, spec in pod_specs(documents):
        if accounts and spec["serviceAccountName"] not in accounts:
            yield f"{document['kind']}: no ServiceAccount {spec['serviceAccountName']}"
    made = {one["metadata"]["name"] for one in of_kind(documents, "TriggerAuthentication")}
    for scaled in of_kind(documents, "ScaledObject"):
        for trigger in scaled["spec"]["triggers"]:
            if made and trigger.get("authenticationRef", {}).get("name") not in made | {None}:
                yield f"trigger: no TriggerAuthentication {trigger['authenticationRef']['name']}"
    for one in of_kind(documents, "TriggerAuthentication"):
        identity = one["spec"]["podIdentity"]
        if identity["provider"] != "aws":
            yield f"TriggerAuthentication: provider is {identity['provider']}"
        if "roleArn" in identity and "identityOwner" in identity:
            yield "TriggerAuthentication: roleArn and identityOwner exclude each other"
