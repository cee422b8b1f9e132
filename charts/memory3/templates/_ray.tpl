{{/* What only Ray's pods have. */}}

{{/* Ray wants many files; where the limit cannot be raised it starts nevertheless. */}}
{{- define "memory3.rayStart" -}}
ulimit -n 65536 || true; {{ . }}
{{- end -}}

{{- define "memory3.headAccount" -}}
{{ .Values.components.decoder.ray.head.serviceAccountName | default (printf "%s-decoder-head" (include "memory3.fullname" .)) }}
{{- end -}}

{{- define "memory3.rayPeers" -}}
- podSelector:
    matchLabels: {app.kubernetes.io/instance: {{ .root.Release.Name }}}
    matchExpressions:
      - {key: app.kubernetes.io/component, operator: In, values: [memory3-decoder, memory3-decoder-head, memory3-decoder-worker]}
{{- end -}}

{{- define "memory3.headPorts" -}}
- {name: gcs, containerPort: 6379, protocol: TCP}
- {name: dashboard, containerPort: 8265, protocol: TCP}
- {name: client, containerPort: 10001, protocol: TCP}
- {name: serve, containerPort: 8000, protocol: TCP}
- {name: metrics, containerPort: 8080, protocol: TCP}
- {name: health, containerPort: 52365, protocol: TCP}
{{- end -}}

{{- define "memory3.workerPorts" -}}
- {name: serve, containerPort: 8000, protocol: TCP}
- {name: metrics, containerPort: 8080, protocol: TCP}
- {name: health, containerPort: 52365, protocol: TCP}
{{- end -}}

{{/* The node's agent says whether its raylet lives. KubeRay's own probes need wget, which the image has not. */}}
{{- define "memory3.nodeProbes" -}}
startupProbe:
  httpGet: {port: health, path: /api/local_raylet_healthz}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 60
livenessProbe:
  httpGet: {port: health, path: /api/local_raylet_healthz}
  periodSeconds: 10
  timeoutSeconds: 10
  failureThreshold: 12
readinessProbe:
  httpGet: {port: health, path: /api/local_raylet_healthz}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{/* The application KubeRay deploys. Its code reads the same MEMORY3_DECODER_ settings as everything else; what stands
here makes a change of them visible to KubeRay, which compares this text. */}}
{{- define "memory3.serveConfig" -}}
{{- $ray := .values.ray -}}
proxy_location: EveryNode
http_options: {host: 0.0.0.0, port: 8000}
logging_config: {enable_access_log: false}
applications:
  - name: memory3-decoder
    route_prefix: null  # no HTTP; callers come through the fronts
    import_path: services.decoder.app:build
    deployments:
      - name: worker
        ray_actor_options: {num_cpus: {{ $ray.worker.cpus }}, num_gpus: {{ $ray.worker.gpus }}}
        graceful_shutdown_timeout_s: {{ int $ray.worker.drainSeconds }}
        {{- if $ray.autoscaling.enabled }}
        autoscaling_config:
          min_replicas: {{ int $ray.autoscaling.min }}
          max_replicas: {{ int $ray.autoscaling.max }}
          target_ongoing_requests: {{ $ray.autoscaling.targetGenerations }}
        {{- else }}
        num_replicas: {{ int $ray.worker.replicas }}
        {{- end }}
{{- end -}}
