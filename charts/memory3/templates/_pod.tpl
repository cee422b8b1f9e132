{{/* One pod template for everything that runs here. scope: root, name (component), values (its block), and
  env        name of the define that gives its environment
  container  name of the container
  command    argument list; args: likewise
  server     true: ports and probes of a gRPC server
  probes     YAML of probes, where they are others
  packages   weight packages it needs (weights.source package)
  weights    whether it reads /weights
  tls, access, token, store, index   secrets it mounts; token is the secret's name
  preStop    seconds; grace: seconds
  extra      dict: restartPolicy, priority ("serving" or "batch"), documents (volume source), dataClaim, automount, group
*/}}
{{- define "memory3.podTemplate" -}}
{{- $values := .root.Values -}}
{{- $extra := .extra | default dict -}}
metadata:
  labels:
    {{- include "memory3.labels" . | nindent 4 }}
  {{- $secrets := include "memory3.secretData" .root | trim }}
  {{- if or $secrets .values.podAnnotations }}
  annotations:
    {{- with $secrets }}
    checksum/secrets: {{ sha256sum . }}
    {{- end }}
    {{- with .values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- end }}
spec:
  {{- with $extra.restartPolicy }}
  restartPolicy: {{ . }}
  {{- end }}
  serviceAccountName: {{ if $extra.serviceAccount }}{{ $extra.serviceAccount }}{{ else }}{{ include "memory3.serviceAccount" . }}{{ end }}
  automountServiceAccountToken: {{ $extra.automount | default false }}
  enableServiceLinks: false  # MEMORY3_..._PORT=tcp://... of a release named memory3 would be read as settings
  terminationGracePeriodSeconds: {{ int .grace }}
  {{- with $values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- $priority := .values.priorityClassName | default "" }}
  {{- if and (not $priority) $values.priorityClasses.create }}
  {{- $priority = printf "%s-%s" (include "memory3.fullname" .root) ($extra.priority | default "serving") }}
  {{- end }}
  {{- with $priority }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .values.runtimeClassName }}
  runtimeClassName: {{ . }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: {{ int64 $values.runAsUser }}
    runAsGroup: {{ int64 $values.runAsUser }}
    fsGroup: {{ int64 $values.runAsUser }}
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  {{- if and .weights (ne $values.weights.source "volume") }}
  initContainers:
    {{- include "memory3.weightsInit" . | nindent 4 }}
  {{- end }}
  containers:
    - name: {{ .container }}
      image: {{ include "memory3.image" . | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      {{- with .command }}
      command: {{ toJson . }}
      {{- end }}
      {{- with .args }}
      args: {{ toJson . }}
      {{- end }}
      env:
        {{- include "memory3.env.common" . | nindent 8 }}
        {{- include .env . | trim | nindent 8 }}
        {{- with include "memory3.env.settings" . | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- with .values.env }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- if .server }}
      ports:
        - {name: grpc, containerPort: {{ int .values.port }}, protocol: TCP}
        - {name: health, containerPort: 7310, protocol: TCP}
      # alive: the event loop turns. Ready: it can serve, and what it needs answers.
      startupProbe:
        grpc: {port: 7310, service: alive}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: {{ div (add (int .values.startupSeconds) 4) 5 }}
      livenessProbe:
        grpc: {port: 7310, service: alive}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        grpc: {port: 7310}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      {{- else }}
      {{- with .ports }}
      ports:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      {{- with .probes }}
      {{- . | nindent 6 }}
      {{- end }}
      {{- end }}
      {{- if .preStop }}
      lifecycle:
        preStop: {sleep: {seconds: {{ int .preStop }}}}
      {{- end }}
      resources:
        {{- toYaml .values.resources | nindent 8 }}
      securityContext:
        {{- include "memory3.containerSecurity" . | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: data, mountPath: /data}
        {{- if .weights }}
        - {name: weights, mountPath: /weights, readOnly: true}
        {{- end }}
        {{- range include "memory3.secretMounts" . | fromYamlArray }}
        - {name: {{ .name }}, mountPath: /etc/memory3/{{ .name }}, readOnly: true}
        {{- end }}
        {{- if $extra.documents }}
        - {name: documents, mountPath: /documents, readOnly: true}
        {{- end }}
        {{- if $extra.shm }}
        - {name: shm, mountPath: /dev/shm}
        {{- end }}
  volumes:
    - {name: tmp, emptyDir: {}}
    {{- if $extra.dataClaim }}
    - {name: data, persistentVolumeClaim: {claimName: {{ $extra.dataClaim }}}}
    {{- else if not (and .claims .values.persistence.enabled) }}
    - {name: data, emptyDir: {}}
    {{- end }}
    {{- if .weights }}
    {{- if eq $values.weights.source "volume" }}
    - name: weights
      persistentVolumeClaim:
        claimName: {{ required "weights.source is volume: name the claim in weights.volume.claim" $values.weights.volume.claim }}
        readOnly: true
    {{- else }}
    - {name: weights, emptyDir: {sizeLimit: {{ $values.weights.sizeLimit }}}}
    {{- end }}
    {{- end }}
    {{- range include "memory3.secretMounts" . | fromYamlArray }}
    - {name: {{ .name }}, secret: {secretName: {{ .secret }}, defaultMode: 288}}
    {{- end }}
    {{- if and .weights (not .store) (eq $values.weights.source "s3") }}
    {{- range include "memory3.secretMounts" (dict "root" .root "store" true) | fromYamlArray }}
    - {name: {{ .name }}, secret: {secretName: {{ .secret }}, defaultMode: 288}}  # for the init container only
    {{- end }}
    {{- end }}
    {{- with $extra.documents }}
    - name: documents
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if $extra.shm }}
    - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ $extra.shm }}}}
    {{- end }}
  {{- if and .spread (ne .spread "") }}
  topologySpreadConstraints:
    {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: {{ ternary $.spread "ScheduleAnyway" (eq $key "kubernetes.io/hostname") }}
      labelSelector:
        matchLabels:
          {{- include "memory3.selector" $ | nindent 10 }}
    {{- end }}
  {{- end }}
  {{- with .values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{- define "memory3.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* Secrets a pod mounts below /etc/memory3, as a YAML list of {name, secret}. */}}
{{- define "memory3.secretMounts" -}}
{{- $values := .root.Values -}}
{{- if and .tls $values.tls.enabled }}
- {name: tls, secret: {{ include "memory3.tlsSecret" (dict "root" .root "name" .tls) }}}
{{- end }}
{{- if and .server $values.access.existingSecret }}
- {name: access, secret: {{ $values.access.existingSecret }}}
{{- end }}
{{- if .token }}
- {name: token, secret: {{ .token }}}
{{- end }}
{{- if and .store (eq $values.store.type "s3") (or $values.store.s3.existingSecret $values.store.s3.accessKey) }}
- {name: store, secret: {{ include "memory3.storeSecret" .root }}}
{{- end }}
{{- if and .store (eq $values.store.type "s3") $values.store.s3.caSecret }}
- {name: store-ca, secret: {{ $values.store.s3.caSecret }}}
{{- end }}
{{- if and .index (eq $values.index.type "server") $values.index.server.caSecret }}
- {name: index-ca, secret: {{ $values.index.server.caSecret }}}
{{- end }}
{{- if and .index (eq $values.index.type "server") (or $values.index.server.existingSecret $values.index.server.token) }}
- {name: index, secret: {{ include "memory3.indexSecret" .root }}}
{{- end }}
{{- end -}}

{{- define "memory3.tlsSecret" -}}
{{ index .root.Values.tls.secrets .name | default (printf "%s-%s-tls" (include "memory3.fullname" .root) .name) }}
{{- end -}}

{{/* What fills /weights before the process starts. */}}
{{- define "memory3.weightsInit" -}}
{{- $values := .root.Values -}}
{{- $s3 := eq $values.weights.source "s3" -}}
- name: weights
  image: {{ include "memory3.image" (dict "root" .root "values" (ternary $values.components.memory $values.ingest $s3)) | quote }}
  imagePullPolicy: {{ $values.image.pullPolicy }}
  {{- if $s3 }}
  command: [python, -m, services.memory.copy_out, {{ $values.weights.s3.prefix | quote }}, /weights]
  env:
    - {name: PYTHONUNBUFFERED, value: "1"}
    {{- include "memory3.env.store" . | nindent 4 }}
  {{- else }}
  command: {{ concat (list "python" "-m" "pip" "install" "--disable-pip-version-check" "--no-cache-dir" "--no-deps" "--target" "/weights/packages") .packages | toJson }}
  env:
    - {name: HOME, value: /tmp}
  {{- end }}
  resources:
    requests: {cpu: 100m, memory: 256Mi}
    limits: {memory: 1Gi}
  securityContext:
    {{- include "memory3.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - {name: tmp, mountPath: /tmp}
    - {name: weights, mountPath: /weights}
    {{- if $s3 }}
    {{- range include "memory3.secretMounts" (dict "root" .root "store" true) | fromYamlArray }}
    - {name: {{ .name }}, mountPath: /etc/memory3/{{ .name }}, readOnly: true}
    {{- end }}
    {{- end }}
{{- end -}}
