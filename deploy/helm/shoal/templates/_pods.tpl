{{/* What the pods of every part have. root: $, component, settings: of its pods, and pool or batcher. */}}
{{- define "shoal.pod" -}}
{{- if ne .component "test" }}
serviceAccountName: {{ include "shoal.serviceAccount" . }}
{{- end }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with .root.Values.kubernetes.images.pull_secrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  fsGroup: 65532
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- with .settings.priority_class }}
priorityClassName: {{ . }}
{{- end }}
{{- with .settings.runtime_class }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .settings.node_selector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* The same arguments. Without constraints of their own, pods spread over nodes as far as that goes. */}}
{{- define "shoal.spread" -}}
{{- $selector := dict "matchLabels" (include "shoal.selector" . | fromYaml) -}}
{{- $given := .settings.topology_spread -}}
{{- if not (kindIs "slice" $given) -}}
{{- $given = list (dict "maxSkew" 1 "topologyKey" "kubernetes.io/hostname" "whenUnsatisfiable" "ScheduleAnyway") -}}
{{- end -}}
{{- $constraints := list -}}
{{- range $given -}}
{{- $constraints = append $constraints (merge (deepCopy .) (dict "labelSelector" $selector)) -}}
{{- end -}}
{{- with $constraints -}}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- end -}}
{{- end -}}

{{- define "shoal.containerSecurity" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{/* root: $, image: a key of kubernetes.images. */}}
{{- define "shoal.containerImage" -}}
image: {{ include "shoal.image" . | quote }}
imagePullPolicy: {{ (get .root.Values.kubernetes.images .image).pull_policy }}
{{- end -}}

{{/* S3 keys as environment variables, where a Secret has them in this form. root: $, store: object_store or model_store. */}}
{{- define "shoal.storeEnvironment" -}}
{{- with get .root.Values.kubernetes.secrets (printf "%s_environment" .store) -}}
{{- $secret := . -}}
{{- range $key := list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" -}}
- name: {{ $key }}
  valueFrom: {secretKeyRef: {name: {{ $secret }}, key: {{ $key }}}}
{{ end -}}
{{- end -}}
{{- end -}}

{{/* root: $, store: object_store or model_store. */}}
{{- define "shoal.storeMount" -}}
{{- if get .root.Values.kubernetes.secrets .store -}}
- {name: {{ replace "_" "-" .store }}, mountPath: /etc/shoal/{{ replace "_" "-" .store }}, readOnly: true}
{{- end -}}
{{- end -}}

{{- define "shoal.storeVolume" -}}
{{- with get .root.Values.kubernetes.secrets .store -}}
- name: {{ replace "_" "-" $.store }}
  secret:
    secretName: {{ . }}
    defaultMode: 0440
    items: [{key: credentials.json, path: credentials.json}]
{{- end -}}
{{- end -}}

{{/* What the user adds to a list, if anything, on lines of its own. Of the list [items, indentation]. */}}
{{- define "shoal.extra" -}}
{{- with index . 0 }}{{ toYaml . | nindent (index $ 1) }}{{ end -}}
{{- end -}}

{{/* A volume that a pod may write to. settings: of the pods, name. */}}
{{- define "shoal.scratchVolume" -}}
- name: {{ .name }}
  emptyDir: {sizeLimit: {{ .settings.scratch_size | quote }}}
{{- end -}}

{{/* The volumes of every pod that reads the service file, and the user's. root: $, settings: of the pods. */}}
{{- define "shoal.commonVolumes" -}}
- name: service
  configMap:
    name: {{ include "shoal.name" (dict "root" .root "parts" (list "service")) }}
{{ include "shoal.scratchVolume" (dict "settings" .settings "name" "home") }}
{{ include "shoal.scratchVolume" (dict "settings" .settings "name" "tmp") }}
{{- include "shoal.extra" (list .settings.extra_volumes 0) }}
{{- end -}}

{{- define "shoal.keysVolume" -}}
- name: keys
  secret:
    secretName: {{ .Values.kubernetes.secrets.keys }}
    defaultMode: 0440
    items: [{key: keys.json, path: keys.json}]
{{- end -}}

{{/* The volume that the models lie in, where there is one. */}}
{{- define "shoal.modelsVolume" -}}
{{- $way := include "shoal.way" . -}}
{{- if eq $way "sync" -}}
- name: models
  emptyDir:
    sizeLimit: {{ (include "shoal.sync" . | fromJson).size_limit | quote }}
{{- else if eq $way "volume" -}}
{{- $volume := .Values.kubernetes.model_store.volume -}}
- name: models
  {{- with $volume.nfs }}
  nfs: {server: {{ .server | quote }}, path: {{ .path | quote }}, readOnly: true}
  {{- end }}
  {{- with $volume.persistent_volume_claim }}
  persistentVolumeClaim: {claimName: {{ . }}, readOnly: true}
  {{- end }}
  {{- with $volume.host_path }}
  hostPath: {path: {{ . | quote }}, type: Directory}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* Its mount for those that only read. */}}
{{- define "shoal.modelsMount" -}}
{{- if ne (include "shoal.way" .) "image" -}}
- name: models
  mountPath: /models
  readOnly: true
  {{- with (.Values.kubernetes.model_store.volume | default dict).sub_path }}
  subPath: {{ . | quote }}
  {{- end }}
{{- end -}}
{{- end -}}

{{/* A PodDisruptionBudget. As shoal.metadata, and settings: of the pods. */}}
{{- define "shoal.disruptionBudget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  {{- include "shoal.metadata" . | nindent 2 }}
spec:
  maxUnavailable: {{ .settings.max_unavailable }}
  {{- if eq .component "worker" }}
  # One that isn't ready takes batches for what it has: it counts as away, and still isn't for the taking.
  unhealthyPodEvictionPolicy: IfHealthyBudget
  {{- else }}
  # What isn't ready gets no call, and must not hold up a node.
  unhealthyPodEvictionPolicy: AlwaysAllow
  {{- end }}
  selector:
    matchLabels:
      {{- include "shoal.selector" . | nindent 6 }}
{{- end -}}
