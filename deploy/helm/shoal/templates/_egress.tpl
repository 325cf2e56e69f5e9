{{/* The types of a policy. root: $. */}}
{{- define "shoal.networkPolicy.types" -}}
{{- if .root.Values.kubernetes.network_policies.egress.enabled }}[Ingress, Egress]{{ else }}[Ingress]{{ end -}}
{{- end -}}

{{/* What all pods may ask: names, and what the user adds. Some clusters' DNS pods listen on 5353. */}}
{{- define "shoal.networkPolicy.everybody" -}}
{{- $egress := .root.Values.kubernetes.network_policies.egress -}}
{{- with $egress.dns -}}
- ports:
    {{- range $port := list 53 5353 }}
    - {port: {{ $port }}, protocol: UDP}
    - {port: {{ $port }}, protocol: TCP}
    {{- end }}
  to:
    {{- toYaml . | nindent 4 }}
{{- end -}}
{{- include "shoal.extra" (list $egress.extra 0) }}
{{- end -}}

{{/* To a part of this release. root: $, component, port. */}}
{{- define "shoal.networkPolicy.toPart" -}}
- ports: {{ include "shoal.networkPolicy.ports" .ports }}
  to:
    - podSelector:
        matchLabels:
          {{- include "shoal.selector" (dict "root" .root "component" .component) | nindent 10 }}
{{- end -}}

{{/* To stores. root: $, stores: of object_store and model_store. */}}
{{- define "shoal.networkPolicy.toStores" -}}
{{- $given := .root.Values.kubernetes.network_policies.egress.stores -}}
{{- if $given -}}
{{- toYaml $given -}}
{{- else -}}
{{- $rules := list -}}
{{- range .stores -}}
{{- $store := $.root.Values.model_store -}}
{{- if eq . "object_store" -}}{{- $store = include "shoal.objectStore" $.root | fromJson -}}{{- end -}}
{{- $rules = append $rules (include "shoal.networkPolicy.toAddress" (dict "root" $.root "address" $store.endpoint)) -}}
{{- end -}}
{{- $rules | uniq | join "\n" -}}
{{- end -}}
{{- end -}}

{{/* To an http(s) address. A Service's name leads to pods of its namespace, whose ports nobody here knows. root: $, address. */}}
{{- define "shoal.networkPolicy.toAddress" -}}
{{- $parts := urlParse (.address | default "https://") -}}
{{- $host := regexReplaceAll ":[0-9]+$" $parts.host "" -}}
{{- $port := regexFind ":[0-9]+$" $parts.host | trimPrefix ":" | default (ternary "80" "443" (eq $parts.scheme "http")) -}}
{{- $namespace := "" -}}
{{- if regexMatch "^[a-z0-9-]+$" $host -}}
{{- $namespace = .root.Release.Namespace -}}
{{- else if regexMatch "^[a-z0-9-]+\\.[a-z0-9-]+\\.svc(\\..*)?$" $host -}}
{{- $namespace = index (splitList "." $host) 1 -}}
{{- end -}}
{{- if $namespace -}}
- to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: {{ $namespace }}}}}]
{{- else -}}
- ports: [{port: {{ $port }}}]
{{- end -}}
{{- end -}}
