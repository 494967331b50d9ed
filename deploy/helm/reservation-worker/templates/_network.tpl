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

{{/*
Who a host is, as a list of peers; nothing where a policy cannot name it. A name of two parts is a Service and its namespace, unless the
second is a public domain's: then `.svc` says that it is a namespace.
*/}}
{{- define "reservation-worker.peerOf" -}}
{{- if regexMatch "^[0-9]+([.][0-9]+){3}$" . -}}
- ipBlock: {cidr: {{ . }}/32}
{{- else if regexMatch "^[a-z0-9-]+$" . -}}
- podSelector: {}
{{- else if include "reservation-worker.isPublicName" . -}}
{{- else if regexMatch "^[a-z0-9-]+[.][a-z0-9-]+([.]svc([.].+)?)?$" . -}}
- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ splitList "." . | rest | first }}}}
{{- end -}}
{{- end -}}

{{/* All domains of two letters are countries', and these are the common ones of more. */}}
{{- define "reservation-worker.isPublicName" -}}
{{- if regexMatch "^[a-z0-9-]+[.]([a-z]{2}|app|biz|cloud|com|dev|edu|gov|info|int|mil|net|online|org|site|tech)$" . }}true{{ end -}}
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

{{/* The port that packets to a peer have. */}}
{{- define "reservation-worker.peerPort" -}}
{{- if .said.port }}{{ int64 .said.port }}{{ else if .address }}{{ include "reservation-worker.port" .address }}{{ else }}{{ .fallbackPort }}{{ end -}}
{{- end -}}

{{/* The ways out, whatever the flavour of the policy: `what`, `peers` and `ports`, as Kubernetes spells them. As JSON. */}}
{{- define "reservation-worker.egress" -}}
{{- $policy := .Values.networkPolicy -}}
{{- $https := list (dict "protocol" "TCP" "port" 443) -}}
{{- $http := list (dict "protocol" "TCP" "port" 80) -}}
{{- $names := $policy.dns.to -}}
{{- range $policy.dns.clusterIPs -}}
{{- $names = append $names (dict "ipBlock" (dict "cidr" (printf "%s/%d" . (contains ":" . | ternary 128 32)))) -}}
{{- end -}}
{{- $rules := list (dict "what" "DNS." "peers" $names "ports" (list (dict "protocol" "UDP" "port" 53) (dict "protocol" "TCP" "port" 53))) -}}
{{- $aws := list -}}
{{- range $policy.awsCidrs -}}
{{- $aws = append $aws (dict "ipBlock" (dict "cidr" .)) -}}
{{- end -}}
{{- $rules = append $rules (dict "what" "SQS and STS." "peers" $aws "ports" $https) -}}
{{- $identity := include "reservation-worker.identity" . -}}
{{- if eq $identity "podIdentity" -}}
{{- $agent := list (dict "ipBlock" (dict "cidr" "169.254.170.23/32")) (dict "ipBlock" (dict "cidr" "fd00:ec2::23/128")) -}}
{{- $rules = append $rules (dict "what" "EKS Pod Identity's agent, on the node." "peers" $agent "ports" $http) -}}
{{- else if eq $identity "node" -}}
{{- $metadata := list (dict "ipBlock" (dict "cidr" "169.254.169.254/32")) (dict "ipBlock" (dict "cidr" "fd00:ec2::254/128")) -}}
{{- $rules = append $rules (dict "what" "The instance's metadata, which has the node's role." "peers" $metadata "ports" $http) -}}
{{- end -}}
{{- range $name, $peer := include "reservation-worker.peers" . | fromJson -}}
{{- $to := default (include "reservation-worker.host" $peer.address | include "reservation-worker.peerOf" | fromYamlArray) $peer.said.to -}}
{{- $rules = append $rules (dict "what" $name "peers" $to "ports" (list (dict "protocol" "TCP" "port" (include "reservation-worker.peerPort" $peer | int64)))) -}}
{{- end -}}
{{- toJson $rules -}}
{{- end -}}
