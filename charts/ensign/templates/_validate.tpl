{{/*
What the schema can't say: what has to be given, and what doesn't go together. Everything is named at once, so that
nobody has to try once for each.
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
{{- $problems = append $problems (printf "azure.%s needs azure.cloud custom, which is %q" $name $azure.cloud) -}}
{{- end -}}
{{- end -}}
{{- if and $azure.proxy.url $azure.proxy.secretName -}}
{{- $problems = append $problems "azure.proxy.url and azure.proxy.secretName are two ways to say the same: give one" -}}
{{- end -}}
{{- if and $azure.proxy.secretName .Values.networkPolicy.enabled (not $azure.proxy.port) -}}
{{- $problems = append $problems "azure.proxy.port is required with azure.proxy.secretName: the NetworkPolicy has to let the controller out to it" -}}
{{- end -}}
{{- if and $azure.extraCA.configMapName $azure.extraCA.secretName -}}
{{- $problems = append $problems "azure.extraCA.configMapName and azure.extraCA.secretName are two ways to say the same: give one" -}}
{{- end -}}
{{- if and .Values.cluster.previousID (eq .Values.cluster.previousID .Values.cluster.id) -}}
{{- $problems = append $problems "cluster.previousID must differ from cluster.id" -}}
{{- end -}}
{{- if and .Values.azureWorkloadIdentityCompat (eq .Values.injection.mode "policy") -}}
{{- $problems = append $problems "azureWorkloadIdentityCompat needs the webhook: injection.mode can't be policy" -}}
{{- end -}}
{{- if and (not .Values.webhook.enabled) (ne .Values.injection.mode "policy") -}}
{{- $problems = append $problems (printf "webhook.enabled can be false only with injection.mode policy, which is %q" .Values.injection.mode) -}}
{{- end -}}
{{- if and (eq .Values.injection.mode "policy") (not (include "ensign.policyBindings" .)) -}}
{{- $problems = append $problems (printf "injection.mode policy needs the admission policies' bindings, and injection.policyBindings is %q on Kubernetes %s: policies inject from 1.37 on" .Values.injection.policyBindings .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- if and .Values.webhook.certificates.secretName (eq .Values.webhook.certificates.secretName "ensign-webhook-tls") -}}
{{- $problems = append $problems "webhook.certificates.secretName can't be ensign-webhook-tls, which the chart makes for certificates of the webhook's own" -}}
{{- end -}}
{{- if $problems -}}
{{- fail (printf "the values have %d problem(s):\n  %s" (len $problems) (join "\n  " $problems)) -}}
{{- end -}}
{{- end }}
