{{/* The rules of _validate.tpl about what Kubernetes, KEDA and AWS are given. */}}

{{/* A Kubernetes quantity in its unit's thousandths, so that 100m is whole: of CPUs, or of bytes. */}}
{{- define "reservation-worker.thousandths" -}}
{{- $factors := dict "m" 1 "" 1000 "k" 1000000 "M" 1000000000 "G" 1000000000000 "Ki" 1024000 "Mi" 1048576000 "Gi" 1073741824000 -}}
{{- $quantity := include "reservation-worker.text" . -}}
{{- $unit := regexFind "[A-Za-z]*$" $quantity -}}
{{- mulf (trimSuffix $unit $quantity | float64) (get $factors $unit) | floor | int64 -}}
{{- end -}}

{{- define "reservation-worker.wrongResources" -}}
{{- $errors := list -}}
{{- $config := .Values.config -}}
{{- $limits := default dict (.Values.resources).limits -}}
{{- range $name, $request := (.Values.resources).requests -}}
{{- $limit := get $limits $name -}}
{{- if and (hasKey $limits $name) (gt (include "reservation-worker.thousandths" $request | int64) (include "reservation-worker.thousandths" $limit | int64)) -}}
{{- $errors = append $errors (printf "resources.requests.%s is %s; allowed: at most resources.limits.%s, which is %s" $name (toString $request) $name (toString $limit)) -}}
{{- end -}}
{{- end -}}
{{- $threads := include "reservation-worker.number" (dict "given" $config.workerThreads "default" 1) | int64 -}}
{{- if and $limits.cpu (gt (mul $threads 1000) (include "reservation-worker.thousandths" $limits.cpu | int64)) (gt $threads 1) -}}
{{- $errors = append $errors (printf "config.workerThreads is %d; allowed: at most resources.limits.cpu, which is %s, or the threads wait for each other's turn" $threads (toString $limits.cpu)) -}}
{{- end -}}
{{- if $limits.memory -}}
{{- $held := include "reservation-worker.number" (dict "given" $config.maxInFlightMb "default" 64) | int64 -}}
{{- /* The process takes up to a quarter more than what is held: receives and calls under way, and what its allocator keeps. */ -}}
{{- $least := add (div (add (mul $held 5) 3) 4) 48 -}}
{{- $sum := "1.25 times config.maxInFlightMb + 48" -}}
{{- $remembered := include "reservation-worker.number" (dict "given" $config.idempotencyCapacity "default" 100000) | int64 -}}
{{- if and (gt $remembered 100000) (eq "memory" (include "reservation-worker.store" .)) -}}
{{- /* 128 bytes each: 64, up to 21 in a table, and as much again while that grows. Rounded up to MiB. */ -}}
{{- $least = add $least (div (add (mul (sub $remembered 100000) 128) 1048575) 1048576) -}}
{{- $sum = printf "%s + 128 bytes for each event of config.idempotencyCapacity beyond 100000" $sum -}}
{{- end -}}
{{- if lt (include "reservation-worker.thousandths" $limits.memory | int64) (mul $least 1048576000) -}}
{{- $errors = append $errors (printf "resources.limits.memory is %s; allowed: at least %s = %dMi, or the pod is killed when it holds most" (toString $limits.memory) $sum $least) -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{/* What is known of the store: memory, shared, or nothing, where an existing ConfigMap or Secret may name it. */}}
{{- define "reservation-worker.store" -}}
{{- if or .Values.config.idempotencyStoreSecret.name (regexMatch "^(redis|valkey)" (default "" .Values.config.idempotencyStore)) -}}shared
{{- else if or .Values.config.idempotencyStore (not (include "reservation-worker.hasOtherVariables" .)) -}}memory
{{- end -}}
{{- end -}}

{{/* The pods that a roll-out adds to so many: maxSurge is a number, or a share that is rounded up. */}}
{{- define "reservation-worker.surge" -}}
{{- $strategy := default dict .root.Values.strategy -}}
{{- $given := ($strategy.rollingUpdate).maxSurge -}}
{{- /* For `default`, 0 would be nothing. */ -}}
{{- $surge := ternary "25%" (toString $given) (kindIs "invalid" $given) -}}
{{- if eq (toString $strategy.type) "Recreate" -}}0
{{- else if hasSuffix "%" $surge -}}
{{- div (add (mul .pods (trimSuffix "%" $surge | int64)) 99) 100 -}}
{{- else -}}
{{- int64 $surge -}}
{{- end -}}
{{- end -}}

{{- define "reservation-worker.wrongScaling" -}}
{{- $errors := list -}}
{{- $keda := default dict .Values.keda -}}
{{- $inFlight := include "reservation-worker.number" (dict "given" .Values.config.maxInFlight "default" 1000) | int64 -}}
{{- $pods := int64 (ternary $keda.maxReplicaCount .Values.replicaCount (default false $keda.enabled)) -}}
{{- $most := add $pods (include "reservation-worker.surge" (dict "root" . "pods" $pods)) -}}
{{- if ge (mul $most $inFlight) 120000 -}}
{{- $errors = append $errors (printf "%d pods, %d with those that a roll-out adds, times config.maxInFlight %d is %d; allowed: below 120000, SQS's limit of messages in flight" $pods $most $inFlight (mul $most $inFlight)) -}}
{{- end -}}
{{- if $keda.enabled -}}
{{- if lt (int64 $keda.maxReplicaCount) (int64 $keda.minReplicaCount) -}}
{{- $errors = append $errors (printf "keda.maxReplicaCount is %d; allowed: not below keda.minReplicaCount, which is %d" (int64 $keda.maxReplicaCount) (int64 $keda.minReplicaCount)) -}}
{{- end -}}
{{- if gt (int64 ($keda.fallback).replicas) (int64 $keda.maxReplicaCount) -}}
{{- $errors = append $errors (printf "keda.fallback.replicas is %d; allowed: not above keda.maxReplicaCount, which is %d" (int64 $keda.fallback.replicas) (int64 $keda.maxReplicaCount)) -}}
{{- end -}}
{{- if and (ne $keda.authentication.kind "TriggerAuthentication") (not $keda.authentication.existing) -}}
{{- $errors = append $errors (printf "keda.authentication.kind is %s; allowed only with keda.authentication.existing: the chart makes none of that kind" $keda.authentication.kind) -}}
{{- end -}}
{{- end -}}
{{- $update := default dict (.Values.strategy).rollingUpdate -}}
{{- if and (has (toString $update.maxSurge) (list "0" "0%")) (has (toString $update.maxUnavailable) (list "0" "0%")) -}}
{{- $errors = append $errors "strategy.rollingUpdate.maxSurge and maxUnavailable are both 0; allowed: at least one above, or no roll-out begins" -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{/* How pods, and KEDA, become an AWS role. */}}
{{- define "reservation-worker.wrongIdentity" -}}
{{- $errors := list -}}
{{- $identity := include "reservation-worker.identity" . -}}
{{- $isForeign := not (.Values.serviceAccount).create -}}
{{- if and (.Values.keda).enabled (eq .Values.keda.authentication.identityOwner "workload") (ne $identity "irsa") -}}
{{- $errors = append $errors (printf "keda.authentication.identityOwner is workload, which works with aws.identity irsa only, not with %s; allowed: keda, or keda.authentication.roleArn" $identity) -}}
{{- end -}}
{{- if and (eq $identity "irsa") (not $isForeign) (not .Values.aws.roleArn) -}}
{{- $errors = append $errors "aws.identity is irsa: aws.roleArn is required, e.g. arn:aws:iam::123456789012:role/reservation-worker" -}}
{{- end -}}
{{- if and (eq $identity "irsa") $isForeign .Values.aws.roleArn -}}
{{- $errors = append $errors "aws.roleArn has no effect where serviceAccount.create is false; leave it out, and annotate the account itself with eks.amazonaws.com/role-arn" -}}
{{- end -}}
{{- if and (ne $identity "irsa") (.Values.aws).roleArn -}}
{{- $errors = append $errors (printf "aws.roleArn has no effect with aws.identity %s; set aws.identity to irsa, or leave aws.roleArn out" $identity) -}}
{{- end -}}
{{- if and (.Values.aws).roleArn (hasKey (default dict (.Values.serviceAccount).annotations) "eks.amazonaws.com/role-arn") -}}
{{- $errors = append $errors "serviceAccount.annotations sets eks.amazonaws.com/role-arn, and so does aws.roleArn; keep one" -}}
{{- end -}}
{{- if and .Values.config.awsEndpointUrl (has $identity (list "irsa" "podIdentity")) -}}
{{- $errors = append $errors (printf "config.awsEndpointUrl is %s, where the calls to STS would go too, which aws.identity %s needs; set config.awsEndpointUrlSqs instead" .Values.config.awsEndpointUrl $identity) -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "reservation-worker.wrongPeers" -}}
{{- $errors := list -}}
{{- if (.Values.networkPolicy).enabled -}}
{{- range $name, $peer := include "reservation-worker.peers" . | fromJson -}}
{{- $host := include "reservation-worker.host" $peer.address -}}
{{- if not (or $peer.said.to (include "reservation-worker.peerOf" $host)) -}}
{{- $why := ternary (printf "a policy cannot name the host %q" $host) "its address is not in the values" (ne $host "") -}}
{{- $other := ternary (printf "; or, for a Service of that namespace, the address %s.svc" $host) "" (ne "" (include "reservation-worker.isPublicName" $host)) -}}
{{- $errors = append $errors (printf "networkPolicy.%s.to is required, as %s; e.g. [{ipBlock: {cidr: 10.0.0.0/16}}]%s" $name $why $other) -}}
{{- end -}}
{{- end -}}
{{- $key := ternary "awsEndpointUrlSqs" "awsEndpointUrl" (not (empty .Values.config.awsEndpointUrlSqs)) -}}
{{- with get .Values.config $key -}}
{{- $port := include "reservation-worker.port" . -}}
{{- if and (ne $port "443") (not $.Values.networkPolicy.extraEgress) -}}
{{- $errors = append $errors (printf "SQS is called on port %s, by config.%s; the policy allows 443: name the way in networkPolicy.extraEgress" $port $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{/* Of a duration of Prometheus: 500ms, 15s, 1m. */}}
{{- define "reservation-worker.milliseconds" -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- mul (trimSuffix $unit . | int64) (get (dict "ms" 1 "s" 1000 "m" 60000) $unit) -}}
{{- end -}}

{{- define "reservation-worker.wrongMonitors" -}}
{{- $errors := list -}}
{{- range $name := list "podMonitor" "serviceMonitor" -}}
{{- with get $.Values $name -}}
{{- $interval := include "reservation-worker.milliseconds" .interval | int64 -}}
{{- if gt (include "reservation-worker.milliseconds" .scrapeTimeout | int64) $interval -}}
{{- $errors = append $errors (printf "%s.scrapeTimeout is %s; allowed: at most %s.interval, which is %s" $name .scrapeTimeout $name .interval) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if (.Values.serviceMonitor).enabled -}}
{{- if (.Values.podMonitor).enabled -}}
{{- $errors = append $errors "serviceMonitor.enabled and podMonitor.enabled are both true: each pod would be scraped twice; keep one" -}}
{{- end -}}
{{- if not (.Values.service).enabled -}}
{{- $errors = append $errors "serviceMonitor.enabled is true, and service.enabled false; allowed: both, as it scrapes over the Service" -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "reservation-worker.wrongNames" -}}
{{- $errors := list -}}
{{- if eq (toString .Values.enabled) "false" -}}
{{- $errors = append $errors "enabled is false, which has an effect only as the condition of a dependency; allowed: true, or condition: reservation-worker.enabled in the Chart.yaml of the chart that contains this one" -}}
{{- end -}}
{{- $name := include "reservation-worker.fullname" . -}}
{{- if and (.Values.service).enabled (not (regexMatch "^[a-z]" $name)) -}}
{{- $errors = append $errors (printf "the Service would be named %s, and such a name begins with a letter; set fullnameOverride, or service.enabled to false" $name) -}}
{{- end -}}
{{- $values := .Values -}}
{{- $labels := dict "commonLabels" $values.commonLabels "podLabels" $values.podLabels "keda.labels" ($values.keda).labels "keda.authentication.labels" (($values.keda).authentication).labels -}}
{{- range $block := list "deployment" "serviceAccount" "service" "podMonitor" "serviceMonitor" "prometheusRule" "dashboard" "podDisruptionBudget" "networkPolicy" "test" -}}
{{- $_ := set $labels (printf "%s.labels" $block) (get $values $block | default dict).labels -}}
{{- end -}}
{{- $own := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart" -}}
{{- range $where, $given := $labels -}}
{{- range $key := keys (default dict $given) | sortAlpha -}}
{{- if has $key $own -}}
{{- $errors = append $errors (printf "%s sets %s, which is the chart's own; allowed: other labels" $where $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{/* What is in a list twice. As JSON. */}}
{{- define "reservation-worker.twice" -}}
{{- $seen := list -}}
{{- $twice := list -}}
{{- range . -}}
{{- if has . $seen -}}{{- $twice = append $twice . -}}{{- end -}}
{{- $seen = append $seen . -}}
{{- end -}}
{{- uniq $twice | toJson -}}
{{- end -}}

{{/* Lists whose items have names: Kubernetes, or a tool on the way there, refuses a name that is there twice. */}}
{{- define "reservation-worker.wrongDuplicates" -}}
{{- $errors := list -}}
{{- $own := list "K8S_POD_NAME" "K8S_NAMESPACE_NAME" "K8S_NODE_NAME" "OTEL_RESOURCE_ATTRIBUTES" "AWS_REGION" -}}
{{- range .Values.extraEnv -}}
{{- $name := .name -}}
{{- range $key := keys $.Values.config -}}
{{- if eq $name (include "reservation-worker.variable" $key) -}}
{{- $errors = append $errors (printf "extraEnv sets %s; set config.%s instead" $name $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $given := list -}}
{{- range .Values.extraEnv -}}{{- $given = append $given .name -}}{{- end -}}
{{- $lists := dict "extraEnv" (concat (without $own "AWS_REGION" "OTEL_RESOURCE_ATTRIBUTES") $given) -}}
{{- $volumes := list -}}
{{- $paths := list -}}
{{- range $folder, $secret := include "reservation-worker.serviceSecrets" . | fromJson -}}
{{- if $secret -}}
{{- $volumes = append $volumes (printf "%s-secret" $folder) -}}
{{- $paths = append $paths (printf "/etc/reservation-worker/%s" $folder) -}}
{{- end -}}
{{- end -}}
{{- range .Values.extraVolumes -}}{{- $volumes = append $volumes .name -}}{{- end -}}
{{- range .Values.extraVolumeMounts -}}{{- $paths = append $paths .mountPath -}}{{- end -}}
{{- $containers := list "worker" -}}
{{- range concat (default list .Values.initContainers) (default list .Values.extraContainers) -}}{{- $containers = append $containers .name -}}{{- end -}}
{{- $lists = merge $lists (dict "extraVolumes" $volumes "extraVolumeMounts" $paths "initContainers and extraContainers" $containers) -}}
{{- range $where, $names := $lists -}}
{{- range include "reservation-worker.twice" $names | fromJsonArray -}}
{{- $errors = append $errors (printf "%s: %s is there twice, or is the chart's own" $where .) -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}
