{{/* The network policy's peers and ports in Cilium's words. */}}

{{/* A peer of pods as an endpoint selector: labels carry where they come from. As JSON. */}}
{{- define "reservation-worker.ciliumSelector" -}}
{{- $labels := dict -}}
{{- $expressions := list -}}
{{- $namespace := "k8s:io.kubernetes.pod.namespace" -}}
{{- $sources := dict "podSelector" "k8s:" "namespaceSelector" "k8s:io.cilium.k8s.namespace.labels." -}}
{{- range $selector, $prefix := $sources -}}
{{- $selected := get $ $selector | default dict -}}
{{- range $key, $value := $selected.matchLabels -}}
{{- $name := printf "%s%s" $prefix $key -}}
{{- if and (eq $selector "namespaceSelector") (eq $key "kubernetes.io/metadata.name") -}}
{{- $name = $namespace -}}
{{- end -}}
{{- $_ := set $labels $name $value -}}
{{- end -}}
{{- range $selected.matchExpressions -}}
{{- $expressions = append $expressions (merge (dict "key" (printf "%s%s" $prefix .key)) .) -}}
{{- end -}}
{{- end -}}
{{- /* Without a namespace, Cilium would mean the policy's own. */ -}}
{{- if and (hasKey . "namespaceSelector") (not (hasKey $labels $namespace)) -}}
{{- $expressions = append $expressions (dict "key" $namespace "operator" "Exists") -}}
{{- end -}}
{{- $selected := dict -}}
{{- if or $labels (not $expressions) -}}{{- $_ := set $selected "matchLabels" $labels -}}{{- end -}}
{{- if $expressions -}}{{- $_ := set $selected "matchExpressions" $expressions -}}{{- end -}}
{{- toJson $selected -}}
{{- end -}}

{{/*
Rules for `peers` and `ports`, `way` being `from` or `to`: one for pods, one for addresses, one for the node, which Cilium keeps apart. On
the node are EKS Pod Identity's agent and NodeLocal DNSCache. `learnsNames`: Cilium reads the answers, as toFQDNs needs.
*/}}
{{- define "reservation-worker.ciliumRules" -}}
{{- $ports := list -}}
{{- range .ports -}}
{{- $ports = append $ports (dict "port" (include "reservation-worker.text" .port) "protocol" .protocol) -}}
{{- end -}}
{{- $endpoints := list -}}
{{- $addresses := list -}}
{{- $entities := list -}}
{{- range .peers -}}
{{- if regexMatch "^(169[.]254[.](20|170)[.]|fd00:ec2::23/)" (toString (.ipBlock).cidr) -}}
{{- $entities = list "host" -}}
{{- else if .ipBlock -}}
{{- $addresses = append $addresses .ipBlock -}}
{{- else -}}
{{- $endpoints = append $endpoints (include "reservation-worker.ciliumSelector" . | fromJson) -}}
{{- end -}}
{{- end -}}
{{- $toPorts := list (dict "ports" $ports) -}}
{{- if .learnsNames -}}
{{- $toPorts = list (dict "ports" $ports "rules" (dict "dns" (list (dict "matchPattern" "*")))) -}}
{{- end -}}
{{- $rules := list -}}
{{- range $kind, $peers := dict "Endpoints" $endpoints "CIDRSet" $addresses "Entities" $entities -}}
{{- if $peers -}}
{{- $rules = append $rules (dict (printf "%s%s" $.way $kind) $peers "toPorts" $toPorts) -}}
{{- end -}}
{{- end -}}
{{- toYaml $rules -}}
{{- end -}}
