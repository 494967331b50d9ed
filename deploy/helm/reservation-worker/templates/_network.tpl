{{/* Turns the addresses in `config` into peers of the network policy. */}}

{{/* An address's host: of `host:port` or of a URL; nothing where there is no address. */}}
{{- define "reservation-worker.host" -}}
{{- if . -}}
{{- $url := ternary . (printf "http://%s" .) (contains "://" .) -}}
{{- (urlParse $url).hostname -}}
{{- end -}}
{{- end -}}

{{- define "reservation-worker.port" -}}
{{- $url := ternary . (printf "http://%s" .) (contains "://" .) | urlParse -}}
{{- $given := regexFind ":[0-9]+$" $url.host | trimPrefix ":" -}}
{{- $known := dict "https" "443" "redis" "6379" "rediss" "6379" "valkey" "6379" "valkeys" "6379" -}}
{{- default (default "80" (get $known $url.scheme)) $given -}}
{{- end -}}

{{/* Who a host is, as a list of peers; nothing where a policy cannot name it. */}}
{{- define "reservation-worker.peerOf" -}}
{{- if regexMatch "^[0-9]+([.][0-9]+){3}$" . -}}
- ipBlock: {cidr: {{ . }}/32}
{{- else if regexMatch "^[a-z0-9-]+$" . -}}
- podSelector: {}
{{- else if regexMatch "^[a-z0-9-]+[.][a-z0-9-]+([.]svc([.].+)?)?$" . -}}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ splitList "." . | rest | first }}}}
{{- end -}}
{{- end -}}

{{/* The peers, by name: what is said in values, and the address it is for; only those that are called. As JSON. */}}
{{- define "reservation-worker.peers" -}}
{{- $config := .Values.config -}}
{{- $policy := .Values.networkPolicy -}}
{{- $peers := dict
  "inventory" (dict "said" $policy.inventory "address" $config.inventoryGrpcAddr "fallbackPort" 50051)
  "reservationApi" (dict "said" $policy.reservationApi "address" $config.reservationApiBase "fallbackPort" 8080) -}}
{{- if include "reservation-worker.exportsTraces" . -}}
{{- $protocol := default $config.otelExporterOtlpProtocol $config.otelExporterOtlpTracesProtocol -}}
{{- $port := ternary 4318 4317 (eq (toString $protocol) "http/protobuf") -}}
{{- $given := default $config.otelExporterOtlpEndpoint $config.otelExporterOtlpTracesEndpoint -}}
{{- $address := default (printf "otel-collector:%d" $port) $given -}}
{{- $_ := set $peers "collector" (dict "said" $policy.collector "address" $address "fallbackPort" $port) -}}
{{- end -}}
{{- /* An existing Secret may name the store: then the way to it is open where it is said. */ -}}
{{- if or $config.idempotencyStoreSecret.name (and $policy.redis.to (not $config.idempotencyStore)) -}}
{{- $_ := set $peers "redis" (dict "said" $policy.redis "address" "" "fallbackPort" 6379) -}}
{{- else if regexMatch "^(redis|valkey)" (default "" $config.idempotencyStore) -}}
{{- $_ := set $peers "redis" (dict "said" $policy.redis "address" $config.idempotencyStore "fallbackPort" 6379) -}}
{{- end -}}
{{- toJson $peers -}}
{{- end -}}

{{/* One egress rule. */}}
{{- define "reservation-worker.egressRule" -}}
- to:
{{- if .said.to }}
{{ toYaml .said.to | indent 4 }}
{{- else }}
{{ include "reservation-worker.host" .address | include "reservation-worker.peerOf" | indent 4 }}
{{- end }}
  ports:
    - protocol: TCP
      port: {{ if .said.port }}{{ int64 .said.port }}{{ else if .address }}{{ include "reservation-worker.port" .address }}{{ else }}{{ .fallbackPort }}{{ end }}
{{- end -}}
