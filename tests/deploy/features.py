"""Checks that each file of the chart's `examples/` shows what its first line says."""

import json

import yaml

from harness import CHART, of_kind, one_of, pod_specs, render, worker_container, worker_pod

EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))


def keda_cron(documents, _):
    queue, cron = one_of(documents, "ScaledObject")["spec"]["triggers"]
    return queue["type"] == "aws-sqs-queue" and cron["type"] == "cron" and cron["metadata"]["desiredReplicas"] == "20"


def keda_cluster_authentication(documents, _):
    reference = one_of(documents, "ScaledObject")["spec"]["triggers"][0]["authenticationRef"]
    return reference == {"name": "platform-aws", "kind": "ClusterTriggerAuthentication"} and not of_kind(documents, "TriggerAuthentication")


def keda_paused(documents, _):
    return one_of(documents, "ScaledObject")["metadata"]["annotations"] == {"autoscaling.keda.sh/paused-replicas": "5"}


def keda_off_and_on(documents, _):
    return not of_kind(documents, "ScaledObject") and "replicas" not in one_of(documents, "Deployment")["spec"]


def keda_restores(documents, _):
    return one_of(documents, "ScaledObject")["spec"]["advanced"]["restoreToOriginalReplicaCount"] is True


def sidecar(documents, _):
    spec = worker_pod(documents)["spec"]
    containers = [one["name"] for one in spec["containers"]]
    return containers == ["worker", "proxy"] and [one["name"] for one in spec["initContainers"]] == ["wait-for-services"]


def extra_objects(documents, _):
    secret = one_of(documents, "ExternalSecret")
    mounted = worker_pod(documents)["spec"]["volumes"][0]["secret"]["secretName"]
    return secret["metadata"]["name"] == secret["spec"]["target"]["name"] == mounted == "reservation-worker-redis"


def volumes(documents, _):
    mount = {"name": "company-roots", "mountPath": "/etc/company", "readOnly": True}
    return all(mount in spec["containers"][0]["volumeMounts"] for _, _, spec in pod_specs(documents))


def labels_and_annotations(documents, given):
    """Every object has the common ones; each block's are on its object."""
    pod = worker_pod(documents)["metadata"]
    every = [one["metadata"] for one in documents]
    common = all(one["labels"]["cost-centre"] == "4711" and one["annotations"]["contact"] == "tickets@example.com" for one in [*every, pod])
    blocks = {
        "Deployment": given["deployment"], "ServiceAccount": given["serviceAccount"], "Service": given["service"],
        "PodMonitor": given["podMonitor"], "PrometheusRule": given["prometheusRule"], "PodDisruptionBudget": given["podDisruptionBudget"], "NetworkPolicy": given["networkPolicy"],
        "ScaledObject": given["keda"], "TriggerAuthentication": given["keda"]["authentication"], "Pod": given["test"],
    }
    own = all(
        block.get(part, {}).items() <= one["metadata"][part].items()
        for kind, block in blocks.items()
        for one in of_kind(documents, kind)
        for part in ("labels", "annotations")
    )
    pods = given["podLabels"].items() <= pod["labels"].items() and given["podAnnotations"].items() <= pod["annotations"].items()
    return common and own and pods and blocks.keys() == {one["kind"] for one in documents}


def openshift(documents, _):
    wanted = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    return all(spec["securityContext"] == wanted for _, _, spec in pod_specs(documents))


def rollout(documents, _):
    spec = one_of(documents, "Deployment")["spec"]
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}
    return spec["strategy"] == strategy and spec["minReadySeconds"] == 30 and spec["revisionHistoryLimit"] == 10


def dns(documents, given):
    keys = ("dnsPolicy", "dnsConfig", "hostAliases")
    return all(spec[key] == given[key] for _, _, spec in pod_specs(documents) for key in keys)


def scheduling(documents, given):
    spec = worker_pod(documents)["spec"]
    nodes = spec["nodeSelector"] == {"kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"}
    return nodes and all(spec[key] == given[key] for key in ("tolerations", "affinity", "priorityClassName")) and len(spec["topologySpreadConstraints"]) == 2


def network_ways(documents, given):
    spec = one_of(documents, "NetworkPolicy")["spec"]
    policy = given["networkPolicy"]
    return spec["ingress"][1:] == policy["extraIngress"] and spec["egress"][-1:] == policy["extraEgress"]


