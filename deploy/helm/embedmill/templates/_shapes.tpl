{{/* What the launcher of the DAGs fills in with a job's name, command, variables and mark. */}}
{{- define "embedmill.shapeMetadata" -}}
labels:
  app.kubernetes.io/name: embedmill
  app.kubernetes.io/managed-by: airflow
{{- if .Values.kueue.queue }}
  kueue.x-k8s.io/queue-name: {{ .Values.kueue.queue }}
{{- end }}
{{- end -}}

{{- define "embedmill.rayJob" -}}
{{- $node := dict "root" . "part" "ray" "account" "job" "token" false -}}
{{- $_ := set $node "ports" "- name: metrics\n  containerPort: 8080" -}}
{{- $_ := set $node "variables" "- name: EMBEDMILL__RAY__ADDRESS\n  value: auto" -}}
apiVersion: ray.io/v1
kind: RayJob
metadata: {{- include "embedmill.shapeMetadata" . | nindent 2 }}
spec:
  entrypoint: {{ .Values.ray.python }} -m jobs.cli.cluster_entrypoint
  submissionMode: K8sJobMode
  submitterPodTemplate:
    metadata:
      labels: {{- include "embedmill.podLabels" "ray-submitter" | nindent 8 }}
    spec:
      serviceAccountName: {{ include "embedmill.account" (dict "root" . "which" "job") }}
      automountServiceAccountToken: false
      restartPolicy: Never
      securityContext: {{- include "embedmill.podSecurity" . | nindent 8 }}
      {{- with include "embedmill.pullSecrets" . }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- with include "embedmill.placement" (dict "at" (omit .Values.ray.head "topologySpread") "part" "ray-submitter") }}
      {{- . | nindent 6 }}
      {{- end }}
      containers:
        - name: ray-job-submitter # whose log the launcher reads
          image: {{ .Values.image.name }}
          imagePullPolicy: {{ .Values.image.pullPolicy }}
          resources:
            requests: {cpu: 100m, memory: 256Mi}
            limits: {cpu: "1", memory: 1Gi}
          securityContext: {{- include "embedmill.security" . | nindent 12 }}
          env:
            - name: HOME
              value: /tmp
          volumeMounts:
            - name: scratch
              mountPath: /tmp
      volumes: {{- include "embedmill.scratch" . | nindent 8 }}
  backoffLimit: 0 # Airflow tries again, and counts
  shutdownAfterJobFinishes: true
  ttlSecondsAfterFinished: 0 # of the cluster, which costs; the resource and its log stay
  rayClusterSpec:
    rayVersion: {{ .Values.ray.version | quote }}
    headGroupSpec:
      rayStartParams:
        dashboard-host: 0.0.0.0
        {{- if .Values.ray.worker.replicas }}
        num-cpus: "0"
        {{- end }}
      template: {{- include "embedmill.node" (merge (dict "name" "ray-head" "at" .Values.ray.head) $node) | nindent 8 }}
    {{- with .Values.ray.worker }}
    {{- if .replicas }}
    workerGroupSpecs:
      - groupName: workers
        replicas: {{ .replicas }}
        minReplicas: {{ .replicas }}
        maxReplicas: {{ .replicas }}
        rayStartParams: {}
        template: {{- include "embedmill.node" (merge (dict "name" "ray-worker" "at" .) $node) | nindent 10 }}
    {{- end }}
    {{- end }}
{{- end -}}

{{- define "embedmill.sparkProcess" -}}
labels: {{- include "embedmill.podLabels" .part | nindent 2 }}
podSecurityContext: {{- include "embedmill.podSecurity" .root | nindent 2 }}
securityContext: {{- include "embedmill.security" .root | nindent 2 }}
{{- with include "embedmill.placement" . }}
{{- . | nindent 0 }}
{{- end }}
env: {{- include "embedmill.variables" .root | nindent 2 }}
envFrom: {{- include "embedmill.secretFrom" .root | nindent 2 }}
volumeMounts: {{- include "embedmill.mounts" .root | nindent 2 }}
{{- end -}}

{{- define "embedmill.sparkApplication" -}}
apiVersion: sparkoperator.k8s.io/v1beta2
kind: SparkApplication
metadata: {{- include "embedmill.shapeMetadata" . | nindent 2 }}
spec:
  type: Python
  pythonVersion: "3"
  mode: cluster
  sparkVersion: {{ .Values.spark.version | quote }}
  image: {{ default .Values.image.name .Values.image.spark }}
  imagePullPolicy: {{ .Values.image.pullPolicy }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets: {{- toYaml . | nindent 4 }}
  {{- end }}
  mainApplicationFile: {{ .Values.spark.mainFile }}
  restartPolicy:
    type: Never # Airflow tries again, and counts
  timeToLiveSeconds: {{ int64 .Values.spark.ttlSeconds }}
  {{- with .Values.spark.conf }}
  sparkConf: {{- toYaml . | nindent 4 }}
  {{- end }}
  volumes: {{- include "embedmill.volumes" . | nindent 4 }}
  driver:
    cores: {{ .Values.spark.driver.cores }}
    memory: {{ .Values.spark.driver.memory }}
    serviceAccount: {{ include "embedmill.account" (dict "root" . "which" "spark") }}
    {{- include "embedmill.sparkProcess" (dict "root" . "part" "spark-driver" "at" .Values.spark.driver) | nindent 4 }}
  executor:
    instances: {{ .Values.spark.executor.instances }}
    cores: {{ .Values.spark.executor.cores }}
    memory: {{ .Values.spark.executor.memory }}
    deleteOnTermination: true
    {{- include "embedmill.sparkProcess" (dict "root" . "part" "spark-executor" "at" .Values.spark.executor) | nindent 4 }}
{{- end -}}
