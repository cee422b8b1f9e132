{{/* Environment of the processes: what the chart derives, then the user's settings, then `env`. */}}

{{/* Every process of ours. scope + "packages": weight packages it reads. */}}
{{- define "memory3.env.common" -}}
{{- $telemetry := .root.Values.telemetry -}}
{{- $endpoint := $telemetry.endpoint -}}
{{- if and (not $endpoint) (index .root.Values "opentelemetry-collector").enabled -}}
{{- $endpoint = printf "http://%s-opentelemetry-collector.%s.svc:4317" .root.Release.Name .root.Release.Namespace -}}
{{- end -}}
- {name: PYTHONUNBUFFERED, value: "1"}
- {name: HOME, value: /data}
- {name: XDG_DATA_HOME, value: /data}
- {name: TMPDIR, value: /tmp}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- if $endpoint }}
- {name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ $endpoint | quote }}}
- {name: OTEL_TRACES_SAMPLER, value: {{ $telemetry.sampler | quote }}}
- {name: OTEL_TRACES_SAMPLER_ARG, value: {{ $telemetry.ratio | quote }}}
- {name: OTEL_METRIC_EXPORT_INTERVAL, value: {{ $telemetry.metricIntervalMs | int64 | quote }}}
{{- /* The instance is the pod: by it the scalers' queries tell releases apart. Ray's workers name themselves. */}}
- {name: OTEL_RESOURCE_ATTRIBUTES, value: "service.instance.id=$(POD_NAME),k8s.pod.name=$(POD_NAME),k8s.namespace.name={{ .root.Release.Namespace }}"}
{{- end }}
{{- if and (eq .root.Values.weights.source "package") .packages }}
- {name: PYTHONPATH, value: /weights/packages}
{{- end }}
{{- end -}}

{{/* Every gRPC server. */}}
{{- define "memory3.env.server" -}}
{{- if .server -}}
{{- $prefix := printf "MEMORY3_%s" (upper .name) -}}
- {name: {{ $prefix }}_HOST, value: 0.0.0.0}
- {name: {{ $prefix }}_PORT, value: {{ int .values.port | quote }}}
- {name: {{ $prefix }}_HEALTH_PORT, value: "7310"}
- {name: {{ $prefix }}_DRAIN_SECONDS, value: {{ int .values.drainSeconds | quote }}}
{{- if .root.Values.tls.enabled }}
- {name: {{ $prefix }}_TLS_CERT, value: /etc/memory3/tls/tls.crt}
- {name: {{ $prefix }}_TLS_KEY, value: /etc/memory3/tls/tls.key}
{{- if .root.Values.tls.mutual }}
- {name: {{ $prefix }}_TLS_CLIENT_CA, value: /etc/memory3/tls/ca.crt}
{{- end }}
{{- end }}
{{- if .root.Values.access.existingSecret }}
- {name: {{ $prefix }}_ACCESS_FILE, value: /etc/memory3/access/access.jsonl}
{{- end }}
{{- end }}
{{- end -}}

{{/* Every caller of the tiers. scope + "prefix": of its settings; "tokenSecret". */}}
{{- define "memory3.env.caller" -}}
{{- if .root.Values.tls.enabled }}
- {name: {{ .prefix }}_TLS_CA, value: /etc/memory3/tls/ca.crt}
{{- if .root.Values.tls.mutual }}
- {name: {{ .prefix }}_TLS_CLIENT_CERT, value: /etc/memory3/tls/tls.crt}
- {name: {{ .prefix }}_TLS_CLIENT_KEY, value: /etc/memory3/tls/tls.key}
{{- end }}
{{- end }}
{{- if .tokenSecret }}
- {name: {{ .prefix }}_TOKEN_FILE, value: /etc/memory3/token/token}
{{- if not .root.Values.tls.enabled }}
- {name: {{ .prefix }}_TOKEN_PLAIN, value: "true"}
{{- end }}
{{- end }}
{{- end -}}

