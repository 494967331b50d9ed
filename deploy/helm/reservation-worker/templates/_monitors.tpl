{{/* What the Prometheus Operator reads of the worker. `root`; `of`: podMonitor or serviceMonitor. */}}

{{- define "reservation-worker.monitorSelector" -}}
{{- if .of.namespace }}
namespaceSelector:
  matchNames: [{{ .root.Release.Namespace }}]
{{- end }}
selector:
  matchLabels:
    {{- include "reservation-worker.selectorLabels" .root | nindent 4 }}
{{- end -}}

{{- define "reservation-worker.monitorEndpoint" -}}
- port: http
  path: /metrics
  interval: {{ .of.interval }}
  scrapeTimeout: {{ .of.scrapeTimeout }}
  {{- range $name := list "relabelings" "metricRelabelings" }}
  {{- with get $.of $name }}
  {{ $name }}:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
{{- end -}}
