{{- define "embedmill.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "embedmill.labels" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{- define "embedmill.account" -}}
{{- $account := index .root.Values.accounts .which -}}
{{- $suffix := ternary "" (printf "-%s" .which) (eq .which "job") -}}
{{- default (printf "%s%s" (include "embedmill.fullname" .root) $suffix) $account.name -}}
{{- end -}}

{{- define "embedmill.configMap" -}}
{{- default (printf "%s-config" (include "embedmill.fullname" .)) .Values.existingConfigMap -}}
{{- end -}}

{{/* What is asked of by network policies and monitors; `part` is a kind of pod. */}}
{{- define "embedmill.podLabels" -}}
app.kubernetes.io/part-of: embedmill
embedmill/part: {{ . }}
{{- end -}}
