{{- define "farshore.name" -}}
{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "farshore.account" -}}
{{ include "farshore.name" . }}-operator
{{- end }}

{{/* The operator as the API server calls it. */}}
{{- define "farshore.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:{{ include "farshore.account" . }}
{{- end }}

{{- define "farshore.labels" -}}
app.kubernetes.io/name: farshore
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "farshore.selector" -}}
app.kubernetes.io/name: farshore
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Annotations of the operator's ServiceAccount: those of the values, and its identity at Microsoft Entra. */}}
{{- define "farshore.accountAnnotations" -}}
{{- $identity := .Values.operator.workloadIdentity }}
{{- $found := dict }}
{{- with $identity.clientId }}{{ $_ := set $found "azure.workload.identity/client-id" . }}{{ end }}
{{- with $identity.tenantId }}{{ $_ := set $found "azure.workload.identity/tenant-id" . }}{{ end }}
{{- with merge $found .Values.operator.serviceAccount.annotations }}
{{- toYaml . }}
{{- end }}
{{- end }}