{{- define "memory3.env.retrieval" -}}
{{- include "memory3.env.server" . }}
{{ include "memory3.env.index" . }}
{{- if and (ne .root.Values.weights.source "package") .root.Values.weights.embedderPath }}
- {name: MEMORY3_RETRIEVAL_EMBEDDER_FOLDER, value: /weights/{{ .root.Values.weights.embedderPath }}}
{{- end }}
{{- end -}}

{{- define "memory3.env.index" -}}
{{- $index := .root.Values.index -}}
{{- if eq $index.type "local" -}}
- {name: MEMORY3_RETRIEVAL_INDEX, value: local}
{{- else if eq $index.type "lite" -}}
- {name: MEMORY3_RETRIEVAL_MILVUS_URI, value: /data/milvus.db}
{{- else -}}
{{- $bundled := ternary (printf "http://%s-milvus.%s.svc:19530" .root.Release.Name .root.Release.Namespace) "" .root.Values.milvus.enabled -}}
- name: MEMORY3_RETRIEVAL_MILVUS_URI
  value: {{ required "index.server.uri is empty: give the address of a Milvus server (http://host:port), or milvus.enabled=true, or index.type=lite" ($index.server.uri | default $bundled) | quote }}
{{- if or $index.server.existingSecret $index.server.token }}
- {name: MEMORY3_RETRIEVAL_MILVUS_TOKEN_FILE, value: /etc/memory3/index/{{ $index.server.tokenName }}}
{{- end }}
{{- if $index.server.caSecret }}
- {name: MEMORY3_RETRIEVAL_MILVUS_CA, value: /etc/memory3/index-ca/ca.crt}
{{- end }}
{{- end }}
{{- end -}}

{{- define "memory3.env.memory" -}}
{{- include "memory3.env.server" . }}
{{ include "memory3.env.store" . }}
{{- end -}}

{{- define "memory3.env.store" -}}
{{- $store := .root.Values.store -}}
{{- if eq $store.type "folder" -}}
- {name: MEMORY3_MEMORY_STORE_URI, value: /data/memories}
{{- else -}}
{{- $endpoint := $store.s3.endpoint | default (ternary (printf "http://%s-seaweedfs-s3.%s.svc:8333" .root.Release.Name .root.Release.Namespace) "" .root.Values.seaweedfs.enabled) -}}
{{- $options := printf "region=%s&create=%t" $store.s3.region $store.s3.create -}}
{{- with $endpoint -}}{{- $options = printf "endpoint=%s&path_style=%t&%s" . $store.s3.pathStyle $options -}}{{- end -}}
- {name: MEMORY3_MEMORY_STORE_URI, value: {{ printf "s3://%s?%s" $store.s3.bucket $options | quote }}}
{{- if or $store.s3.existingSecret $store.s3.accessKey }}
- {name: MEMORY3_MEMORY_S3_ACCESS_KEY_FILE, value: /etc/memory3/store/{{ $store.s3.accessKeyName }}}
- {name: MEMORY3_MEMORY_S3_SECRET_KEY_FILE, value: /etc/memory3/store/{{ $store.s3.secretKeyName }}}
{{- end }}
{{- if $store.s3.caSecret }}
- {name: MEMORY3_MEMORY_S3_CA, value: /etc/memory3/store-ca/ca.crt}
{{- end }}
{{- end }}
{{- end -}}

