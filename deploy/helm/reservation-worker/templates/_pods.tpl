{{/* What the worker's pod and the pod of `helm test` share. */}}

{{/* The image as the worker's, and what the container may do: nothing but run. Pod Security `restricted` asks for that. */}}
{{- define "reservation-worker.container" -}}
image: {{ include "reservation-worker.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- with .Values.containerSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
env:
  {{- include "reservation-worker.env" . | nindent 2 }}
{{- with include "reservation-worker.envFrom" . | trim }}
envFrom:
  {{- . | nindent 2 }}
{{- end }}
{{- with .Values.resources }}
resources:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "reservation-worker.volumeMounts" . | trim }}
volumeMounts:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Who the pod is, where it may run, and how it finds names. */}}
{{- define "reservation-worker.pod" -}}
serviceAccountName: {{ include "reservation-worker.serviceAccountName" . }}
# The worker never calls the Kubernetes API. Tokens for IRSA and Pod Identity are mounted on their own.
automountServiceAccountToken: false
# Kubernetes would name every Service of the namespace in the environment; one called `server` makes a SERVER_PORT.
enableServiceLinks: false
{{- with include "reservation-worker.imagePullSecrets" . }}
imagePullSecrets:
  {{- . | nindent 2 }}
{{- end }}
{{- with .Values.podSecurityContext }}
securityContext:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- range $name := list "priorityClassName" "dnsPolicy" }}
{{- with get $.Values $name }}
{{ $name }}: {{ . }}
{{- end }}
{{- end }}
{{- range $name := list "dnsConfig" "hostAliases" "nodeSelector" "tolerations" }}
{{- with get $.Values $name }}
{{ $name }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- with include "reservation-worker.volumes" . | trim }}
volumes:
  {{- . | nindent 2 }}
{{- end }}
{{- end -}}
