{{/* What the schema can't tell: contradictions end the rendering. spec.py has the same rules for `shoal up`. */}}
{{- define "shoal.checks" -}}
{{- include "shoal.checkAddresses" . -}}
{{- include "shoal.checkStores" . -}}
{{- include "shoal.checkPools" . -}}
{{- include "shoal.checkModels" . -}}
{{- include "shoal.checkLabels" . -}}
{{- include "shoal.checkGrace" . -}}
{{- include "shoal.checkExtras" . -}}
{{- include "shoal.checkNetwork" . -}}
{{- include "shoal.checkTest" . -}}
{{- include "shoal.checkOperators" . -}}
{{- include "shoal.checkNamespace" . -}}
{{- if regexMatch "^[0-9]" .Release.Name -}}
{{- fail (printf "release %q: Services are named after it, and their names begin with a letter" .Release.Name) -}}
{{- end -}}
{{- if gt (float64 .Values.router.default_timeout_seconds) (float64 .Values.router.max_timeout_seconds) -}}
{{- fail "router: default_timeout_seconds is over max_timeout_seconds" -}}
{{- end -}}
{{- end -}}

{{/* Not by the schema, whose errors quote what they refuse. */}}
{{- define "shoal.checkAddresses" -}}
{{- $cluster := .Values.kubernetes -}}
{{- range $key, $address := dict
  "object_store.url" .Values.object_store.url
  "object_store.endpoint" .Values.object_store.endpoint
  "model_store.url" .Values.model_store.url
  "model_store.endpoint" .Values.model_store.endpoint
  "kubernetes.object_store.url" $cluster.object_store.url
  "kubernetes.object_store.endpoint" $cluster.object_store.endpoint
  "kubernetes.autoscaling.prometheus_url" $cluster.autoscaling.prometheus_url -}}
{{- if regexMatch "^[a-z0-9]+://[^/?#]*@" ($address | default "") -}}
{{- fail (printf "%s: must not hold a user or a password; they belong in a Secret" $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The settings of all pods by what they are called in the values, as JSON. */}}
{{- define "shoal.podSettings" -}}
{{- $parts := pick .Values.kubernetes "router" "batcher" "worker" "pipeline" "image_retention" "test" -}}
{{- range $name, $pods := .Values.kubernetes.pools | default dict -}}{{- $_ := set $parts (printf "pools.%s" $name) ($pods | default dict) -}}{{- end -}}
{{- toJson $parts -}}
{{- end -}}

{{- define "shoal.checkLabels" -}}
{{- $taken := (.Files.Get "defaults.json" | fromJson).own.labels -}}
{{- range $part, $pods := include "shoal.podSettings" . | fromJson -}}
{{- range $label, $_ := $pods.labels | default dict -}}
{{- if has $label $taken -}}
{{- fail (printf "kubernetes.%s.labels: %s: pods are selected by it, so the chart alone sets it" $part $label) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A name that is there twice is refused by the API, in the middle of an upgrade. */}}
{{- define "shoal.checkExtras" -}}
{{- $own := (.Files.Get "defaults.json" | fromJson).own -}}
{{- $variables := $own.variables -}}
{{- $secrets := .Values.kubernetes.secrets -}}
{{- if or $secrets.object_store_environment $secrets.model_store_environment -}}
{{- $variables = concat $variables (list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY") -}}
{{- end -}}
{{- range $part, $pods := include "shoal.podSettings" . | fromJson -}}
{{- include "shoal.checkNames" (dict "where" (printf "kubernetes.%s.extra_env" $part) "items" $pods.extra_env "taken" $variables) -}}
{{- include "shoal.checkNames" (dict "where" (printf "kubernetes.%s.extra_volumes" $part) "items" $pods.extra_volumes "taken" $own.volumes) -}}
{{- $there := list -}}
{{- range $pods.extra_volumes -}}{{- $there = append $there .name -}}{{- end -}}
{{- $paths := list -}}
{{- range $pods.extra_volume_mounts -}}
{{- $path := clean .mountPath -}}
{{- if not (has .name $there) -}}
{{- fail (printf "kubernetes.%s.extra_volume_mounts: %s: extra_volumes has no such volume" $part .name) -}}
{{- end -}}
{{- $taken := has $path $own.folders -}}
{{- range $own.trees -}}
{{- if or (eq $path .) (hasPrefix (printf "%s/" .) $path) -}}{{- $taken = true -}}{{- end -}}
{{- end -}}
{{- if $taken -}}{{- fail (printf "kubernetes.%s.extra_volume_mounts: %s is the chart's own" $part $path) -}}{{- end -}}
{{- if has $path $paths -}}{{- fail (printf "kubernetes.%s.extra_volume_mounts: %s is there twice" $part $path) -}}{{- end -}}
{{- $paths = append $paths $path -}}
{{- end -}}
{{- end -}}
{{- range $name, $pool := include "shoal.pools" . | fromJson -}}
{{- $there := list -}}
{{- range $pool.pods.extra_volumes -}}{{- $there = append $there .name -}}{{- end -}}
{{- range $pool.pods.extra_volume_mounts -}}
{{- if not (has .name $there) -}}
{{- fail (printf "kubernetes.pools.%s.extra_volumes: takes the place of the workers', whose extra_volume_mounts then lacks %s" $name .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* where, items: each with a name, taken: names that the chart has itself. */}}
{{- define "shoal.checkNames" -}}
{{- $names := list -}}
{{- range .items | default list -}}
{{- if has .name $.taken -}}{{- fail (printf "%s: %s is the chart's own" $.where .name) -}}{{- end -}}
{{- if has .name $names -}}{{- fail (printf "%s: %s is there twice" $.where .name) -}}{{- end -}}
{{- $names = append $names .name -}}
{{- end -}}
{{- end -}}

{{- define "shoal.checkNetwork" -}}
{{- $policies := .Values.kubernetes.network_policies -}}
{{- if and $policies.egress.enabled (not $policies.enabled) -}}
{{- fail "kubernetes.network_policies: egress.enabled goes with enabled: true" -}}
{{- end -}}
{{- $gateway := .Values.kubernetes.gateway -}}
{{- if and $gateway.enabled (not $gateway.parent_refs) -}}
{{- fail "kubernetes.gateway: parent_refs is missing: a route belongs to a Gateway" -}}
{{- end -}}
{{- end -}}

{{- define "shoal.checkTest" -}}
{{- $test := .Values.kubernetes.test -}}
{{- if ne (empty $test.key_secret) (empty $test.model) -}}
{{- fail "kubernetes.test: key_secret and model go together: a picture needs both, health neither" -}}
{{- end -}}
{{- end -}}

{{- define "shoal.checkStores" -}}
{{- $store := include "shoal.objectStore" . | fromJson -}}
{{- $s3 := hasPrefix "s3://" $store.url -}}
{{- if and $store.endpoint (not $s3) -}}
{{- fail (printf "object_store: endpoint goes with an s3:// url only, not with %s" $store.url) -}}
{{- end -}}
{{- if or (hasPrefix "file://" $store.url) (hasPrefix "memory://" $store.url) -}}
{{- fail (printf "object_store.url: pods can't share %s; name a bucket in kubernetes.object_store.url" $store.url) -}}
{{- end -}}
{{- if and $s3 $store.managed (not $store.endpoint) -}}
{{- fail "object_store: only `shoal up` runs a store; name one that is there: object_store.endpoint or managed: false, or, for the cluster alone, kubernetes.object_store.endpoint" -}}
{{- end -}}
{{- $models := .Values.model_store -}}
{{- if and $models.endpoint (not (hasPrefix "s3://" ($models.url | default ""))) -}}
{{- fail "model_store: endpoint goes with an s3:// url only" -}}
{{- end -}}
{{- $secrets := .Values.kubernetes.secrets -}}
{{- range $which := list "object_store" "model_store" -}}
{{- if and (get $secrets $which) (get $secrets (printf "%s_environment" $which)) -}}
{{- fail (printf "kubernetes.secrets: %s and %s_environment are two forms of the same: give one" $which $which) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "shoal.checkPools" -}}
{{- $pools := include "shoal.pools" . | fromJson -}}
{{- range $name, $_ := .Values.kubernetes.pools | default dict -}}
{{- if not (hasKey $pools $name) -}}
{{- fail (printf "kubernetes.pools.%s: pools has %s" $name (keys $pools | sortAlpha | join ", ")) -}}
{{- end -}}
{{- end -}}
{{- include "shoal.checkPipelines" . -}}
{{- include "shoal.checkScaling" . -}}
{{- $owners := dict -}}
{{- range $name, $pool := $pools -}}
{{- range $pool.models -}}
{{- if hasKey $owners . -}}
{{- fail (printf "pools.%s.models: %q is in pool %q already; a model routes to one pool" $name . (get $owners .)) -}}
{{- end -}}
{{- $_ := set $owners . $name -}}
{{- end -}}
{{- if and (ne $pool.engine "triton") (or $pool.triton_url $pool.triton_server) -}}
{{- fail (printf "pools.%s: triton_url and triton_server go with engine: triton only" $name) -}}
{{- end -}}
{{- if gt (int $pool.worker_processes) 1 -}}
{{- if ne $pool.engine "triton" -}}
{{- fail (printf "pools.%s.worker_processes: goes with engine: triton only; with openvino each process would load the models again, and all would compete for the same cores: set replicas instead" $name) -}}
{{- end -}}
{{- $largest := int64 $.Values.object_store.max_image_bytes -}}
{{- $each := div (int64 $pool.max_fetched_bytes) (int64 $pool.worker_processes) -}}
{{- if lt $each $largest -}}
{{- fail (printf "pools.%s: %d worker_processes share max_fetched_bytes, and a picture of object_store.max_image_bytes (%d) doesn't fit into the %d of each: set max_fetched_bytes to %d or more" $name (int $pool.worker_processes) $largest $each (mul $largest (int64 $pool.worker_processes))) -}}
{{- end -}}
{{- end -}}
{{- with $pool.pods.rolling_update -}}
{{- if and (regexMatch "^0%?$" (toString .maxSurge)) (regexMatch "^0%?$" (toString .maxUnavailable)) -}}
{{- fail (printf "kubernetes.worker or pools.%s: rolling_update with neither a pod more (maxSurge) nor one less (maxUnavailable) can't roll" $name) -}}
{{- end -}}
{{- end -}}
{{- if and $pool.triton_url $pool.triton_server -}}
{{- fail (printf "pools.%s: triton_url names a server that is there, triton_server one to start: not both" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $model := .Values.models | default dict -}}
{{- if and (eq $name "shared") $model $model.batchers -}}
{{- fail "models.shared.batchers: \"shared\" is the name of the common batcher; leave it out, or give the model another name" -}}
{{- end -}}
{{- if and $model $model.max_batch_size -}}
{{- range $model.preferred_batch_size -}}
{{- if gt (int .) (int $model.max_batch_size) -}}
{{- fail (printf "models.%s: preferred_batch_size %d goes over max_batch_size (%d)" $name (int .) (int $model.max_batch_size)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* What the values alone show, as service/pipelines.py; each pipeline's pod looks at its models' tasks and labels. */}}
{{- define "shoal.checkPipelines" -}}
{{- $limits := (.Files.Get "defaults.json" | fromJson).pipeline -}}
{{- range $name, $pipeline := .Values.pipelines | default dict -}}
{{- $key := printf "pipelines.%s" $name -}}
{{- if eq $name "shared" -}}
{{- fail (printf "%s: is the name of the common batcher; give the pipeline another one" $key) -}}
{{- end -}}
{{- if hasKey ($.Values.models | default dict) $name -}}
{{- fail (printf "models.%s: is a pipeline, and has no settings of a model; see pipelines" $name) -}}
{{- end -}}
{{- range $pool, $pooled := include "shoal.pools" $ | fromJson -}}
{{- if has $name $pooled.models -}}
{{- fail (printf "pipelines.%s: pools.%s.models names a model '%s'; rename one" $name $pool $name) -}}
{{- end -}}
{{- end -}}
{{- $state := dict "calls" 0 "seen" dict -}}
{{- $first := dict "root" $ "limits" $limits "state" $state "key" (printf "%s.detect" $key) "depth" 1 "step" $pipeline.detect "calls" 1 "kept" list -}}
{{- include "shoal.checkStep" $first -}}
{{- include "shoal.checkStepsBehind" (dict "before" $first "key" (printf "%s.then" $key) "steps" $pipeline.then) -}}
{{- if gt (int $state.calls) (int $limits.most_calls) -}}
{{- $calls := list -}}
{{- range list $state.calls $limits.most_calls -}}
{{- $calls = append $calls (regexReplaceAll "([0-9])([0-9]{3})(,|$)" (regexReplaceAll "([0-9])([0-9]{3})$" (int . | toString) "${1},${2}") "${1},${2}${3}") -}}
{{- end -}}
{{- fail (printf "%s: one picture may lead to %s calls, and %s is the most: lower max_boxes" $key (first $calls) (last $calls)) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* before: as shoal.checkStep, key: of the list, steps: its. */}}
{{- define "shoal.checkStepsBehind" -}}
{{- $calls := mul .before.calls (.before.step.max_boxes | default .before.limits.max_boxes | int) -}}
{{- range $number, $step := .steps -}}
{{- $one := dict "root" $.before.root "limits" $.before.limits "state" $.before.state "key" (printf "%s.%d" $.key $number) "depth" (add1 $.before.depth) "step" $step "calls" $calls "kept" ($.before.step.classes | default list) -}}
{{- include "shoal.checkStep" $one -}}
{{- include "shoal.checkStepsBehind" (dict "before" $one "key" (printf "%s.then" $one.key) "steps" ($step.then | default list)) -}}
{{- end -}}
{{- end -}}

{{/*
One step. root: $, limits: of pipelines, state: the pipeline's calls and names so far, key, depth, step, calls: of its
model for one picture, kept: the classes of the step before.
*/}}
{{- define "shoal.checkStep" -}}
{{- $step := .step -}}
{{- if gt (int .depth) (int .limits.deepest) -}}
{{- fail (printf "%s: is step %d in a row, and %d is the most" .key (int .depth) (int .limits.deepest)) -}}
{{- end -}}
{{- if hasKey .root.Values.pipelines $step.model -}}
{{- fail (printf "%s.model: '%s' is a pipeline, and a step is a model; write its steps here" .key $step.model) -}}
{{- end -}}
{{- if and (gt (int .depth) 1) (hasKey $step "top_k") (not (kindIs "invalid" $step.top_k)) -}}
{{- $detects := or $step.classes $step.then -}}
{{- range list "max_boxes" "padding" "square" -}}
{{- if hasKey $step . -}}{{- $detects = or $detects (not (kindIs "invalid" (get $step .))) -}}{{- end -}}
{{- end -}}
{{- if $detects -}}
{{- fail (printf "%s.top_k: goes with classification, and this step has settings of a detector" .key) -}}
{{- end -}}
{{- end -}}
{{- $never := list -}}
{{- if .kept -}}{{- range get $step "for" | default list -}}{{- if not (has . $.kept) -}}{{- $never = append $never (squote .) -}}{{- end -}}{{- end -}}{{- end -}}
{{- if $never -}}
{{- $kept := list -}}{{- range .kept -}}{{- $kept = append $kept (squote .) -}}{{- end -}}
{{- fail (printf "%s.for: %s: the step before keeps the classes %s alone" .key (join ", " $never) (join ", " $kept)) -}}
{{- end -}}
{{- $name := $step.name | default $step.model -}}
{{- if hasKey .state.seen $name -}}
{{- fail (printf "%s: %s is called '%s', too; give one of them a name of its own (name:)" .key (get .state.seen $name) $name) -}}
{{- end -}}
{{- if not (include "shoal.hasPool" (dict "root" .root "model" $step.model)) -}}
{{- fail (printf "%s.model: no pool serves '%s'; pools.*.models say which models are served" .key $step.model) -}}
{{- end -}}
{{- $_ := set .state.seen $name .key -}}
{{- $_ := set .state "calls" (add .state.calls .calls) -}}
{{- end -}}

{{/* Whether a pool serves a model, by name or pattern (Python's fnmatch); empty: none does. root: $, model. */}}
{{- define "shoal.hasPool" -}}
{{- range $_, $pool := include "shoal.pools" .root | fromJson -}}
{{- range $pool.models -}}
{{- $expression := "" -}}
{{- range regexFindAll "\\[[^]]+\\]|[^\\[]+|\\[" . -1 -}}
{{- $part := regexQuoteMeta . | replace "\\*" ".*" | replace "\\?" "." -}}
{{- if and (hasPrefix "[" .) (hasSuffix "]" .) -}}{{- $part = replace "\\" "\\\\" . | replace "[!" "[^" -}}{{- end -}}
{{- $expression = print $expression $part -}}
{{- end -}}
{{- if regexMatch (printf "^%s$" $expression) $.model -}}yes{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "shoal.checkScaling" -}}
{{- $scaling := .Values.kubernetes.autoscaling -}}
{{- if and (or $scaling.pools $scaling.batchers $scaling.pipelines $scaling.router) (not $scaling.prometheus_url) -}}
{{- fail "kubernetes.autoscaling: prometheus_url is missing: what is to be scaled is asked of Prometheus" -}}
{{- end -}}
{{- if ne (empty $scaling.authentication) (empty $scaling.authentication_modes) -}}
{{- fail "kubernetes.autoscaling: authentication and authentication_modes go together: without modes KEDA ignores it" -}}
{{- end -}}
{{- range $kind, $there := dict "pools" (include "shoal.pools" . | fromJson) "batchers" (include "shoal.batchers" . | fromJson) "pipelines" (include "shoal.pipelines" . | fromJson) -}}
{{- range $name, $scale := get $scaling $kind | default dict -}}
{{- if not (hasKey $there $name) -}}
{{- fail (printf "kubernetes.autoscaling.%s.%s: there are %s" $kind $name (keys $there | sortAlpha | join ", ")) -}}
{{- end -}}
{{- include "shoal.checkScale" (dict "where" (printf "%s.%s" $kind $name) "scale" $scale "least" 1) -}}
{{- end -}}
{{- end -}}
{{- with $scaling.router -}}
{{- include "shoal.checkScale" (dict "where" "router" "scale" . "least" 2) -}}
{{- end -}}
{{- end -}}

{{/* where, scale, least: pods where it says nothing. */}}
{{- define "shoal.checkScale" -}}
{{- $least := .scale.min_replicas | default .least | int -}}
{{- if gt $least (int .scale.max_replicas) -}}
{{- fail (printf "kubernetes.autoscaling.%s: min_replicas (%d) is over max_replicas (%d)" .where $least (int .scale.max_replicas)) -}}
{{- end -}}
{{- end -}}

{{- define "shoal.checkModels" -}}
{{- $given := .Values.kubernetes.model_store | default dict -}}
{{- $way := include "shoal.way" . -}}
{{- $ways := list -}}
{{- range $key := list "image" "volume" "sync" -}}
{{- $value := get $given $key -}}
{{- if or $value (kindIs "map" $value) -}}{{- $ways = append $ways $key -}}{{- end -}}
{{- end -}}
{{- if gt (len $ways) 1 -}}
{{- fail (printf "kubernetes.model_store: give one of image, volume and sync, not %s" (join " and " $ways)) -}}
{{- end -}}
{{- if not $way -}}
{{- fail "kubernetes.model_store: say how models come into pods: image, volume or sync (docs/deploy.md)" -}}
{{- end -}}
{{- if and (eq $way "sync") (not .Values.model_store.url) -}}
{{- fail "kubernetes.model_store.sync: model_store.url is missing, from which models come" -}}
{{- end -}}
{{- if kindIs "map" $given.volume -}}
{{- $kinds := list -}}
{{- range $key := list "nfs" "persistent_volume_claim" "host_path" -}}
{{- if get $given.volume $key -}}{{- $kinds = append $kinds $key -}}{{- end -}}
{{- end -}}
{{- if ne (len $kinds) 1 -}}
{{- fail "kubernetes.model_store.volume: give one of nfs, persistent_volume_claim and host_path" -}}
{{- end -}}
{{- end -}}
{{- if eq $way "image" -}}
{{- range $name, $pool := include "shoal.pools" . | fromJson -}}
{{- range $pool.models -}}
{{- if regexMatch "[*?\\[]" . -}}
{{- fail (printf "pools.%s.models: %q is a pattern, and with kubernetes.model_store.image nobody but the image knows its models: give their exact names" $name .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* A pod that is killed before it has drained loses what it held. */}}
{{- define "shoal.checkGrace" -}}
{{- $limits := .Files.Get "defaults.json" | fromJson -}}
{{- $batcher := .Values.kubernetes.batcher -}}
{{- $least := add $batcher.leave_seconds $limits.drain_seconds.batcher -}}
{{- if le (int $batcher.termination_grace_seconds) (int $least) -}}
{{- fail (printf "kubernetes.batcher.termination_grace_seconds: must be over %d, which is leave_seconds and %d s of draining" $least (int $limits.drain_seconds.batcher)) -}}
{{- end -}}
{{- $router := .Values.kubernetes.router -}}
{{- $least = add $router.leave_seconds $limits.drain_seconds.router -}}
{{- if le (int $router.termination_grace_seconds) (int $least) -}}
{{- fail (printf "kubernetes.router.termination_grace_seconds: must be over %d, which is leave_seconds and %d s of draining" $least (int $limits.drain_seconds.router)) -}}
{{- end -}}
{{- if le (int .Values.kubernetes.pipeline.termination_grace_seconds) (int $limits.drain_seconds.pipeline) -}}
{{- fail (printf "kubernetes.pipeline.termination_grace_seconds: must be over %d, which draining takes" (int $limits.drain_seconds.pipeline)) -}}
{{- end -}}
{{- range $name, $pool := include "shoal.pools" . | fromJson -}}
{{- if le (int $pool.pods.termination_grace_seconds) (int $limits.drain_seconds.worker) -}}
{{- fail (printf "kubernetes.worker or pools.%s: termination_grace_seconds must be over %d, which draining takes" $name (int $limits.drain_seconds.worker)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
