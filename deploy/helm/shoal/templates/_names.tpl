{{/*
An object's name: the release and what follows, where that is a DNS label of no more than 63 characters. Anything else
(model names may hold dots and underscores) is made one, and a checksum of what it stands for keeps it apart.
  root: $, parts: what follows the release, most: another limit.
*/}}
{{- define "shoal.name" -}}
{{- $most := .most | default 63 | int -}}
{{- $words := prepend .parts .root.Release.Name -}}
{{- $raw := join "-" $words -}}
{{- $safe := regexReplaceAll "[^a-z0-9-]" $raw "-" -}}
{{- if and (eq $raw $safe) (le (len $raw) $most) -}}
{{- $raw -}}
{{- else -}}
{{- $begin := regexReplaceAll "-+$" (trunc (int (sub $most 9)) $safe) "" -}}
{{- printf "%s-%s" $begin (join "/" $words | sha256sum | trunc 8) -}}
{{- end -}}
{{- end -}}

{{/* The name that a Service has within the cluster. root, parts: as in shoal.name. */}}
{{- define "shoal.host" -}}
{{- printf "%s.%s.svc" (include "shoal.name" .) .root.Release.Namespace -}}
{{- end -}}

{{/* What selects the pods of a part, and never changes. root: $, component, and pool, batcher or pipeline. */}}
{{- define "shoal.selector" -}}
app.kubernetes.io/name: shoal
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component }}
{{- with .pool }}
shoal.dev/pool: {{ . | quote }}
{{- end }}
{{- with .batcher }}
shoal.dev/batcher: {{ . | quote }}
{{- end }}
{{- with .pipeline }}
shoal.dev/pipeline: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* The labels of pods: the same, and the user's. As shoal.selector, and settings: of the pods. */}}
{{- define "shoal.podLabels" -}}
{{ include "shoal.selector" . }}
{{- with .settings.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The labels of an object: the same, and what may change. */}}
{{- define "shoal.labels" -}}
{{ include "shoal.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{/* An object's metadata. root, parts, most: as in shoal.name; component, pool, batcher: as in shoal.selector. */}}
{{- define "shoal.metadata" -}}
name: {{ include "shoal.name" . }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "shoal.labels" . | nindent 2 }}
{{- end -}}

{{/* root: $, image: a key of kubernetes.images. */}}
{{- define "shoal.image" -}}
{{- $image := get .root.Values.kubernetes.images .image -}}
{{- with $image.registry }}{{ . }}/{{ end }}{{ $image.repository }}:{{ $image.tag | default .root.Chart.AppVersion }}{{ with $image.digest }}@{{ . }}{{ end }}
{{- end -}}

{{/* root: $, component: router, batcher, worker, pipeline or image-retention. */}}
{{- define "shoal.serviceAccount" -}}
{{- $settings := get .root.Values.kubernetes (replace "-" "_" .component) -}}
{{- $settings.service_account.name | default (include "shoal.name" (dict "root" .root "parts" (list .component))) -}}
{{- end -}}

{{/*
A Deployment's `replicas`. Nothing where somebody else has the say, for who writes it into a manifest owns it: the API
then refuses what the other wrote, or takes it back. As shoal.metadata, component, name: pool or batcher, replicas, settings.
*/}}
{{- define "shoal.replicas" -}}
{{- if or (include "shoal.autoscaled" .) .settings.scaled_elsewhere -}}
{{- include "shoal.checkHandOver" . -}}
{{- else -}}
replicas: {{ .replicas | int }}
{{- end -}}
{{- end -}}

{{/* Not empty where an autoscaler has the say about a Deployment's replicas. root: $, component, name: pool or batcher. */}}
{{- define "shoal.autoscaled" -}}
{{- $scaling := .root.Values.kubernetes.autoscaling -}}
{{- if eq .component "router" -}}{{- if $scaling.router -}}by KEDA{{- end -}}
{{- else if hasKey (get $scaling (get (dict "batcher" "batchers" "pipeline" "pipelines" "worker" "pools") .component) | default dict) .name -}}by KEDA{{- end -}}
{{- end -}}

{{/* Where each container listens, by name, as JSON. */}}
{{- define "shoal.ports" -}}
{{- (.Files.Get "defaults.json" | fromJson).ports | toJson -}}
{{- end -}}
