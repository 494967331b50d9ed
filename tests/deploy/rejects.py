"""Checks that invalid values are rejected with a message that names the fault."""

from harness import HELMS, HERE, template

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
    (["aws.identity=iam"], "'/aws/identity': value must be one of 'podIdentity', 'irsa', 'none'"),
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
    (["config.maxInFlightMb=1024"], "resources.limits.memory is 768Mi; allowed: at least config.maxInFlightMb + 64 = 1088Mi"),
    (["extraEnv[0].name=LOG_LEVEL", "extraEnv[0].value=info"], "extraEnv sets LOG_LEVEL; set config.logLevel instead"),
    (["keda.minReplicaCount=51"], "keda.maxReplicaCount is 50; allowed: not below keda.minReplicaCount, which is 51"),
    (["keda.fallback.replicas=51"], "keda.fallback.replicas is 51; allowed: not above keda.maxReplicaCount, which is 50"),
    (["keda.maxReplicaCount=120"], "120 pods times config.maxInFlight 1000 is 120000; allowed: below 120000"),
    (["keda.authentication.identityOwner=workload"], "works with aws.identity irsa only, not with podIdentity"),
    (["aws.identity=irsa"], "aws.identity is irsa: aws.roleArn is required"),
    (["aws.roleArn=arn:aws:iam::123456789012:role/r"], "aws.roleArn has no effect with aws.identity podIdentity"),
    (["config.inventoryGrpcAddr=inventory.example.com.:443"], "networkPolicy.inventory.to is required"),
    (["config.reservationApiBase=https://api.tickets.example.com"], 'a policy cannot name the host "api.tickets.example.com"'),
    (["config.idempotencyStoreSecret.name=redis"], "networkPolicy.redis.to is required, as its address is not in the values"),
    (
        ["config.awsEndpointUrl=http://localstack:4566"],
        "SQS is called on port 4566, by config.awsEndpointUrl; the policy allows 443: name the way in networkPolicy.extraEgress",
    ),
    (["podLabels.app\\.kubernetes\\.io/name=other"], "podLabels sets app.kubernetes.io/name, which selectors go by; allowed: other labels"),
]


def run(checks):
    minimal = HERE / "values/minimal.yaml"
    for settings, expected in WRONG:
        arguments = [part for setting in settings for part in ("--set", setting)]
        for name in HELMS:
            code, out, err = template("--values", minimal, *arguments, helm_name=name)
            checks.expect(f"{name}: {settings} is not refused", code != 0 and not out)
            # Helm 3 words the schema's errors differently.
            if name == "helm 4":
                checks.expect(f"{settings}: {expected!r} is not said", expected in err, err)
                checks.expect(f"{settings}: the password is shown", "hush" not in err)
    code, out, err = template("--values", minimal, release="2025-worker")
    checks.expect("a Service whose name begins with a digit", code != 0 and "set fullnameOverride, or service.enabled to false" in err, err)
    two = template("--values", minimal, "--set", "config.shutdownGrace=22", "--set", "keda.maxReplicaCount=120")[2]
    checks.expect("two faults are named at once", "shutdownGrace is 22" in two and "120 pods" in two, two)
