{{/* The pools as JSON: each with the defaults of its keys, and with its pods' settings as "pods". */}}
{{- define "shoal.pools" -}}
{{- $defaults := .Files.Get "defaults.json" | fromJson -}}
{{- $pools := dict -}}
{{- range $name, $given := .Values.pools | default (dict "default" (dict)) -}}
{{- $pool := deepCopy $defaults.pool -}}
{{- range $key, $value := $given -}}{{- $_ := set $pool $key $value -}}{{- end -}}
{{- $pods := deepCopy $.Values.kubernetes.worker -}}
{{- range $key, $value := get ($.Values.kubernetes.pools | default dict) $name | default dict -}}
{{- $_ := set $pods $key $value -}}
{{- end -}}
{{- $_ := set $pool "pods" $pods -}}
{{- $_ := set $pool "starts_triton" (and (eq $pool.engine "triton") (not $pool.triton_url)) -}}
{{- $_ := set $pools $name $pool -}}
{{- end -}}
{{- toJson $pools -}}
{{- end -}}

{{/*
The processes that each worker of a pool consists of, as a JSON array: what their names end with, and where they listen.
root: $, pool: as in shoal.pools.
*/}}
{{- define "shoal.workerProcesses" -}}
{{- $ports := include "shoal.ports" .root | fromJson -}}
{{- $processes := list (dict "suffix" "" "port" $ports.worker "metrics" $ports.metrics) -}}
{{- range $number := untilStep 2 (int (add1 .pool.worker_processes)) 1 -}}
{{- $processes = append $processes (dict "suffix" (printf "-%d" $number) "port" (add $ports.more_workers $number) "metrics" (add $ports.more_workers_metrics $number)) -}}
{{- end -}}
{{- toJson $processes -}}
{{- end -}}

{{/* The same of the pool that has most of them. Of $. */}}
{{- define "shoal.mostWorkerProcesses" -}}
{{- $most := dict "worker_processes" 1 -}}
{{- range $_, $pool := include "shoal.pools" . | fromJson -}}
{{- if gt (int $pool.worker_processes) (int $most.worker_processes) -}}{{- $most = $pool -}}{{- end -}}
{{- end -}}
{{- include "shoal.workerProcesses" (dict "root" . "pool" $most) -}}
{{- end -}}

{{/* Batcher group to its number of pods, as JSON: the shared one, and one for each model that has its own. */}}
{{- define "shoal.batchers" -}}
{{- $groups := dict "shared" .Values.kubernetes.batcher.replicas -}}
{{- range $name, $model := .Values.models | default dict -}}
{{- if and $model $model.batchers -}}{{- $_ := set $groups $name $model.batchers -}}{{- end -}}
{{- end -}}
{{- toJson $groups -}}
{{- end -}}

{{/* Pipeline to its number of pods, as JSON. */}}
{{- define "shoal.pipelines" -}}
{{- $defaults := (.Files.Get "defaults.json" | fromJson).pipeline -}}
{{- $pipelines := dict -}}
{{- range $name, $given := .Values.pipelines | default dict -}}{{- $_ := set $pipelines $name ($given.replicas | default $defaults.replicas) -}}{{- end -}}
{{- toJson $pipelines -}}
{{- end -}}

{{/* How models come into pods: image, volume or sync. */}}
{{- define "shoal.way" -}}
{{- $given := .Values.kubernetes.model_store | default dict -}}
{{- if $given.image -}}image
{{- else if kindIs "map" $given.volume -}}volume
{{- else if or (kindIs "map" $given.sync) .Values.model_store.url -}}sync
{{- end -}}
{{- end -}}

{{/* The settings of model-sync, as JSON. */}}
{{- define "shoal.sync" -}}
{{- $sync := (.Files.Get "defaults.json" | fromJson).sync -}}
{{- range $key, $value := .Values.kubernetes.model_store.sync | default dict -}}
{{- $_ := set $sync $key $value -}}
{{- end -}}
{{- toJson $sync -}}
{{- end -}}

