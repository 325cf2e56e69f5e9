{{/* What is asked of the cluster, where there is one: to say no before anything is made, never to render otherwise. */}}

{{/*
Kinds that an operator brings: without it the API refuses them when half of the release is there already. Only a real
cluster says what it has; what renders without one (helm template, helm lint) knows Kubernetes' own kinds alone, and lacks
those of the API's aggregation, which every cluster has.
*/}}
{{- define "shoal.checkOperators" -}}
{{- $cluster := .Values.kubernetes -}}
{{- $monitoring := $cluster.monitoring -}}
{{- $scaling := $cluster.autoscaling -}}
{{- $wanted := list -}}
{{- if $monitoring.enabled -}}
{{- $wanted = append $wanted (list "monitoring.coreos.com/v1" "PodMonitor" "the Prometheus operator" "kubernetes.monitoring.enabled: false") -}}
{{- if $monitoring.rules -}}
{{- $wanted = append $wanted (list "monitoring.coreos.com/v1" "PrometheusRule" "the Prometheus operator" "kubernetes.monitoring.rules: false") -}}
{{- end -}}
{{- end -}}
{{- if or $scaling.pools $scaling.batchers $scaling.router -}}
{{- $wanted = append $wanted (list "keda.sh/v1alpha1" "ScaledObject" "KEDA" "nothing in kubernetes.autoscaling.pools, .batchers, .pipelines and .router") -}}
{{- end -}}
{{- if $cluster.gateway.enabled -}}
{{- $wanted = append $wanted (list "gateway.networking.k8s.io/v1" $cluster.gateway.kind "the Gateway API" "kubernetes.gateway.enabled: false") -}}
{{- end -}}
{{- $versions := .Capabilities.APIVersions -}}
{{- if $versions.Has "apiregistration.k8s.io/v1" -}}
{{- $kinds := $versions.Has "apiregistration.k8s.io/v1/APIService" -}}
{{- range $wanted -}}
{{- $has := $versions.Has (index . 0) -}}
{{- if $kinds -}}{{- $has = $versions.Has (printf "%s/%s" (index . 0) (index . 1)) -}}{{- end -}}
{{- if not $has -}}
{{- fail (printf "this cluster has no %s (%s), which %s brings: install that first, or set %s" (index . 1) (index . 0) (index . 2) (index . 3)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Pods that ask for more than Pod Security's `restricted` allows, as JSON: each by its name, with the level that they need
(baseline or privileged) and the volumes for which. All else of a pod is the chart's, and within `restricted`.
*/}}
{{- define "shoal.podSecurity" -}}
{{- $way := include "shoal.way" . -}}
{{- $models := include "shoal.modelsVolume" . | fromYamlArray -}}
{{- $pods := dict -}}
{{- range $name, $settings := pick .Values.kubernetes "router" "batcher" "pipeline" "image_retention" "test" -}}
{{- $volumes := $settings.extra_volumes | default list -}}
{{- if and (eq $name "router") (eq $way "volume") -}}{{- $volumes = concat $volumes $models -}}{{- end -}}
{{- $absent := or (and (has $name (list "image_retention" "test")) (not $settings.enabled)) (and (eq $name "pipeline") (not $.Values.pipelines)) -}}
{{- if not $absent -}}{{- $_ := set $pods (replace "_" "-" $name) $volumes -}}{{- end -}}
{{- end -}}
{{- range $pool, $pooled := include "shoal.pools" . | fromJson -}}
{{- $_ := set $pods (printf "worker-%s" $pool) (concat ($pooled.pods.extra_volumes | default list) $models) -}}
{{- end -}}
{{- $found := dict -}}
{{- range $pod, $volumes := $pods -}}
{{- $kinds := list -}}
{{- range $volumes -}}{{- $kinds = concat $kinds (omit . "name" | keys) -}}{{- end -}}
{{- $more := without ($kinds | uniq | sortAlpha) "configMap" "csi" "downwardAPI" "emptyDir" "ephemeral" "persistentVolumeClaim" "projected" "secret" -}}
{{- if $more -}}
{{- $_ := set $found $pod (dict "level" (ternary "privileged" "baseline" (has "hostPath" $more)) "volumes" $more) -}}
{{- end -}}
{{- end -}}
{{- toJson $found -}}
{{- end -}}

{{/* What the namespace's label refuses would else be told by events of ReplicaSets alone. Asks only where it may matter. */}}
{{- define "shoal.checkNamespace" -}}
{{- $pods := include "shoal.podSecurity" . | fromJson -}}
{{- if and $pods .Values.kubernetes.namespace.look_up -}}
{{- $label := "pod-security.kubernetes.io/enforce" -}}
{{- $enforced := dig "metadata" "labels" dict (lookup "v1" "Namespace" "" .Release.Namespace) -}}
{{- $enforced = get ($enforced | default dict) $label -}}
{{- $refused := list -}}
{{- range $pod, $needs := $pods -}}
{{- if or (eq $enforced "restricted") (and (eq $enforced "baseline") (eq $needs.level "privileged")) -}}
{{- $refused = append $refused (printf "%s (%s)" $pod (join ", " $needs.volumes)) -}}
{{- end -}}
{{- end -}}
{{- if $refused -}}
{{- fail (printf "namespace %s has the label %s=%s, which refuses the volumes of %s: give models by kubernetes.model_store.volume.persistent_volume_claim or sync, leave such extra_volumes out, or have the namespace's owner lower the label" .Release.Namespace $label $enforced (join ", " $refused)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/*
Before the number of a Deployment that is there is left to somebody else: the API sets a field that its only owner gives up
to its default, one pod. An owner beside the one who deploys (who owns the selector, too) keeps it. As shoal.replicas.
*/}}
{{- define "shoal.checkHandOver" -}}
{{- $name := include "shoal.name" . -}}
{{- $live := lookup "apps/v1" "Deployment" .root.Release.Namespace $name -}}
{{- $replicas := dig "spec" "replicas" 0 $live | int -}}
{{- $held := list -}}
{{- range dig "metadata" "managedFields" list $live -}}
{{- $fields := dig "fieldsV1" "f:spec" dict . -}}
{{- if hasKey $fields "f:replicas" -}}{{- $held = append $held (ternary "deployer" "other" (hasKey $fields "f:selector")) -}}{{- end -}}
{{- end -}}
{{- if and (gt $replicas 1) $held (not (has "other" $held)) -}}
{{- $object := dict "apiVersion" "apps/v1" "kind" "Deployment" "metadata" (dict "name" $name "namespace" .root.Release.Namespace) "spec" (dict "replicas" $replicas) -}}
{{- fail (printf "Deployment %s has %d pods, and only this release's manifest says so: without `replicas` in it the API would make it 1 at once. Have another owner hold the number first (docs/rollouts.md, \"Who scales\"), then upgrade:\n  echo '%s' | kubectl apply --server-side --field-manager=shoal-scaling --validate=false -f -" $name $replicas (toJson $object)) -}}
{{- end -}}
{{- end -}}
