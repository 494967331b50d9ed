{{/* What the schema cannot hold: rules that tie values together. Every fault is named at once, with what is allowed. */}}
{{- define "reservation-worker.validate" -}}
{{- $errors := list -}}
{{- $errors = concat $errors (include "reservation-worker.wrongAddresses" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongStore" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongFiles" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongNumbers" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongResources" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongScaling" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongIdentity" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongPeers" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongMonitors" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongNames" . | fromJsonArray) -}}
{{- $errors = concat $errors (include "reservation-worker.wrongDuplicates" . | fromJsonArray) -}}
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
{{- if and (hasPrefix $folder .) (not (get (default dict $.Values.serviceSecrets) $prefix)) -}}
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

{{/* A whole number, or the worker's default. 0 is a number, and for `default` it is none. `get` says "" of a key that is not there. */}}
{{- define "reservation-worker.number" -}}
{{- if has (toString .given) (list "" "<nil>") }}{{ .default }}{{ else }}{{ int64 .given }}{{ end -}}
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
{{- $target := include "reservation-worker.number" (dict "given" (get $config (printf "%sLatencyTargetMs" $service)) "default" 0) | int64 -}}
{{- $timeout := include "reservation-worker.number" (dict "given" (get $config (printf "%sTimeoutMs" $service)) "default" $default) | int64 -}}
{{- if ge $target $timeout -}}
{{- $errors = append $errors (printf "config.%sLatencyTargetMs is %d; allowed: below config.%sTimeoutMs, which is %d" $service $target $service $timeout) -}}
{{- end -}}
{{- end -}}
{{- $base := include "reservation-worker.number" (dict "given" $config.backoffBaseMs "default" 1000) | int64 -}}
{{- $cap := include "reservation-worker.number" (dict "given" $config.backoffMaxMs "default" 30000) | int64 -}}
{{- if lt $cap $base -}}
{{- $errors = append $errors (printf "config.backoffMaxMs is %d; allowed: not below config.backoffBaseMs, which is %d" $cap $base) -}}
{{- end -}}
{{- toJson $errors -}}
{{- end -}}
