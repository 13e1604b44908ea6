{{/* What pods of all kinds have. dags/embedmill_airflow/launchers/shapes.py has the same in Python; a test compares. */}}
{{- define "embedmill.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "embedmill.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The root is read-only: what is cached at home goes to the scratch volume. */}}
{{- define "embedmill.variables" -}}
- name: HOME
  value: /tmp
- name: EMBEDMILL_PROGRESS
  value: lines
- name: EMBEDMILL_CONFIG
  value: /etc/embedmill/embedmill.toml
{{- with .Values.objectStore }}
{{- if .uri }}
- name: EMBEDMILL__STATE__URI
  value: {{ .uri | quote }}
{{- end }}
{{- if .endpoint }}
- name: EMBEDMILL__STATE__STORAGE__ENDPOINT
  value: {{ .endpoint | quote }}
{{- end }}
{{- if .region }}
- name: EMBEDMILL__STATE__STORAGE__REGION
  value: {{ .region | quote }}
{{- end }}
{{- if .allowHttp }}
- name: EMBEDMILL__STATE__STORAGE__ALLOW_HTTP
  value: "true"
{{- end }}
{{- end }}
{{- range $name, $value := .Values.env }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "embedmill.secretFrom" -}}
{{- if .Values.secret -}}
- secretRef:
    name: {{ .Values.secret }}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{- define "embedmill.scratch" -}}
- name: scratch
  emptyDir:
{{- if .Values.scratch.sizeLimit }}
    sizeLimit: {{ .Values.scratch.sizeLimit }}
{{- else }} {}
{{- end }}
{{- end -}}

{{- define "embedmill.volumes" -}}
{{ include "embedmill.scratch" . }}
- name: embedmill-config
  configMap:
    name: {{ include "embedmill.configMap" . }}
{{- if .Values.state.claim }}
- name: embedmill-state
  persistentVolumeClaim:
    claimName: {{ .Values.state.claim }}
{{- end }}
{{- end -}}

{{- define "embedmill.mounts" -}}
- name: scratch
  mountPath: /tmp
- name: embedmill-config
  mountPath: /etc/embedmill
  readOnly: true
{{- if .Values.state.claim }}
- name: embedmill-state
  mountPath: {{ .Values.state.path }}
{{- end }}
{{- end -}}

{{/* Where a pod may run: takes `at` (a group of the values) and `part`. */}}
{{- define "embedmill.placement" -}}
{{- with .at.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .at.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if .at.topologySpread }}
topologySpreadConstraints:
{{- $part := .part }}
{{- range .at.topologySpread }}
  - {{- toYaml . | nindent 4 }}
    labelSelector:
      matchLabels:
        embedmill/part: {{ $part }}
{{- end }}
{{- end }}
{{- with .at.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "embedmill.pullSecrets" -}}
{{- if .Values.image.pullSecrets -}}
imagePullSecrets:
{{- range .Values.image.pullSecrets }}
  - name: {{ . }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* requests and limits of a group: what is asked for is what is had. */}}
{{- define "embedmill.size" -}}
{{- range list "requests" "limits" }}
{{ . }}:
  cpu: {{ $.cpu | quote }}
  memory: {{ $.memory }}
{{- if $.gpus }}
  nvidia.com/gpu: {{ $.gpus }}
{{- end }}
{{- end }}
{{- end -}}

{{/* A node of Ray, with KubeRay's own probes, of which earlier versions use a `wget` that the image has not: takes root, name, at, part, account, token, ports (YAML) and more variables (YAML). */}}
{{- define "embedmill.node" -}}
metadata:
  labels: {{- include "embedmill.podLabels" .part | nindent 4 }}
spec:
  serviceAccountName: {{ include "embedmill.account" (dict "root" .root "which" .account) }}
  automountServiceAccountToken: {{ .token }}
  securityContext: {{- include "embedmill.podSecurity" .root | nindent 4 }}
  {{- with include "embedmill.pullSecrets" .root }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- with include "embedmill.placement" . }}
  {{- . | nindent 2 }}
  {{- end }}
  {{- if .drain }}
  terminationGracePeriodSeconds: {{ .drain }}
  {{- end }}
  containers:
    - name: {{ .name }}
      image: {{ .root.Values.image.name }}
      imagePullPolicy: {{ .root.Values.image.pullPolicy }}
      resources: {{- include "embedmill.size" .at | nindent 8 }}
      securityContext: {{- include "embedmill.security" .root | nindent 8 }}
      ports: {{- .ports | nindent 8 }}
      env: {{- include "embedmill.variables" .root | nindent 8 }}
      {{- with .variables }}
      {{- . | nindent 8 }}
      {{- end }}
      envFrom: {{- include "embedmill.secretFrom" .root | nindent 8 }}
      volumeMounts: {{- include "embedmill.mounts" .root | nindent 8 }}
      livenessProbe:
        httpGet: {path: /api/healthz, port: 52365}
        initialDelaySeconds: 30
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 120
      readinessProbe:
        {{- if eq .part "serve" }}
        httpGet: {path: /-/healthz, port: 8000} # Serve's proxy on this node, which drains before it goes
        {{- else }}
        httpGet: {path: /api/healthz, port: 52365}
        {{- end }}
        initialDelaySeconds: 10
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: {{ ternary 1 10 (eq .part "serve") }}
  volumes: {{- include "embedmill.volumes" .root | nindent 4 }}
{{- end -}}
