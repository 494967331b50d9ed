{{/* Names, labels, the image, and what the container's environment is made of. What may stand in values is left to _validate.tpl. */}}

{{- define "reservation-worker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 47 characters: the ScaledObject's name has "-scaler" after it, KEDA's HPA "keda-hpa-" before that, and 63 is the most. No dots, which a Service's name may not have. */}}
{{- define "reservation-worker.fullname" -}}
{{- $name := include "reservation-worker.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | replace "." "-" | trunc 47 | trimSuffix "-" -}}
{{- end -}}

{{- define "reservation-worker.serviceAccountName" -}}
{{- if (.Values.serviceAccount).create -}}
{{- default (include "reservation-worker.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" (.Values.serviceAccount).name -}}
{{- end -}}
{{- end -}}

{{/* What every pod of the release has, the test's too: the network policy's selector. */}}
{{- define "reservation-worker.releaseLabels" -}}
app.kubernetes.io/name: {{ include "reservation-worker.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* What the worker's pods alone have. */}}
{{- define "reservation-worker.selectorLabels" -}}
{{ include "reservation-worker.releaseLabels" . }}
app.kubernetes.io/component: worker
{{- end -}}

{{/* What every object has. commonLabels come last: _validate.tpl refuses the chart's own names there. */}}
{{- define "reservation-worker.labels" -}}
{{ include "reservation-worker.selectorLabels" . }}
app.kubernetes.io/version: {{ include "reservation-worker.tag" . | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/*
The metadata of an object. `root`, `name`; `of`: its block in values, with `labels` and `annotations`. Optional: `namespace`, and
`labels` and `annotations` of the chart's own. No name is there twice: an object's own wins over one for all.
*/}}
{{- define "reservation-worker.metadata" -}}
{{- $labels := default (include "reservation-worker.labels" .root | fromYaml) .labels -}}
{{- $annotations := default dict .annotations -}}
name: {{ .name }}
{{- with .namespace }}
namespace: {{ . }}
{{- end }}
labels:
  {{- mergeOverwrite (dict) (default dict .root.Values.commonLabels) $labels (default dict (.of).labels) | toYaml | nindent 2 }}
{{- with mergeOverwrite (dict) (default dict .root.Values.commonAnnotations) $annotations (default dict (.of).annotations) }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/*
The labels of the worker's pods. Neither the chart's version, nor the application's where a digest names the image: a release that
changes nothing else restarts no pod.
*/}}
{{- define "reservation-worker.podLabels" -}}
{{- $labels := include "reservation-worker.selectorLabels" . | fromYaml -}}
{{- if not .Values.image.digest -}}
{{- $_ := set $labels "app.kubernetes.io/version" (include "reservation-worker.tag" . | trunc 63 | trimAll "-_.") -}}
{{- end -}}
{{- mergeOverwrite (dict) (default dict .Values.commonLabels) $labels (default dict .Values.podLabels) | toYaml -}}
{{- end -}}

{{- define "reservation-worker.podAnnotations" -}}
{{- with mergeOverwrite (dict) (default dict .Values.commonAnnotations) (default dict .Values.podAnnotations) -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* The tag that the release's workflow publishes: v and the version. */}}
{{- define "reservation-worker.tag" -}}
{{- default (printf "v%s" .Chart.AppVersion) .Values.image.tag -}}
{{- end -}}

{{- define "reservation-worker.image" -}}
{{- $registry := default .Values.image.registry (.Values.global).imageRegistry -}}
{{- $image := list (default "" $registry | trimSuffix "/") .Values.image.repository | compact | join "/" -}}
{{- if .Values.image.digest -}}
{{ $image }}@{{ .Values.image.digest }}
{{- else -}}
{{ $image }}:{{ include "reservation-worker.tag" . }}
{{- end -}}
{{- end -}}

{{/* Those of a chart that contains this one, which may be names alone, and this one's. */}}
{{- define "reservation-worker.imagePullSecrets" -}}
{{- $secrets := list -}}
{{- range concat (default list (.Values.global).imagePullSecrets) (default list .Values.imagePullSecrets) -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- with uniq $secrets -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}

{{/* A value as the worker reads it. Numbers of a values file are floating point, and print as 1e+06. */}}
{{- define "reservation-worker.text" -}}
{{- if and (kindIs "float64" .) (eq (floor .) .) -}}{{ int64 . }}{{- else -}}{{ toString . }}{{- end -}}
{{- end -}}

{{/* The region: as given, else the one in the queue's URL, else the default. */}}
{{- define "reservation-worker.region" -}}
{{- $inUrl := include "reservation-worker.regionInUrl" . -}}
{{- default (default "ap-northeast-2" $inUrl) .Values.config.awsRegion -}}
{{- end -}}

{{/* Of https://sqs.REGION..., or of the older form: https://REGION.queue.amazonaws.com, which leaves us-east-1 out. */}}
{{- define "reservation-worker.regionInUrl" -}}
{{- $url := default "" .Values.config.sqsQueueUrl -}}
{{- $region := "[a-z]{2,4}(-[a-z]+)+-[0-9]+" -}}
{{- if hasPrefix "https://queue.amazonaws.com/" $url -}}us-east-1
{{- else -}}
{{- regexFind (printf "[.]?sqs(-fips)?[.]%s[.]|//%s[.]queue[.]amazonaws[.]" $region $region) $url | regexFind $region -}}
{{- end -}}
{{- end -}}

{{- define "reservation-worker.scaledObjectName" -}}{{ include "reservation-worker.fullname" . }}-scaler{{- end -}}

{{- define "reservation-worker.graceMargin" -}}5{{- end -}}

{{- define "reservation-worker.terminationGracePeriodSeconds" -}}
{{- $least := add .Values.config.shutdownGrace (include "reservation-worker.graceMargin" .) -}}
{{- default $least .Values.terminationGracePeriodSeconds | int64 -}}
{{- end -}}

{{/* How the pods become an AWS role. */}}
{{- define "reservation-worker.identity" -}}{{- default "none" (.Values.aws).identity -}}{{- end -}}

{{/* Whether variables come from outside the values. */}}
{{- define "reservation-worker.hasOtherVariables" -}}
{{- if or .Values.existingConfigMap .Values.existingSecret .Values.extraEnvFrom }}true{{ end -}}
{{- end -}}

{{/* Whether the Prometheus Operator's objects are wanted: as said, or where the cluster knows them. */}}
{{- define "reservation-worker.wantsMonitor" -}}
{{- if kindIs "bool" .enabled -}}
{{- if .enabled }}true{{ end -}}
{{- else if .root.Capabilities.APIVersions.Has "monitoring.coreos.com/v1" -}}true
{{- end -}}
{{- end -}}

{{- define "reservation-worker.exportsTraces" -}}
{{- $disabled := eq (toString .Values.config.otelSdkDisabled | lower) "true" -}}
{{- if not (or $disabled (eq (toString .Values.config.otelTracesExporter) "none")) -}}true{{- end -}}
{{- end -}}

{{/* The names that `config` sets: config.maxInFlightMb is MAX_IN_FLIGHT_MB. */}}
{{- define "reservation-worker.variable" -}}{{- . | snakecase | upper -}}{{- end -}}

{{/* Where the pod runs, for traces. $(...) is filled in by the kubelet, from the variables above it. */}}
{{- define "reservation-worker.resourceAttributes" -}}
{{- $pod := printf "k8s.pod.name=$(K8S_POD_NAME),k8s.namespace.name=$(K8S_NAMESPACE_NAME),k8s.node.name=$(K8S_NODE_NAME),k8s.deployment.name=%s" (include "reservation-worker.fullname" .) -}}
{{- list $pod (default "" .Values.config.otelResourceAttributes) | compact | join "," -}}
{{- end -}}

{{/* extraEnv comes before config: $(NAME) is filled in from the variables above it only. */}}
{{- define "reservation-worker.env" -}}
- name: K8S_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: K8S_NAMESPACE_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: K8S_NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
- name: OTEL_RESOURCE_ATTRIBUTES
  value: {{ include "reservation-worker.resourceAttributes" . | quote }}
- name: AWS_REGION
  value: {{ include "reservation-worker.region" . | quote }}
{{- with .Values.config.idempotencyStoreSecret }}
{{- if .name }}
- name: IDEMPOTENCY_STORE
  valueFrom: {secretKeyRef: {name: {{ quote .name }}, key: {{ quote .key }}}}
{{- end }}
{{- end }}
{{- $plain := omit .Values.config "idempotencyStoreSecret" "otelResourceAttributes" "awsRegion" }}
{{- range $key := keys $plain | sortAlpha }}
{{- $value := get $plain $key }}
{{- if not (or (kindIs "invalid" $value) (eq (toString $value) "")) }}
- name: {{ include "reservation-worker.variable" $key }}
  value: {{ include "reservation-worker.text" $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "reservation-worker.envFrom" -}}
{{- with .Values.existingConfigMap }}
- configMapRef: {name: {{ quote . }}}
{{- end }}
{{- with .Values.existingSecret }}
- secretRef: {name: {{ quote . }}}
{{- end }}
{{- with .Values.extraEnvFrom }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Where the Secrets of the services and of the store are mounted: each its folder and its name. */}}
{{- define "reservation-worker.serviceSecrets" -}}
{{- $secrets := default dict .Values.serviceSecrets -}}
{{- dict "inventory" $secrets.inventory "reservation-api" $secrets.reservationApi "idempotency-store" $secrets.idempotencyStore | toJson -}}
{{- end -}}

{{- define "reservation-worker.volumeMounts" -}}
{{- range $folder, $secret := include "reservation-worker.serviceSecrets" . | fromJson }}
{{- if $secret }}
- {name: {{ $folder }}-secret, mountPath: /etc/reservation-worker/{{ $folder }}, readOnly: true}
{{- end }}
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Readable by the pod's group, which is the worker's, and by nobody else. Never by subPath: such a mount does not follow a change. */}}
{{- define "reservation-worker.volumes" -}}
{{- range $folder, $secret := include "reservation-worker.serviceSecrets" . | fromJson }}
{{- if $secret }}
- name: {{ $folder }}-secret
  secret: {secretName: {{ quote $secret }}, defaultMode: 0440}
{{- end }}
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}