{{/* The folder that is the model store within a container. */}}
{{- define "shoal.modelFolder" -}}
{{- if eq (include "shoal.way" .) "sync" -}}/models/store{{- else -}}/models{{- end -}}
{{- end -}}

{{/* The object store as pods find it, as JSON. */}}
{{- define "shoal.objectStore" -}}
{{- $store := deepCopy .Values.object_store -}}
{{- range $key, $value := .Values.kubernetes.object_store | default dict -}}
{{- if $value -}}{{- $_ := set $store $key $value -}}{{- end -}}
{{- end -}}
{{- $_ := unset $store "credentials_file" -}}
{{- if .Values.kubernetes.secrets.object_store -}}
{{- $_ := set $store "credentials_file" "/etc/shoal/object-store/credentials.json" -}}
{{- end -}}
{{- toJson $store -}}
{{- end -}}

{{/* The service file that containers read: the values, with the places where a pod has things. */}}
{{- define "shoal.service" -}}
{{- $ports := include "shoal.ports" . | fromJson -}}
{{- $service := omit .Values "kubernetes" "global" | deepCopy -}}
{{- $way := include "shoal.way" . -}}
{{- $_ := set $service "object_store" (set (include "shoal.objectStore" . | fromJson) "managed" false) -}}
{{- $models := omit $service.model_store "credentials_file" -}}
{{- if ne $way "sync" -}}{{- $models = omit $models "url" "endpoint" -}}{{- end -}}
{{- if and (eq $way "sync") .Values.kubernetes.secrets.model_store -}}
{{- $_ := set $models "credentials_file" "/etc/shoal/model-store/credentials.json" -}}
{{- end -}}
{{- $_ := set $service "model_store" (set $models "path" (include "shoal.modelFolder" .)) -}}
{{- $router := set (set (omit $service.router "tls") "host" "0.0.0.0") "port" $ports.router -}}
{{- if .Values.kubernetes.secrets.tls -}}
{{- $_ := set $router "tls" (dict "certificate_file" "/etc/shoal/tls/tls.crt" "key_file" "/etc/shoal/tls/tls.key") -}}
{{- end -}}
{{- $_ := set $service "router" $router -}}
{{- $_ := set $service "auth" (dict "keys_file" "/etc/shoal/keys/keys.json") -}}
{{- $pools := dict -}}
{{- range $name, $pool := include "shoal.pools" . | fromJson -}}
{{- $kept := omit $pool "pods" "starts_triton" "triton_server" -}}
{{- /* Where there is one, nothing is said of it, so that a pod that has one stays as it is. */}}
{{- if eq (int $pool.worker_processes) 1 -}}{{- $kept = omit $kept "worker_processes" -}}{{- end -}}
{{- /* Triton's image alone has the models: the worker asks it for everything. */ -}}
{{- if and (eq $way "image") $pool.starts_triton -}}{{- $_ := set $kept "triton_url" (printf "127.0.0.1:%v" $ports.triton) -}}{{- end -}}
{{- $_ := set $pools $name $kept -}}
{{- end -}}
{{- $_ := set $service "pools" $pools -}}
{{- toYaml $service -}}
{{- end -}}

