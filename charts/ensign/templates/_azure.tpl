{{/* Flags for Azure, of the controller and of teardown. */}}
{{- define "ensign.azureArgs" -}}
{{- $azure := .Values.azure -}}
{{- with $azure.armEndpoint }}
- --azure-arm-endpoint={{ . }}
{{- end }}
{{- with $azure.allowedScopes }}
- --azure-allowed-scopes={{ join "," . }}
{{- end }}
{{- with $azure.apiVersions.managedIdentity }}
- --azure-api-version=Microsoft.ManagedIdentity={{ . }}
{{- end }}
{{- with $azure.apiVersions.authorization }}
- --azure-api-version=Microsoft.Authorization={{ . }}
{{- end }}
- --azure-rate-share={{ $azure.rateShare }}
{{- if or $azure.extraCA.configMapName $azure.extraCA.secretName }}
- --azure-ca-file=/etc/ensign/azure-ca/ca.crt
{{- end }}
{{- with .Values.cluster.id }}
- --cluster-id={{ . }}
{{- end }}
{{- with .Values.cluster.previousID }}
- --previous-cluster-id={{ . }}
{{- end }}
{{- with .Values.cluster.serviceAccountIssuer }}
- --service-account-issuer={{ . }}
{{- end }}
{{- if .Values.cluster.allowPrivateIssuer }}
- --allow-private-issuer
{{- end }}
{{- end }}

{{- define "ensign.azureEnv" -}}
{{- $azure := .Values.azure -}}
# Ensign's own identity in Azure. It is set here and not injected, so that Ensign can start on its own.
- name: AZURE_CLIENT_ID
  value: {{ $azure.clientID | quote }}
- name: AZURE_TENANT_ID
  value: {{ $azure.tenantID | quote }}
- name: AZURE_FEDERATED_TOKEN_FILE
  value: /var/run/secrets/ensign.dev/azure/token
{{- if $azure.proxy.url }}
- name: ENSIGN_HTTPS_PROXY
  value: {{ $azure.proxy.url | quote }}
{{- else if $azure.proxy.secretName }}
- name: ENSIGN_HTTPS_PROXY
  valueFrom: {secretKeyRef: {name: {{ $azure.proxy.secretName }}, key: {{ $azure.proxy.secretKey }}}}
{{- end }}
{{- with $azure.proxy.noProxy }}
- name: ENSIGN_NO_PROXY
  value: {{ join "," . | quote }}
{{- end }}
{{- end }}

{{- define "ensign.azureMounts" -}}
{{- $azure := .Values.azure -}}
- {name: azure-token, mountPath: /var/run/secrets/ensign.dev/azure, readOnly: true}
{{- if or $azure.extraCA.configMapName $azure.extraCA.secretName }}
- {name: azure-ca, mountPath: /etc/ensign/azure-ca, readOnly: true}
{{- end }}
{{- end }}

{{- define "ensign.azureVolumes" -}}
{{- $azure := .Values.azure -}}
- name: azure-token
  projected:
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ include "ensign.ownAudience" . }}
          expirationSeconds: 3600
{{- if $azure.extraCA.configMapName }}
- name: azure-ca
  configMap:
    name: {{ $azure.extraCA.configMapName }}
    items: [{key: {{ $azure.extraCA.key }}, path: ca.crt}]
{{- else if $azure.extraCA.secretName }}
- name: azure-ca
  secret:
    secretName: {{ $azure.extraCA.secretName }}
    items: [{key: {{ $azure.extraCA.key }}, path: ca.crt}]
{{- end }}
{{- end }}
