{{/* 40 characters at most, since what Kubernetes and operators add has room up to 52 or 63. A longer one ends with a hash of
     the whole, so that two of them are not one. */}}
{{- define "embedmill.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- $full = default $full .Values.fullnameOverride -}}
{{- if gt (len $full) 40 -}}
{{- printf "%s-%s" ($full | trunc 31 | trimAll "-.") ($full | sha256sum | trunc 8) -}}
{{- else -}}
{{- $full -}}
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
