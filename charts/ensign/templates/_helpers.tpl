{{/* Labels of every object. `component` is controller, webhook, teardown, or empty for shared objects. */}}
{{- define "ensign.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: ensign
{{ include "ensign.selector" . }}
{{- end }}

{{/* Labels that select the pods of a component. They must never change. */}}
{{- define "ensign.selector" -}}
app.kubernetes.io/name: ensign
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "ensign.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* A duration in seconds, rounded up: 1h30m is 5400. */}}
{{- define "ensign.seconds" -}}
{{- $units := dict "h" 3600000 "m" 60000 "s" 1000 "ms" 1 -}}
{{- $milliseconds := 0 -}}
{{- range regexFindAll "[0-9]+[a-z]+" . -1 -}}
{{- $milliseconds = add $milliseconds (mul (regexFind "^[0-9]+" . | int64) (get $units (regexFind "[a-z]+$" .))) -}}
{{- end -}}
{{- div (add $milliseconds 999) 1000 -}}
{{- end }}

{{/* Whether the bindings of the admission policies are created. */}}
{{- define "ensign.policyBindings" -}}
{{- $choice := .Values.injection.policyBindings -}}
{{- if or (eq $choice "always") (and (eq $choice "auto") (semverCompare ">=1.37.0-0" .Capabilities.KubeVersion.Version)) -}}
true
{{- end -}}
{{- end }}

{{/* Injection mode: `auto` is the webhook where policies can't inject. */}}
{{- define "ensign.injection" -}}
{{- if and (eq .Values.injection.mode "auto") (or .Values.azureWorkloadIdentityCompat (not (include "ensign.policyBindings" .))) -}}
webhook
{{- else -}}
{{ .Values.injection.mode }}
{{- end -}}
{{- end }}

{{/* Audience of Ensign's own token: the cloud's, as for other pods. */}}
{{- define "ensign.ownAudience" -}}
{{- $clouds := dict "public" "api://AzureADTokenExchange" "custom" "api://AzureADTokenExchange" "usgov" "api://AzureADTokenExchangeUSGov" "china" "api://AzureADTokenExchangeChina" -}}
{{ .Values.azure.tokenAudience | default (get $clouds .Values.azure.cloud) }}
{{- end }}

{{- define "ensign.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "ensign.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Scheduling of a component's pods. */}}
{{- define "ensign.scheduling" -}}
{{- $own := index .root.Values .component -}}
{{- with $own.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $own.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $own.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- if $own.topologySpreadConstraints }}
{{- toYaml $own.topologySpreadConstraints | nindent 2 }}
{{- else }}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - topologyKey: {{ . }}
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "ensign.selector" $ | nindent 8 }}
    matchLabelKeys: [pod-template-hash]
{{- end }}
{{- end }}
{{- end }}

{{- define "ensign.probes" -}}
livenessProbe:
  httpGet: {path: /livez, port: health}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: {path: /readyz, port: health}
  periodSeconds: 2
  timeoutSeconds: 5
  failureThreshold: 2
{{- end }}

{{/* Flags of every subcommand that runs in the cluster. */}}
{{- define "ensign.commonArgs" -}}
- --namespace={{ .Release.Namespace }}
- {{ printf "--log=%s" .Values.log.filter | quote }}
- --log-format={{ .Values.log.format }}
- --azure-cloud={{ .Values.azure.cloud }}
- --azure-tenant-id={{ .Values.azure.tenantID }}
{{- with .Values.azure.authorityHost }}
- --azure-authority-host={{ . }}
{{- end }}
{{- with .Values.azure.tokenAudience }}
- {{ printf "--azure-token-audience=%s" . | quote }}
{{- end }}
{{- end }}

{{/* Flags that controller and webhook share, and have to agree on. */}}
{{- define "ensign.sharedArgs" -}}
{{ include "ensign.commonArgs" . }}
- --health-listen={{ .Values.listenAddress }}:8080
{{- with .Values.cluster.excludedNamespaces }}
- --excluded-namespaces={{ join "," . }}
{{- end }}
{{- if .Values.azureWorkloadIdentityCompat }}
- --azure-workload-identity-compat
{{- end }}
- --gate-pods={{ .Values.gatePods }}
{{- end }}

{{/* Rules that the NetworkPolicies share. */}}
{{- define "ensign.metricsIngress" -}}
- ports: [{port: 8080, protocol: TCP}]
  {{- with .Values.networkPolicy.metricsFrom }}
  from: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "ensign.dnsEgress" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}
