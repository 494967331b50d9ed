{{/* What the schema cannot hold: rules that tie values together. Every fault is named at once, with what is allowed. */}}
{{- define "reservation-worker.validate" -}}
{{- $errors := list -}}
{{- $errors = concat $errors (include "reservation-worker.wrongAddresses" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongStore" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongFiles" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongNumbers" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongScaling" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongPeers" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongNames" . | fromJsonArray) -}}
{{- if $errors -}}
{{- fail (printf "these values cannot work:\n  - %s\n" (join "\n  - " $errors)) -}}
{{- end -}}
{{- end -}}

{{- define "reservation-worker.wrongAddresses" -}}
{{- $errors := list -}}
{{- $config := .Values.config -}}
{{- $elsewhere := or .Values.existingConfigMap .Values.existingSecret .Values.extraEnvFrom -}}
{{- range $key, $example := dict "sqsQueueUrl" "https://sqs.ap-northeast-2.amazonaws.com/123456789012/reservations" "inventoryGrpcAddr" "inventory.tickets:50051" "reservationApiBase" "http://reservation-api.tickets:8080" -}}
{{- if not (or (get $config $key) $elsewhere) -}}
{{- $errors = append $errors (printf "config.%s is required, e.g. %s (or existingConfigMap or existingSecret that holds %s)" $key $example (include "reservation-worker.variable" $key)) -}}
{{- end -}}
{{- end -}}
{{- range $key := list "sqsQueueUrl" "sqsDlqUrl" -}}
{{- with get $config $key -}}
{{- if not (regexMatch "^https?://[^/@?#\\s]+(/[^/@?#\\s]+)*/[A-Za-z0-9_-]{1,80}([.]fifo)?$" .) -}}
{{- $errors = append $errors (printf "config.%s is %q; allowed: an http or https URL that ends in the queue's name, e.g. https://sqs.ap-northeast-2.amazonaws.com/123456789012/reservations" $key .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and $config.sqsDlqUrl (eq (toString $config.sqsDlqUrl) (toString $config.sqsQueueUrl)) -}}
{{- $errors = append $errors "config.sqsDlqUrl is config.sqsQueueUrl; allowed: another queue" -}}
{{- end -}}
{{- if not (or $config.sqsQueueUrl $config.awsRegion) -}}
{{- $errors = append $errors "config.awsRegion is required where config.sqsQueueUrl is not given: KEDA and the worker must look in the same region" -}}
{{- end -}}
{{- $region := include "reservation-worker.regionInUrl" . -}}
{{- if and $region $config.awsRegion (ne $region $config.awsRegion) -}}
{{- $errors = append $errors (printf "config.awsRegion is %q, but the queue's URL says %q; leave awsRegion out, or correct one" $config.awsRegion $region) -}}
{{- end -}}
{{- with $config.inventoryGrpcAddr -}}
{{- if not (regexMatch "^(https?://[^/@?#\\s]+/?|[^/@?#\\s:]+:[0-9]{1,5}|\\[[0-9a-f:]+\\]:[0-9]{1,5})$" .) -}}
{{- $errors = append $errors (printf "config.inventoryGrpcAddr is %q; allowed: host:port, or an http or https URL without a path" .) -}}
{{- end -}}
{{- end -}}
{{- with $config.reservationApiBase -}}
{{- if not (regexMatch "^https?://[^@?#\\s]+$" .) -}}
{{- $errors = append $errors (printf "config.reservationApiBase is %q; allowed: an http or https URL without user, query or fragment" .) -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{/* The rules about the shared store. What a Secret holds, nobody knows here: the worker holds it to the same rules. */}}
{{- define "reservation-worker.wrongStore" -}}
{{- $errors := list -}}
{{- $config := .Values.config -}}
{{- $store := default "memory" $config.idempotencyStore -}}
{{- $auth := default "url" $config.idempotencyStoreAuth -}}
{{- if regexMatch "^[^@]*//[^@]*:[^@]*@" $store -}}
{{- $errors = append $errors "config.idempotencyStore holds a password, which would be readable in the Deployment; put the URL in a Secret and name it in config.idempotencyStoreSecret, or the password alone: config.idempotencyStoreAuth=file" -}}
{{- else if and (contains "@" $store) (eq $auth "url") -}}
{{- $errors = append $errors "config.idempotencyStore holds a user or password, which would be readable in the Deployment; put the URL in a Secret and name it in config.idempotencyStoreSecret" -}}
{{- else if not (regexMatch "^(memory|(redis|valkey)s?://([^@/?#:\\s]+@)?[^@#\\s]+)$" $store) -}}
{{- $errors = append $errors (printf "config.idempotencyStore is %q; allowed: memory, or a redis:// or rediss:// URL (or valkey://, valkeys://)" $store) -}}
{{- end -}}
{{- if and $config.idempotencyStore $config.idempotencyStoreSecret.name -}}
{{- $errors = append $errors "config.idempotencyStore and config.idempotencyStoreSecret.name are both set; keep one" -}}
{{- end -}}
{{- $elsewhere := or $config.idempotencyStoreSecret.name .Values.existingConfigMap .Values.existingSecret .Values.extraEnvFrom -}}
{{- if and (ne $auth "url") (eq $store "memory") (not $elsewhere) -}}
{{- $errors = append $errors (printf "config.idempotencyStoreAuth is %s, but config.idempotencyStore is memory, which nobody logs in to" $auth) -}}
{{- end -}}
{{- if and (eq $auth "aws-iam") $config.idempotencyStore (not (regexMatch "^(rediss|valkeys)://[^@]+@" $store)) -}}
{{- $errors = append $errors (printf "config.idempotencyStore is %q; allowed with config.idempotencyStoreAuth aws-iam: rediss://USER@HOST:PORT" $store) -}}
{{- end -}}
{{- range $key, $word := dict "idempotencyStorePasswordFile" "file" "idempotencyStoreAwsCache" "aws-iam" -}}
{{- if and (get $config $key) (ne $auth $word) -}}
{{- $errors = append $errors (printf "config.%s is set; allowed only where config.idempotencyStoreAuth is %s" $key $word) -}}
{{- else if and (not (get $config $key)) (eq $auth $word) (not $elsewhere) -}}
{{- $errors = append $errors (printf "config.%s is required, as config.idempotencyStoreAuth is %s" $key $word) -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{/* The rules of the worker's own configuration about files, and that a Secret is mounted where one is named. */}}
{{- define "reservation-worker.wrongFiles" -}}
{{- $errors := list -}}
{{- $config := .Values.config -}}
{{- range $prefix, $service := dict "inventory" (dict "address" "inventoryGrpcAddr" "folder" "inventory") "reservationApi" (dict "address" "reservationApiBase" "folder" "reservation-api") "idempotencyStore" (dict "address" "idempotencyStore" "folder" "idempotency-store") -}}
{{- $address := default "" (get $config $service.address) -}}
{{- $isStore := eq $prefix "idempotencyStore" -}}
{{- $hasTls := regexMatch (ternary "^(rediss|valkeys)://" "^https://" $isStore) $address -}}
{{- $isElsewhere := and $isStore (not $address) (or $config.idempotencyStoreSecret.name $.Values.existingConfigMap $.Values.existingSecret $.Values.extraEnvFrom) -}}
{{- $folder := printf "/etc/reservation-worker/%s/" $service.folder -}}
{{- range $suffix := list "CaFile" "ClientCertFile" "KeyFile" "TokenFile" "PasswordFile" -}}
{{- $key := printf "%s%s" $prefix $suffix -}}
{{- with get $config $key -}}
{{- if not (or (has $suffix (list "TokenFile" "PasswordFile")) $hasTls $isElsewhere) -}}
{{- $errors = append $errors (printf "config.%s is set, but config.%s is %q; allowed: %s URL with it" $key $service.address $address (ternary "a rediss://" "an https" $isStore)) -}}
{{- end -}}
{{- if and (hasPrefix $folder .) (not (get $.Values.serviceSecrets $prefix)) -}}
{{- $errors = append $errors (printf "config.%s is %s, where nothing is mounted; set serviceSecrets.%s to the name of a Secret" $key . $prefix) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if ne (empty (get $config (printf "%sClientCertFile" $prefix))) (empty (get $config (printf "%sKeyFile" $prefix))) -}}
{{- $errors = append $errors (printf "config.%sClientCertFile and config.%sKeyFile go together; set both or neither" $prefix $prefix) -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{/* A whole number, or the worker's default. 0 is a number, and for `default` it is none. */}}
{{- define "reservation-worker.number" -}}
{{- if kindIs "invalid" .given }}{{ .default }}{{ else }}{{ int64 .given }}{{ end -}}
{{- end -}}

{{/* MiB in a Kubernetes quantity, rounded down. */}}
{{- define "reservation-worker.mebibytes" -}}
{{- $bytes := dict "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "k" 1000 "M" 1000000 "G" 1000000000 "" 1 -}}
{{- $quantity := toString . -}}
{{- $unit := regexFind "[A-Za-z]*$" $quantity -}}
{{- divf (mulf (trimSuffix $unit $quantity | float64) (get $bytes $unit)) 1048576 | floor | int64 -}}
{{- end -}}

{{/* Of a duration of Prometheus: 500ms, 15s, 1m. */}}
{{- define "reservation-worker.milliseconds" -}}
{{- $unit := regexFind "[a-z]+$" . -}}
{{- mul (trimSuffix $unit . | int64) (get (dict "ms" 1 "s" 1000 "m" 60000) $unit) -}}
{{- end -}}

{{- define "reservation-worker.wrongNumbers" -}}
{{- $errors := list -}}
{{- $config := .Values.config -}}
{{- $wait := include "reservation-worker.number" (dict "given" $config.sqsWaitTime "default" 20) | int64 -}}
{{- $grace := int64 $config.shutdownGrace -}}
{{- if lt $grace (add $wait 3) -}}
{{- $errors = append $errors (printf "config.shutdownGrace is %d; allowed: at least config.sqsWaitTime + 3 = %d, as an open long poll is awaited" $grace (add $wait 3)) -}}
{{- end -}}
{{- $least := add $grace (include "reservation-worker.graceMargin" .) -}}
{{- if and (not (kindIs "invalid" .Values.terminationGracePeriodSeconds)) (lt (int64 .Values.terminationGracePeriodSeconds) $least) -}}
{{- $errors = append $errors (printf "terminationGracePeriodSeconds is %d; allowed: at least config.shutdownGrace + 5 = %d, or the pod is killed while it hands messages back" (int64 .Values.terminationGracePeriodSeconds) $least) -}}
{{- end -}}
{{- $concurrency := include "reservation-worker.number" (dict "given" $config.workerConcurrency "default" 20) | int64 -}}
{{- $inFlight := include "reservation-worker.number" (dict "given" $config.maxInFlight "default" 1000) | int64 -}}
{{- if lt $inFlight $concurrency -}}
{{- $errors = append $errors (printf "config.maxInFlight is %d; allowed: not below config.workerConcurrency, which is %d" $inFlight $concurrency) -}}
{{- end -}}
{{- $callsLeast := include "reservation-worker.number" (dict "given" $config.concurrencyMin "default" 1) | int64 -}}
{{- if gt $callsLeast $concurrency -}}
{{- $errors = append $errors (printf "config.concurrencyMin is %d; allowed: not above config.workerConcurrency, which is %d" $callsLeast $concurrency) -}}
{{- end -}}
{{- range $service, $default := dict "inventory" 2000 "reservation" 5000 -}}
{{- $target := get $config (printf "%sLatencyTargetMs" $service) -}}
{{- $timeout := include "reservation-worker.number" (dict "given" (get $config (printf "%sTimeoutMs" $service)) "default" $default) | int64 -}}
{{- if and (not (kindIs "invalid" $target)) (ge (int64 $target) $timeout) -}}
{{- $errors = append $errors (printf "config.%sLatencyTargetMs is %d; allowed: below config.%sTimeoutMs, which is %d" $service (int64 $target) $service $timeout) -}}
{{- end -}}
{{- end -}}
{{- $base := include "reservation-worker.number" (dict "given" $config.backoffBaseMs "default" 1000) | int64 -}}
{{- $cap := include "reservation-worker.number" (dict "given" $config.backoffMaxMs "default" 30000) | int64 -}}
{{- if lt $cap $base -}}
{{- $errors = append $errors (printf "config.backoffMaxMs is %d; allowed: not below config.backoffBaseMs, which is %d" $cap $base) -}}
{{- end -}}
{{- $bodies := include "reservation-worker.number" (dict "given" $config.maxInFlightMb "default" 64) | int64 -}}
{{- with (.Values.resources.limits).memory -}}
{{- $limit := include "reservation-worker.mebibytes" . | int64 -}}
{{- if lt $limit (add $bodies 64) -}}
{{- $errors = append $errors (printf "resources.limits.memory is %s; allowed: at least config.maxInFlightMb + 64 = %dMi, or the pod is killed when it holds most" (toString .) (add $bodies 64)) -}}
{{- end -}}
{{- end -}}
{{- $interval := include "reservation-worker.milliseconds" .Values.podMonitor.interval | int64 -}}
{{- if gt (include "reservation-worker.milliseconds" .Values.podMonitor.scrapeTimeout | int64) $interval -}}
{{- $errors = append $errors (printf "podMonitor.scrapeTimeout is %s; allowed: at most podMonitor.interval, which is %s" .Values.podMonitor.scrapeTimeout .Values.podMonitor.interval) -}}
{{- end -}}
{{- range .Values.extraEnv -}}
{{- $name := .name -}}
{{- range $key := keys $config -}}
{{- if eq $name (include "reservation-worker.variable" $key) -}}
{{- $errors = append $errors (printf "extraEnv sets %s; set config.%s instead" $name $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "reservation-worker.wrongScaling" -}}
{{- $errors := list -}}
{{- $keda := .Values.keda -}}
{{- $inFlight := include "reservation-worker.number" (dict "given" .Values.config.maxInFlight "default" 1000) | int64 -}}
{{- $most := int64 (ternary $keda.maxReplicaCount .Values.replicaCount $keda.enabled) -}}
{{- if ge (mul $most $inFlight) 120000 -}}
{{- $errors = append $errors (printf "%d pods times config.maxInFlight %d is %d; allowed: below 120000, SQS's limit of messages in flight" $most $inFlight (mul $most $inFlight)) -}}
{{- end -}}
{{- if $keda.enabled -}}
{{- if lt (int64 $keda.maxReplicaCount) (int64 $keda.minReplicaCount) -}}
{{- $errors = append $errors (printf "keda.maxReplicaCount is %d; allowed: not below keda.minReplicaCount, which is %d" (int64 $keda.maxReplicaCount) (int64 $keda.minReplicaCount)) -}}
{{- end -}}
{{- if gt (int64 $keda.fallback.replicas) (int64 $keda.maxReplicaCount) -}}
{{- $errors = append $errors (printf "keda.fallback.replicas is %d; allowed: not above keda.maxReplicaCount, which is %d" (int64 $keda.fallback.replicas) (int64 $keda.maxReplicaCount)) -}}
{{- end -}}
{{- if and (eq $keda.authentication.identityOwner "workload") (ne .Values.aws.identity "irsa") -}}
{{- $errors = append $errors (printf "keda.authentication.identityOwner is workload, which works with aws.identity irsa only, not with %s; allowed: keda, or keda.authentication.roleArn" .Values.aws.identity) -}}
{{- end -}}
{{- end -}}
{{- if and (eq .Values.aws.identity "irsa") .Values.serviceAccount.create (not .Values.aws.roleArn) -}}
{{- $errors = append $errors "aws.identity is irsa: aws.roleArn is required, e.g. arn:aws:iam::123456789012:role/reservation-worker" -}}
{{- end -}}
{{- if and (ne .Values.aws.identity "irsa") .Values.aws.roleArn -}}
{{- $errors = append $errors (printf "aws.roleArn has no effect with aws.identity %s; set aws.identity to irsa, or leave aws.roleArn out" .Values.aws.identity) -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}

{{- define "reservation-worker.wrongPeers" -}}
{{- $errors := list -}}
{{- if .Values.networkPolicy.enabled -}}
{{- range $name, $peer := include "reservation-worker.peers" . | fromJson -}}
{{- $host := include "reservation-worker.host" $peer.address -}}
{{- if not (or $peer.said.to (include "reservation-worker.peerOf" $host)) -}}
{{- $why := ternary (printf "a policy cannot name the host %q" $host) "its address is not in the values" (ne $host "") -}}
{{- $errors = append $errors (printf "networkPolicy.%s.to is required, as %s; e.g. [{ipBlock: {cidr: 10.0.0.0/16}}]" $name $why) -}}
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

{{- define "reservation-worker.wrongNames" -}}
{{- $errors := list -}}
{{- $name := include "reservation-worker.fullname" . -}}
{{- if and .Values.service.enabled (not (regexMatch "^[a-z]" $name)) -}}
{{- $errors = append $errors (printf "the Service would be named %s, and such a name begins with a letter; set fullnameOverride, or service.enabled to false" $name) -}}
{{- end -}}
{{- range $key := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" -}}
{{- if hasKey $.Values.podLabels $key -}}
{{- $errors = append $errors (printf "podLabels sets %s, which selectors go by; allowed: other labels" $key) -}}
{{- end -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}