{{/* Where each part listens; see shoal.service.topology.Topology. */}}
{{- define "shoal.topology" -}}
{{- $ports := include "shoal.ports" . | fromJson -}}
{{- $batchers := dict -}}
{{- range $group, $_ := include "shoal.batchers" . | fromJson -}}
{{- $host := include "shoal.host" (dict "root" $ "parts" (list "batcher" $group)) -}}
{{- $_ := set $batchers $group (list (list $host $ports.batcher)) -}}
{{- end -}}
{{- $pools := dict -}}
{{- range $name, $pool := include "shoal.pools" . | fromJson -}}
{{- $host := include "shoal.host" (dict "root" $ "parts" (list "worker" $name)) -}}
{{- $endpoints := list -}}
{{- range include "shoal.workerProcesses" (dict "root" $ "pool" $pool) | fromJsonArray -}}{{- $endpoints = append $endpoints (list $host .port) -}}{{- end -}}
{{- $_ := set $pools $name $endpoints -}}
{{- end -}}
{{- $topology := dict
  "public" (list "0.0.0.0" $ports.router)
  "balancer" (list "0.0.0.0" $ports.balancer)
  "metrics" (list "0.0.0.0" $ports.metrics)
  "batchers" $batchers
  "pools" $pools -}}
{{- /* Only where it is asked for: an older router knows no such key. */ -}}
{{- $pipelines := dict -}}
{{- range $name, $_ := include "shoal.pipelines" . | fromJson -}}
{{- $host := include "shoal.host" (dict "root" $ "parts" (list "pipeline" $name)) -}}
{{- $_ := set $pipelines $name (list (list $host $ports.pipeline)) -}}
{{- end -}}
{{- if $pipelines -}}{{- $_ := set $topology "pipelines" $pipelines -}}{{- end -}}
{{- if .Values.router.console -}}{{- $_ := set $topology "telling" (include "shoal.telling" . | fromJson) -}}{{- end -}}
{{- $topology | toPrettyJson -}}
{{- end -}}

{{/* Whom the console asks, as JSON: batchers and workers at the addresses of their metrics. */}}
{{- define "shoal.telling" -}}
{{- $ports := include "shoal.ports" . | fromJson -}}
{{- $telling := dict -}}
{{- range $group, $_ := include "shoal.batchers" . | fromJson -}}
{{- $host := include "shoal.host" (dict "root" $ "parts" (list "batcher" $group)) -}}
{{- $_ := set $telling (printf "batcher-%s" $group) (dict "role" "batcher" "group" $group "metrics" (list $host $ports.metrics)) -}}
{{- end -}}
{{- range $name, $pool := include "shoal.pools" . | fromJson -}}
{{- $host := include "shoal.host" (dict "root" $ "parts" (list "worker" $name)) -}}
{{- range include "shoal.workerProcesses" (dict "root" $ "pool" $pool) | fromJsonArray -}}
{{- $_ := set $telling (printf "worker-%s%s" $name .suffix) (dict "role" "worker" "group" $name "metrics" (list $host .metrics)) -}}
{{- end -}}
{{- end -}}
{{- toJson $telling -}}
{{- end -}}

{{/* What a worker reads at its start, so that a change of it must roll the pods. root: $, pool: its name. */}}
{{- define "shoal.workerChecksum" -}}
{{- $service := include "shoal.service" .root | fromYaml -}}
{{- $patterns := dict -}}
{{- range $name, $pool := $service.pools -}}{{- $_ := set $patterns $name $pool.models -}}{{- end -}}
{{- $models := dict -}}
{{- range $name, $model := $service.models | default dict -}}
{{- $_ := set $models $name (omit ($model | default dict) "batchers") -}}
{{- end -}}
{{- $read := list
  (omit $service.object_store "retention_hours") $service.model_store $service.observe
  (omit (get $service.pools .pool) "replicas") $patterns $models -}}
{{- $read | toJson | sha256sum -}}
{{- end -}}

{{/* The same for a pipeline. root: $, pipeline: its name. */}}
{{- define "shoal.pipelineChecksum" -}}
{{- $service := include "shoal.service" .root | fromYaml -}}
{{- list (omit (get $service.pipelines .pipeline) "replicas") $service.observe.log_level | toJson | sha256sum -}}
{{- end -}}

{{/* The same for the router: what is not followed while it runs. */}}
{{- define "shoal.routerChecksum" -}}
{{- $service := include "shoal.service" . | fromYaml -}}
{{- $read := list $service.router.max_connections $service.model_store $service.observe.log_level -}}
{{- if $service.router.console -}}{{- $read = append $read "console" -}}{{- end -}}
{{- $read | toJson | sha256sum -}}
{{- end -}}
