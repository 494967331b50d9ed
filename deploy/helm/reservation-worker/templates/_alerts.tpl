{{/* From files/alerts.yaml to the release's rules: what `alerts` sets is put in as text, before the file is read, and per rule after. */}}

{{/* The matchers of the release's own series. The job is the operator's name for the chart's own monitor; another scraper may call it anything. */}}
{{- define "reservation-worker.seriesSelector" -}}
{{- $isMonitored := or (.Values.serviceMonitor).enabled (include "reservation-worker.wantsMonitor" (dict "enabled" (.Values.podMonitor).enabled "root" .)) -}}
{{- $job := ternary (printf "(.+/)?%s" (include "reservation-worker.fullname" .)) ".+" (not (not $isMonitored)) -}}
{{- default (printf "namespace=%q, job=~%q" .Release.Namespace $job) (.Values.alerts).selector -}}
{{- end -}}

{{/* The dead-letter queue's name in CloudWatch, where it is known. */}}
{{- define "reservation-worker.deadLetterQueue" -}}
{{- $url := default "" .Values.config.sqsDlqUrl -}}
{{- default (regexFind "[^/]+$" $url) ((.Values.alerts).deadLetterQueue).name -}}
{{- end -}}

{{- define "reservation-worker.alertsText" -}}
{{- $alerts := default dict .Values.alerts -}}
{{- $objective := default dict $alerts.objective -}}
{{- $text := .Files.Get "files/alerts.yaml" -}}
{{- if not $alerts.selector -}}
{{- /* For a Prometheus whose series have no namespace: the operator's always have. */ -}}
{{- $text = regexReplaceAll `\n *unless on \(\) worker_ready\{job=~"\.\+", namespace=""\} == 1` $text "" -}}
{{- end -}}
{{- $text = $text | replace `job=~".+"` (include "reservation-worker.seriesSelector" .) -}}
{{- $text = $text | replace `scaledObject="reservation-worker-scaler"` (printf "scaledObject=%q" (printf "%s-scaler" (include "reservation-worker.fullname" .))) -}}
{{- with $objective.share -}}
{{- $text = $text | replace "(1 - 0.95)" (printf "(1 - %s)" (include "reservation-worker.text" .)) -}}
{{- end -}}
{{- with $objective.seconds -}}
{{- $text = $text | replace `le="60"` (printf "le=%q" (include "reservation-worker.text" .)) -}}
{{- end -}}
{{- $text = $text | replace `="reservations-dlq"` (printf "=%q" (include "reservation-worker.deadLetterQueue" .)) -}}
{{- with $alerts.runbookUrl -}}
{{- $text = $text | replace "runbook: docs/" (printf "runbook_url: %s/docs/" (trimSuffix "/" .)) -}}
{{- end -}}
{{- $text -}}
{{- end -}}

{{/* Whether the release has the alert or the record: not where it is disabled, or where what it reads is not there. */}}
{{- define "reservation-worker.hasRule" -}}
{{- $alerts := default dict .root.Values.alerts -}}
{{- $name := default "" .rule.alert -}}
{{- $depth := or (include "reservation-worker.deadLetterQueue" .root) ($alerts.deadLetterQueue).depth -}}
{{- $isBlind := or (and (contains "keda_" .rule.expr) (not (.root.Values.keda).enabled)) (and (contains "aws_sqs_" .rule.expr) (not $depth)) -}}
{{- if not (or $isBlind (has $name (default list $alerts.disabled))) }}true{{ end -}}
{{- end -}}

{{/* The rule's expression: with its threshold, and of this namespace alone where KEDA shows it for all. */}}
{{- define "reservation-worker.ruleExpr" -}}
{{- $alerts := default dict .root.Values.alerts -}}
{{- $expr := .rule.expr | trim -}}
{{- with ($alerts.deadLetterQueue).depth -}}
{{- if contains "aws_sqs_" $expr -}}
{{- $expr = printf "max(%s) > 0" . -}}
{{- end -}}
{{- end -}}
{{- $threshold := default dict (get (default dict $alerts.thresholds) (default "" .rule.alert)) -}}
{{- if hasKey $threshold "above" -}}
{{- $expr = regexReplaceAll `> [0-9.]+$` $expr (printf "> %s" (include "reservation-worker.text" $threshold.above)) -}}
{{- end -}}
{{- if and (contains "keda_" $expr) (not $alerts.selector) -}}
{{- $expr = printf "(\n%s\n)\n  and on (namespace) label_replace(vector(1), \"namespace\", %q, \"\", \"\")" (indent 2 $expr) .root.Release.Namespace -}}
{{- end -}}
{{- $expr -}}
{{- end -}}

{{/* The groups that are wanted, as YAML: `external` those that read the metrics of others, or all the rest. */}}
{{- define "reservation-worker.ruleGroups" -}}
{{- $root := .root -}}
{{- $external := .external -}}
{{- $alerts := default dict .root.Values.alerts -}}
{{- $file := include "reservation-worker.alertsText" .root | fromYaml -}}
{{- if not $file.groups -}}
{{- fail (printf "files/alerts.yaml has no rule groups: %s" (default "`groups` is missing" $file.Error)) -}}
{{- end -}}
{{- $groups := list -}}
{{- range $group := $file.groups -}}
{{- if eq (hasSuffix "-external" $group.name) $external -}}
{{- $rules := list -}}
{{- range $rule := $group.rules -}}
{{- if include "reservation-worker.hasRule" (dict "root" $root "rule" $rule) -}}
{{- $_ := set $rule "expr" (include "reservation-worker.ruleExpr" (dict "root" $root "rule" $rule)) -}}
{{- if $rule.alert -}}
{{- $_ := set $rule "labels" (merge (dict) (default dict $alerts.labels) $rule.labels) -}}
{{- with (get (default dict $alerts.thresholds) $rule.alert | default dict).for -}}
{{- $_ := set $rule "for" . -}}
{{- end -}}
{{- end -}}
{{- $rules = append $rules $rule -}}
{{- end -}}
{{- end -}}
{{- if $rules -}}
{{- $groups = append $groups (dict "name" $group.name "rules" $rules) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- with $groups -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}
