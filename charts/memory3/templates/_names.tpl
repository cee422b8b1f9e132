{{/* Names, labels and images. Every define takes the root context, or a scope: dict "root" "name" "values". */}}

{{- define "memory3.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 36 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 36 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Name of a component's objects. 36 characters at most come from the release: KubeRay appends its own to pod names. */}}
{{- define "memory3.name" -}}
{{ include "memory3.fullname" .root }}-{{ .name }}
{{- end -}}

{{/* What selects a component's pods. KubeRay sets app.kubernetes.io/name on its pods itself, so it is not among them. */}}
{{- define "memory3.selector" -}}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: memory3-{{ .name }}
{{- end -}}

{{- define "memory3.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: memory3
{{ include "memory3.selector" . }}
{{- end -}}

{{/* repository@digest where a digest is given, else repository:tag. */}}
{{- define "memory3.image" -}}
{{- $image := .values.image -}}
{{- $repository := $image.repository -}}
{{- with .root.Values.image.registry -}}{{- $repository = printf "%s/%s" (trimSuffix "/" .) $repository -}}{{- end -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ $image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "memory3.serviceAccount" -}}
{{- if .values.serviceAccount.create -}}
{{ .values.serviceAccount.name | default (include "memory3.name" .) }}
{{- else -}}
{{ .values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end -}}

{{/* host:port of a tier, as the other tiers call it. The memory tier is called pod by pod: its clients share keys out. */}}
{{- define "memory3.address" -}}
{{- $port := (index .root.Values.components .name).port -}}
{{- $host := printf "%s.%s.svc" (include "memory3.name" .) .root.Release.Namespace -}}
{{- if and (eq .name "memory") .root.Values.components.memory.shareKeys -}}
rendezvous:{{ include "memory3.name" . }}-headless.{{ .root.Release.Namespace }}.svc:{{ $port }}
{{- else -}}
{{ $host }}:{{ $port }}
{{- end -}}
{{- end -}}

{{- define "memory3.storeSecret" -}}
{{ .Values.store.s3.existingSecret | default (printf "%s-store" (include "memory3.fullname" .)) }}
{{- end -}}

{{- define "memory3.indexSecret" -}}
{{ .Values.index.server.existingSecret | default (printf "%s-index" (include "memory3.fullname" .)) }}
{{- end -}}
