{{/*
What the schema can't express: required values, ranges of durations, and values that exclude each other. All problems are
reported at once.
*/}}
{{- define "ensign.validate" -}}
{{- $problems := list -}}
{{- $azure := .Values.azure -}}
{{- if not .Values.image.repository -}}
{{- $problems = append $problems "image.repository is required: the repository that you pushed Ensign's image to" -}}
{{- end -}}
{{- if not $azure.tenantID -}}
{{- $problems = append $problems "azure.tenantID is required: the Entra tenant (az account show --query tenantId)" -}}
{{- end -}}
{{- if not $azure.clientID -}}
{{- $problems = append $problems "azure.clientID is required: the client ID of the controller's own user-assigned identity (az identity show --query clientId)" -}}
{{- end -}}
{{- range $name := list "armEndpoint" "authorityHost" -}}
{{- if and (eq $azure.cloud "custom") (not (index $azure $name)) -}}
{{- $problems = append $problems (printf "azure.%s is required with azure.cloud custom" $name) -}}
{{- end -}}
{{- if and (ne $azure.cloud "custom") (index $azure $name) -}}
{{- $problems = append $problems (printf "azure.%s needs azure.cloud custom, not %q" $name $azure.cloud) -}}
{{- end -}}
{{- end -}}
{{- if and $azure.proxy.url $azure.proxy.secretName -}}
{{- $problems = append $problems "azure.proxy.url and azure.proxy.secretName are mutually exclusive" -}}
{{- end -}}
{{- if and $azure.proxy.secretName .Values.networkPolicy.enabled (not $azure.proxy.port) -}}
{{- $problems = append $problems "azure.proxy.port is required with azure.proxy.secretName: the NetworkPolicy has to allow egress to the proxy" -}}
{{- end -}}
{{- if and $azure.extraCA.configMapName $azure.extraCA.secretName -}}
{{- $problems = append $problems "azure.extraCA.configMapName and azure.extraCA.secretName are mutually exclusive" -}}
{{- end -}}
{{- if and .Values.cluster.previousID (eq .Values.cluster.previousID .Values.cluster.id) -}}
{{- $problems = append $problems "cluster.previousID must differ from cluster.id" -}}
{{- end -}}
{{- if and .Values.azureWorkloadIdentityCompat (eq .Values.injection.mode "policy") -}}
{{- $problems = append $problems "azureWorkloadIdentityCompat needs the webhook: injection.mode must not be policy" -}}
{{- end -}}
{{- if and (not .Values.webhook.enabled) (ne .Values.injection.mode "policy") -}}
{{- $problems = append $problems (printf "webhook.enabled can be false only with injection.mode policy, not %q" .Values.injection.mode) -}}
{{- end -}}
{{- if and (eq .Values.injection.mode "policy") (not (include "ensign.policyBindings" .)) -}}
{{- $problems = append $problems (printf "injection.mode policy needs the admission policies' bindings, and injection.policyBindings is %q on Kubernetes %s: policies inject from 1.37 on" .Values.injection.policyBindings .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and .Values.webhook.certificates.secretName (eq .Values.webhook.certificates.secretName "ensign-webhook-tls") -}}
{{- $problems = append $problems "webhook.certificates.secretName must not be ensign-webhook-tls, the Secret for certificates that the webhook issues itself" -}}
{{- end -}}
{{- range $name, $duration := dict
  "azure.driftCheckInterval" (list $azure.driftCheckInterval "10s" "24h")
  "azure.propagationDelay" (list $azure.propagationDelay "0s" "1h")
  "controller.leaseDuration" (list .Values.controller.leaseDuration "2s" "10m")
  "webhook.drainDuration" (list .Values.webhook.drainDuration "0s" "5m")
  "teardown.timeout" (list .Values.teardown.timeout "1s" "24h") -}}
{{- $value := index $duration 0 -}}
{{- $least := index $duration 1 -}}
{{- $most := index $duration 2 -}}
{{- $seconds := include "ensign.seconds" $value | int64 -}}
{{- if or (lt $seconds (include "ensign.seconds" $least | int64)) (gt $seconds (include "ensign.seconds" $most | int64)) -}}
{{- $problems = append $problems (printf "%s must be %s to %s, not %s" $name $least $most $value) -}}
{{- end -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "invalid values, %d problem(s):\n  %s" (len $problems) (join "\n  " $problems)) -}}
{{- end -}}
{{- end }}
