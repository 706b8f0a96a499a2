{{/* Labels of every object. `component` is controller, webhook, or empty for what belongs to neither. */}}
{{- define "ensign.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: ensign
{{ include "ensign.selector" . }}
{{- end }}

{{/* Labels that select the pods of a component; they never change. */}}
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

{{/* Whether the bindings of the admission policies are made. */}}
{{- define "ensign.policyBindings" -}}
{{- $choice := .Values.injection.policyBindings -}}
{{- if or (eq $choice "always") (and (eq $choice "auto") (semverCompare ">=1.37.0-0" .Capabilities.KubeVersion.Version)) -}}
true
{{- end -}}
{{- end }}

{{/* Who injects: where policies can't, `auto` is the webhook. */}}
{{- define "ensign.injection" -}}
{{- if and (eq .Values.injection.mode "auto") (or .Values.azureWorkloadIdentityCompat (not (include "ensign.policyBindings" .))) -}}
webhook
{{- else -}}
{{ .Values.injection.mode }}
{{- end -}}
{{- end }}

{{/* The audience of Ensign's own token, which is the cloud's as it is for other pods. */}}
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

{{/* Flags of every subcommand that acts in a cluster. */}}
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

{{/* Flags that controller and webhook share: what they have to agree on. */}}
{{- define "ensign.sharedArgs" -}}
{{ include "ensign.commonArgs" . }}
- --health-listen={{ .Values.listenAddress }}:8080
{{- with .Values.cluster.excludedNamespaces }}
- --excluded-namespaces={{ join "," . }}
{{- end }}
{{- if .Values.azureWorkloadIdentityCompat }}
- --azure-workload-identity-compat
{{- end }}
- --hold={{ .Values.hold }}
{{- end }}

{{/* Rules that NetworkPolicies share. */}}
{{- define "ensign.metricsIngress" -}}
- ports: [{port: 8080, protocol: TCP}]
  {{- with .Values.networkPolicy.metricsFrom }}
  from: {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}

{{- define "ensign.dnsEgress" -}}
- ports: [{port: 53, protocol: UDP}, {port: 53, protocol: TCP}]
{{- end }}
