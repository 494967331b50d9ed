"""Checks that invalid values are rejected with a message that names the fault."""

from harness import HELMS, HERE, at_once, template

URL = "https://sqs.ap-northeast-2.amazonaws.com/123456789012/reservations"

# The settings, and a part of the message.
WRONG = [
    # Rejected by the schema: types, ranges, names.
    (["config.maxRetries=11"], "'/config/maxRetries': maximum: got 11, want 10"),
    (["config.sqsWaitTime=-1"], "'/config/sqsWaitTime': minimum: got -1, want 0"),
    (["config.workerConcurrency=many"], "'/config/workerConcurrency': got string, want null or integer"),
    (["config.workerConcurency=20"], "'/config': additional properties 'workerConcurency' not allowed"),
    (["kedda.enabled=true"], "additional properties 'kedda' not allowed"),
    (["keda.scaleOnInflight=true"], "'/keda': additional properties 'scaleOnInflight' not allowed"),
    (["keda.scaleOnInFlight=yes please"], "'/keda/scaleOnInFlight': got string, want boolean"),
    (["config.logLevel=trace"], "'/config/logLevel': value must be one of 'debug', 'info', 'warn', 'error'"),
    (["config.otelTracesSamplerArg=2"], "'/config/otelTracesSamplerArg': maximum: got 2, want 1"),
    (["config.serverPort=0"], "'/config/serverPort': minimum: got 0, want 1"),
    (["config.serverPort=null"], "/config"),
    (["aws.identity=iam"], "'/aws/identity': value must be one of 'podIdentity', 'irsa', 'node', 'none'"),
    (["image.digest=latest"], "'/image/digest'"),
    (["resources.limits.memory=lots"], "'/resources/limits/memory'"),
    (["networkPolicy.awsCidrs[0]=everywhere"], "'/networkPolicy/awsCidrs/0'"),
    (["config.otelResourceAttributes=team"], "'/config/otelResourceAttributes'"),
    # Rejected by the templates: limits between values.
    (["podMonitor.interval=5s", "podMonitor.scrapeTimeout=10s"], "podMonitor.scrapeTimeout is 10s; allowed: at most podMonitor.interval, which is 5s"),
    (["config.sqsQueueUrl=null"], "config.sqsQueueUrl is required, e.g. https://"),
    (["config.sqsQueueUrl=reservations"], 'config.sqsQueueUrl is "reservations"; allowed: an http or https URL'),
    (["config.sqsDlqUrl=" + URL], "config.sqsDlqUrl is config.sqsQueueUrl; allowed: another queue"),
    (["config.inventoryGrpcAddr=inventory"], 'config.inventoryGrpcAddr is "inventory"; allowed: host:port'),
    (["config.inventoryGrpcAddr=http://inventory:1/path"], "without a path"),
    (["config.reservationApiBase=reservation-api:8080"], 'config.reservationApiBase is "reservation-api:8080"; allowed: an http'),
    (["config.awsRegion=eu-west-1"], 'config.awsRegion is "eu-west-1", but the queue\'s URL says "ap-northeast-2"'),
    (["config.sqsQueueUrl=null", "existingConfigMap=worker"], "config.awsRegion is required where config.sqsQueueUrl is not given"),
    (["config.idempotencyStore=redis://:hush@redis:6379"], "put the URL in a Secret and name it in config.idempotencyStoreSecret"),
    (["config.idempotencyStore=redis://redis:6379,config.idempotencyStoreAuth=iam"], "'/config/idempotencyStoreAuth': value must be one of 'url', 'file'"),
    (["config.idempotencyStore=redis://worker@redis"], "holds a user or password"),
    (["config.idempotencyStore=redis://worker:hush@redis", "config.idempotencyStoreAuth=file"], "or the password alone: config.idempotencyStoreAuth=file"),
    (["config.idempotencyStore=redis://worker@redis", "config.idempotencyStoreAuth=file"], "config.idempotencyStorePasswordFile is required, as"),
    (["config.idempotencyStore=redis://redis", "config.idempotencyStorePasswordFile=/p"], "allowed only where config.idempotencyStoreAuth is file"),
    (["config.idempotencyStore=redis://redis", "config.idempotencyStoreAwsCache=c"], "allowed only where config.idempotencyStoreAuth is aws-iam"),
    (["config.idempotencyStoreAwsCache=My-Cache"], "'/config/idempotencyStoreAwsCache'"),
    (["config.idempotencyStoreAuth=file", "config.idempotencyStorePasswordFile=/p"], "but config.idempotencyStore is memory, which nobody logs in to"),
    (
        ["config.idempotencyStore=redis://worker@redis", "config.idempotencyStoreAuth=aws-iam", "config.idempotencyStoreAwsCache=c"],
        "allowed with config.idempotencyStoreAuth aws-iam: rediss://USER@HOST:PORT",
    ),
    (
        ["config.idempotencyStore=redis://redis", "config.idempotencyStoreCaFile=/ca.crt"],
        'config.idempotencyStoreCaFile is set, but config.idempotencyStore is "redis://redis"; allowed: a rediss:// URL',
    ),
    (["config.idempotencyStore=rediss://redis", "config.idempotencyStoreKeyFile=/k"], "ClientCertFile and config.idempotencyStoreKeyFile go together"),
    (
        [
            "config.idempotencyStore=redis://worker@redis",
            "config.idempotencyStoreAuth=file",
            "config.idempotencyStorePasswordFile=/etc/reservation-worker/idempotency-store/password",
        ],
        "where nothing is mounted; set serviceSecrets.idempotencyStore to the name of a Secret",
    ),
    (["config.idempotencyStore=disk"], 'config.idempotencyStore is "disk"; allowed: memory, or a redis://'),
    (["config.idempotencyStore=redis://redis", "config.idempotencyStoreSecret.name=redis"], "are both set; keep one"),
    (["config.inventoryCaFile=ca.crt"], "'/config/inventoryCaFile'"),
    (["config.inventoryCaFile=/ca.crt"], 'config.inventoryCaFile is set, but config.inventoryGrpcAddr is "inventory:50051"; allowed: an https URL'),
    (["config.reservationApiKeyFile=/tls.key"], "config.reservationApiClientCertFile and config.reservationApiKeyFile go together"),
    (
        ["config.inventoryTokenFile=/etc/reservation-worker/inventory/token"],
        "where nothing is mounted; set serviceSecrets.inventory to the name of a Secret",
    ),
    (["config.shutdownGrace=22"], "config.shutdownGrace is 22; allowed: at least config.sqsWaitTime + 3 = 23"),
    (["terminationGracePeriodSeconds=29"], "terminationGracePeriodSeconds is 29; allowed: at least config.shutdownGrace + 5 = 30"),
    (["config.maxInFlight=19"], "config.maxInFlight is 19; allowed: not below config.workerConcurrency, which is 20"),
    (["config.concurrencyMin=21"], "config.concurrencyMin is 21; allowed: not above config.workerConcurrency, which is 20"),
    (["config.inventoryLatencyTargetMs=2000"], "config.inventoryLatencyTargetMs is 2000; allowed: below config.inventoryTimeoutMs, which is 2000"),
    (
        ["config.reservationLatencyTargetMs=300", "config.reservationTimeoutMs=250"],
        "config.reservationLatencyTargetMs is 300; allowed: below config.reservationTimeoutMs, which is 250",
    ),
    (["config.backoffMaxMs=999"], "config.backoffMaxMs is 999; allowed: not below config.backoffBaseMs, which is 1000"),
    (["config.maxInFlightMb=1024"], "resources.limits.memory is 768Mi; allowed: at least 1.25 times config.maxInFlightMb + 48 = 1328Mi"),
    (["extraEnv[0].name=LOG_LEVEL", "extraEnv[0].value=info"], "extraEnv sets LOG_LEVEL; set config.logLevel instead"),
    (["keda.minReplicaCount=51"], "keda.maxReplicaCount is 50; allowed: not below keda.minReplicaCount, which is 51"),
    (["keda.fallback.replicas=51"], "keda.fallback.replicas is 51; allowed: not above keda.maxReplicaCount, which is 50"),
    (["keda.maxReplicaCount=96"], "96 pods, 120 with those that a roll-out adds, times config.maxInFlight 1000 is 120000; allowed: below 120000"),
    (["keda.maxReplicaCount=118", "strategy.rollingUpdate.maxSurge=2"], "118 pods, 120 with those that a roll-out adds"),
    (["keda.maxReplicaCount=120", "strategy.type=Recreate"], "120 pods, 120 with those that a roll-out adds"),
    (["keda.enabled=false", "replicaCount=96"], "96 pods, 120 with those that a roll-out adds"),
    (["strategy.rollingUpdate.maxSurge=0"], "strategy.rollingUpdate.maxSurge and maxUnavailable are both 0; allowed: at least one above"),
    (["resources.requests.cpu=1100m"], "resources.requests.cpu is 1100m; allowed: at most resources.limits.cpu, which is 1"),
    (["resources.requests.memory=1Gi"], "resources.requests.memory is 1Gi; allowed: at most resources.limits.memory, which is 768Mi"),
    (["resources.requests.ephemeral-storage=2M", "resources.limits.ephemeral-storage=1Mi"], "resources.requests.ephemeral-storage is 2M; allowed: at most"),
    (["config.workerThreads=2"], "config.workerThreads is 2; allowed: at most resources.limits.cpu, which is 1"),
    (["config.workerThreads=2", "resources.limits.cpu=1900m"], "config.workerThreads is 2; allowed: at most resources.limits.cpu, which is 1900m"),
    (
        ["config.idempotencyCapacity=10000000"],
        "allowed: at least 1.25 times config.maxInFlightMb + 48 + 128 bytes for each event of config.idempotencyCapacity beyond 100000 = 1337Mi",
    ),
    (["keda.authentication.kind=ClusterTriggerAuthentication"], "allowed only with keda.authentication.existing"),
    (["keda.authentication.kind=Secret"], "'/keda/authentication/kind': value must be one of"),
    (["keda.extraTriggers[0].type=cron"], "'/keda/extraTriggers/0': missing property 'metadata'"),
    (["keda.extraTriggers[0].type=cron", "keda.extraTriggers[0].metadata.desiredReplicas=20"], "desiredReplicas': got number, want string"),
    (["keda.authentication.identityOwner=workload"], "works with aws.identity irsa only, not with podIdentity"),
    (["aws.identity=irsa"], "aws.identity is irsa: aws.roleArn is required"),
    (["aws.roleArn=arn:aws:iam::123456789012:role/r"], "aws.roleArn has no effect with aws.identity podIdentity"),
    (["config.inventoryGrpcAddr=inventory.example.com.:443"], "networkPolicy.inventory.to is required"),
    (["config.reservationApiBase=https://api.tickets.example.com"], 'a policy cannot name the host "api.tickets.example.com"'),
    (["config.idempotencyStoreSecret.name=redis"], "networkPolicy.redis.to is required, as its address is not in the values"),
    (["config.reservationApiBase=http://acme.io"], "or, for a Service of that namespace, the address acme.io.svc"),
    (["config.inventoryGrpcAddr=inventory.dev:50051"], "or, for a Service of that namespace, the address inventory.dev.svc"),
    (
        ["config.awsEndpointUrl=https://vpce-1.sqs.ap-northeast-2.vpce.amazonaws.com"],
        "where the calls to STS would go too, which aws.identity podIdentity needs; set config.awsEndpointUrlSqs instead",
    ),
    (
        ["config.awsEndpointUrl=https://vpce-1.example.com", "aws.identity=irsa", "aws.roleArn=arn:aws:iam::123456789012:role/r"],
        "which aws.identity irsa needs; set config.awsEndpointUrlSqs instead",
    ),
    (
        ["aws.identity=irsa", "aws.roleArn=arn:aws:iam::123456789012:role/r", "serviceAccount.create=false", "serviceAccount.name=tickets"],
        "aws.roleArn has no effect where serviceAccount.create is false; leave it out, and annotate the account itself",
    ),
    (
        ["aws.identity=irsa", "aws.roleArn=arn:aws:iam::123456789012:role/r", "serviceAccount.annotations.eks\\.amazonaws\\.com/role-arn=x"],
        "serviceAccount.annotations sets eks.amazonaws.com/role-arn, and so does aws.roleArn; keep one",
    ),
    (
        ["config.awsEndpointUrl=http://localstack:4566", "aws.identity=none"],
        "SQS is called on port 4566, by config.awsEndpointUrl; the policy allows 443: name the way in networkPolicy.extraEgress",
    ),
    (["podLabels.app\\.kubernetes\\.io/name=other"], "podLabels sets app.kubernetes.io/name, which is the chart's own; allowed: other labels"),
    (["commonLabels.helm\\.sh/chart=other"], "commonLabels sets helm.sh/chart, which is the chart's own; allowed: other labels"),
    (["podMonitor.labels.app\\.kubernetes\\.io/version=v1"], "podMonitor.labels sets app.kubernetes.io/version"),
    (["dashboard.labels.app\\.kubernetes\\.io/name=x"], "dashboard.labels sets app.kubernetes.io/name, which is the chart's own"),
    (["extraEnv[0].name=A", "extraEnv[1].name=A"], "extraEnv: A is there twice, or is the chart's own"),
    (["extraEnv[0].name=K8S_POD_NAME"], "extraEnv: K8S_POD_NAME is there twice, or is the chart's own"),
    (["extraEnv[0].name=AWS_REGION"], "extraEnv sets AWS_REGION; set config.awsRegion instead"),
    (["extraVolumes[0].name=inventory-secret", "serviceSecrets.inventory=s"], "extraVolumes: inventory-secret is there twice"),
    (
        ["extraVolumeMounts[0].name=a", "extraVolumeMounts[0].mountPath=/etc/reservation-worker/inventory", "serviceSecrets.inventory=s"],
        "extraVolumeMounts: /etc/reservation-worker/inventory is there twice",
    ),
    (["extraContainers[0].name=worker"], "initContainers and extraContainers: worker is there twice, or is the chart's own"),
    (["serviceMonitor.enabled=true", "podMonitor.enabled=true"], "each pod would be scraped twice; keep one"),
    (["serviceMonitor.enabled=true", "service.enabled=false"], "allowed: both, as it scrapes over the Service"),
    (["serviceMonitor.interval=1s"], "serviceMonitor.scrapeTimeout is 5s; allowed: at most serviceMonitor.interval, which is 1s"),
    (["enabled=false"], "enabled is false, which has an effect only as the condition of a dependency"),
    (["networkPolicy.flavour=calico"], "'/networkPolicy/flavour': value must be one of 'kubernetes', 'cilium'"),
    (["networkPolicy.dns.clusterIPs[0]=kube-dns"], "'/networkPolicy/dns/clusterIPs/0'"),
    (["image.registry=https://ghcr.io"], "'/image/registry'"),
    (["image=null"], "image"),
]


def run(checks):
    minimal = HERE / "values/minimal.yaml"

    def refused(case):
        (settings, _), name = case
        arguments = [part for setting in settings for part in ("--set", setting)]
        return template("--values", minimal, *arguments, helm_name=name)

    cases = [(wrong, name) for wrong in WRONG for name in HELMS]
    for ((settings, expected), name), (code, out, err) in zip(cases, at_once(refused, cases), strict=True):
        checks.expect(f"{name}: {settings} is not refused", code != 0 and not out)
        # Helm 3 words the schema's errors differently.
        if name == "helm 4":
            checks.expect(f"{settings}: {expected!r} is not said", expected in err, err)
            checks.expect(f"{settings}: the password is shown", "hush" not in err)
    code, out, err = template("--values", minimal, release="2025-worker")
    checks.expect("a Service whose name begins with a digit", code != 0 and "set fullnameOverride, or service.enabled to false" in err, err)
    two = template("--values", minimal, "--set", "config.shutdownGrace=22", "--set", "keda.maxReplicaCount=120")[2]
    checks.expect("two faults are named at once", "shutdownGrace is 22" in two and "120 pods" in two, two)