{{/* Front, head and workers alike: what a worker does is settled where it is deployed. */}}
{{- define "memory3.env.decoder" -}}
{{- $values := .root.Values.components.decoder -}}
{{- include "memory3.env.server" . }}
- {name: MEMORY3_DECODER_RETRIEVAL_ADDRESS, value: {{ include "memory3.address" (dict "root" .root "name" "retrieval") | quote }}}
- {name: MEMORY3_DECODER_MEMORY_ADDRESS, value: {{ include "memory3.address" (dict "root" .root "name" "memory") | quote }}}
- {name: MEMORY3_DECODER_CACHE_DIR, value: /data/models}
{{- if ne .root.Values.weights.source "package" }}
- {name: MEMORY3_DECODER_MODEL, value: /weights/{{ .root.Values.weights.modelPath }}}
{{- end }}
- {name: MEMORY3_DECODER_BACKEND, value: {{ $values.mode }}}
{{- if eq $values.mode "ray" }}
- {name: MEMORY3_DECODER_RAY_ADDRESS, value: auto}
- {name: MEMORY3_DECODER_RAY_DEPLOY, value: "false"}
- {name: MEMORY3_DECODER_NUM_CPUS, value: {{ $values.ray.worker.cpus | quote }}}
- {name: MEMORY3_DECODER_NUM_GPUS, value: {{ $values.ray.worker.gpus | quote }}}
- {name: MEMORY3_DECODER_REPLICAS, value: {{ int $values.ray.worker.replicas | quote }}}
- {name: MEMORY3_DECODER_REPLICA_DRAIN_SECONDS, value: {{ int $values.ray.worker.drainSeconds | quote }}}
{{- with $values.ray.autoscaling }}
{{- if .enabled }}
- {name: MEMORY3_DECODER_AUTOSCALING_MIN, value: {{ int .min | quote }}}
- {name: MEMORY3_DECODER_AUTOSCALING_MAX, value: {{ int .max | quote }}}
- {name: MEMORY3_DECODER_AUTOSCALING_TARGET, value: {{ .targetGenerations | quote }}}
{{- end }}
{{- end }}
- {name: RAY_USAGE_STATS_ENABLED, value: "0"}
{{- end }}
{{ include "memory3.env.caller" (dict "root" .root "prefix" "MEMORY3_DECODER" "tokenSecret" .root.Values.access.decoderTokenSecret) }}
{{- end -}}

{{- define "memory3.env.ingest" -}}
{{- range $tier := list "retrieval" "memory" "decoder" }}
- {name: MEMORY3_{{ upper $tier }}, value: {{ include "memory3.address" (dict "root" $.root "name" $tier) | quote }}}
{{- end }}
- {name: MEMORY3_INGEST_DATA_DIR, value: /data/ingest}
{{- if ne .root.Values.weights.source "package" }}
- {name: MEMORY3_INGEST_TOKENIZER, value: /weights/{{ .root.Values.weights.modelPath }}}
{{- end }}
{{ include "memory3.env.caller" (dict "root" .root "prefix" "MEMORY3" "tokenSecret" .root.Values.access.ingestTokenSecret) }}
{{- end -}}

{{/* The user's settings: MAX_BATCH_TEXTS -> MEMORY3_RETRIEVAL_MAX_BATCH_TEXTS. Numbers without an exponent.
scope + "service": whose they are, where that is not the name. */}}
{{- define "memory3.env.settings" -}}
{{- $prefix := printf "MEMORY3_%s" (.service | default .name | upper) -}}
{{- range $key, $value := .values.settings }}
{{- if kindIs "float64" $value }}
{{- if eq (float64 (int64 $value)) $value }}
- {name: {{ $prefix }}_{{ $key }}, value: {{ int64 $value | quote }}}
{{- else }}
- {name: {{ $prefix }}_{{ $key }}, value: {{ $value | quote }}}
{{- end }}
{{- else }}
- {name: {{ $prefix }}_{{ $key }}, value: {{ $value | quote }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "memory3.env.bootstrap.memory" -}}
{{- include "memory3.env.store" . }}
- {name: MEMORY3_MEMORY_BOOTSTRAP_SECONDS, value: {{ int .root.Values.bootstrap.waitSeconds | quote }}}
{{- end -}}

{{- define "memory3.env.bootstrap.retrieval" -}}
{{- include "memory3.env.index" . }}
- {name: MEMORY3_RETRIEVAL_BOOTSTRAP_SECONDS, value: {{ int .root.Values.bootstrap.waitSeconds | quote }}}
{{- if and (ne .root.Values.weights.source "package") .root.Values.weights.embedderPath }}
- {name: MEMORY3_RETRIEVAL_EMBEDDER_FOLDER, value: /weights/{{ .root.Values.weights.embedderPath }}}
{{- end }}
{{- end -}}
