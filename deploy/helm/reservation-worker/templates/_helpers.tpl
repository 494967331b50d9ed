{{/* Names, labels, the image, and what the container's environment is made of. What may stand in values is left to _validate.tpl. */}}

{{- define "reservation-worker.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{/* 50 characters, so that the longest suffix ("-scaler") and what controllers append still fit 63. No dots, which a Service's name may not have. */}}
{{- define "reservation-worker.fullname" -}}
{{- $name := include "reservation-worker.name" . -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | replace "." "-" | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "reservation-worker.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "reservation-worker.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
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

{{- define "reservation-worker.labels" -}}
{{ include "reservation-worker.selectorLabels" . }}
app.kubernetes.io/version: {{ default .Chart.AppVersion .Values.image.tag | toString | trunc 63 | trimAll "-_." | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "reservation-worker.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
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

{{- define "reservation-worker.graceMargin" -}}5{{- end -}}

{{- define "reservation-worker.terminationGracePeriodSeconds" -}}
{{- $least := add .Values.config.shutdownGrace (include "reservation-worker.graceMargin" .) -}}
{{- default $least .Values.terminationGracePeriodSeconds | int64 -}}
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

{{- define "reservation-worker.env" -}}
- name: K8S_POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
- name: K8S_NAMESPACE_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.namespace}}
- name: K8S_NODE_NAME
  valueFrom: {fieldRef: {fieldPath: spec.nodeName}}
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
{{- with .Values.extraEnv }}
{{ toYaml . }}
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
{{- with .Values.serviceSecrets -}}
{{- dict "inventory" .inventory "reservation-api" .reservationApi "idempotency-store" .idempotencyStore | toJson -}}
{{- end -}}
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

{{/* What the container may do: nothing but run. Pod Security `restricted` asks for this. */}}
{{- define "reservation-worker.containerSecurityContext" -}}
allowPrivilegeEscalation: false
capabilities: {drop: [ALL]}
privileged: false
readOnlyRootFilesystem: true
runAsNonRoot: true
{{- end -}}

{{- define "reservation-worker.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end -}}