def cilium(documents, given):
    """The node is an entity; namespaces are labels; addresses and pods are rules of their own."""
    spec = one_of(documents, "CiliumNetworkPolicy")["spec"]
    ways = {}
    # toFQDNs works only where Cilium reads the answers of DNS.
    learnt = [rule["toPorts"][0]["ports"][0]["port"] for rule in spec["egress"] if rule["toPorts"][0].get("rules") == {"dns": [{"matchPattern": "*"}]}]
    for rule in spec["egress"]:
        (kind,) = rule.keys() - {"toPorts"}
        for port in rule["toPorts"][0]["ports"]:
            ways.setdefault(port["port"], []).append((kind, rule[kind]))
    namespace = "k8s:io.kubernetes.pod.namespace"
    collector = {
        "matchLabels": {"k8s:app": "otel-collector"},
        "matchExpressions": [
            {"key": "k8s:io.cilium.k8s.namespace.labels.team", "operator": "In", "values": ["observability"]},
            {"key": namespace, "operator": "Exists"},
        ],
    }
    metrics = {"matchLabels": {namespace: "monitoring", "k8s:app.kubernetes.io/name": "prometheus"}}
    return (
        not of_kind(documents, "NetworkPolicy")
        and learnt == ["53", "53"]
        and ways["80"] == [("toEntities", ["host"])]
        and ("toEntities", ["host"]) in ways["53"]
        and ways["4317"] == [("toEndpoints", [collector])]
        and ways["50051"] == [("toEndpoints", [{"matchLabels": {namespace: "tickets"}}])]
        and ways["8080"] == [("toCIDRSet", [{"cidr": "10.1.2.4/32"}])]
        and spec["egress"][-1] == given["networkPolicy"]["extraEgress"][0]
        and spec["ingress"] == [{"fromEndpoints": [metrics], "toPorts": [{"ports": [{"port": "http", "protocol": "TCP"}]}]}]
    )


def monitor(documents, given, kind, block, endpoints):
    one = one_of(documents, kind)
    (endpoint,) = one["spec"][endpoints]
    where = one["metadata"]["namespace"] == "monitoring" and one["spec"]["namespaceSelector"] == {"matchNames": ["tickets"]}
    return where and all(endpoint[key] == given[block][key] for key in ("relabelings", "metricRelabelings"))


def service_monitor(documents, given):
    return monitor(documents, given, "ServiceMonitor", "serviceMonitor", "endpoints") and not of_kind(documents, "PodMonitor")


def pod_monitor(documents, given):
    return monitor(documents, given, "PodMonitor", "podMonitor", "podMetricsEndpoints")


def private_registry(documents, given):
    image = f"registry.example.com/mirror/reservation-worker@{given['image']['digest']}"
    return all(spec["containers"][0]["image"] == image and spec["imagePullSecrets"] == [{"name": "mirror"}] for _, _, spec in pod_specs(documents))


def eks_auto_mode(documents, _):
    return {"ipBlock": {"cidr": "172.20.0.10/32"}} in one_of(documents, "NetworkPolicy")["spec"]["egress"][0]["to"]


def daemonset_collector(documents, _):
    names = [one["name"] for one in worker_container(documents)["env"]]
    return names.index("HOST_IP") < names.index("OTEL_EXPORTER_OTLP_ENDPOINT")


def irsa(documents, given):
    account = one_of(documents, "ServiceAccount")["metadata"]["annotations"]
    login = one_of(documents, "TriggerAuthentication")["spec"]["podIdentity"]
    return account["eks.amazonaws.com/role-arn"] == given["aws"]["roleArn"] and login == {"provider": "aws", "identityOwner": "workload"}


def vpc_endpoint(documents, given):
    trigger = one_of(documents, "ScaledObject")["spec"]["triggers"][0]["metadata"]
    names = {one["name"] for one in worker_container(documents)["env"]}
    return trigger["awsEndpoint"] == given["config"]["awsEndpointUrlSqs"] and "AWS_ENDPOINT_URL" not in names


def cross_account(documents, given):
    login = one_of(documents, "TriggerAuthentication")["spec"]["podIdentity"]
    return login == {"provider": "aws", "roleArn": given["keda"]["authentication"]["roleArn"]}


def grafana_dashboard(documents, given):
    one = one_of(documents, "ConfigMap")
    labels = given["dashboard"]["labels"].items() <= one["metadata"]["labels"].items()
    where = one["metadata"]["namespace"] == "monitoring" and one["metadata"]["annotations"] == given["dashboard"]["annotations"]
    return labels and where and json.loads(one["data"]["reservation-worker.json"])["panels"]


def alerts_of_a_team(documents, given):
    rules = [rule for one in of_kind(documents, "PrometheusRule") for group in one["spec"]["groups"] for rule in group["rules"] if "alert" in rule]
    (failing,) = [rule for rule in rules if rule["alert"] == "ReservationWorkerEventsFailing"]
    whole = all(rule["labels"]["team"] == "tickets" and rule["annotations"]["runbook_url"].startswith(given["alerts"]["runbookUrl"]) for rule in rules)
    left_out = not {rule["alert"] for rule in rules} & set(given["alerts"]["disabled"])
    return len(rules) > 10 and whole and left_out and failing["for"] == "10m" and failing["expr"].endswith("> 0.1")


def run(checks):
    shown = {name.replace("_", "-"): function for name, function in globals().items() if callable(function)}
    for path in EXAMPLES:
        text = path.read_text()
        checks.expect(f"examples/{path.name}: its first line says what it shows", text.startswith("# "))
        documents = render(checks, path)
        given = yaml.safe_load(text)
        checks.expect(f"examples/{path.name} is not what is rendered", bool(documents) and shown[path.stem](documents, given))
