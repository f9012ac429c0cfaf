{{/* The name of the operator's own objects: the release's, with the chart's unless it says so already. */}}
{{- define "penstock.name" -}}
{{- if contains "penstock" .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-penstock" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* Names of things without a namespace: two releases in two namespaces are strangers. */}}
{{- define "penstock.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "penstock.name" .) | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "penstock.account" -}}
{{- .Values.serviceAccount.name | default (include "penstock.name" .) -}}
{{- end -}}

{{- define "penstock.selector" -}}
app.kubernetes.io/name: penstock-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "penstock.labels" -}}
{{ include "penstock.selector" . }}
app.kubernetes.io/part-of: penstock
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "penstock.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{- define "penstock.workerImage" -}}
{{- printf "%s:%s" .Values.workerImage.repository (.Values.workerImage.tag | default .Chart.AppVersion) -}}
{{- end -}}

{{/* What the operator does in the namespaces of jobs; nothing here reads a Secret. */}}
{{- define "penstock.rules" -}}
- apiGroups: [penstock.dev]
  resources: [streamjobs]
  verbs: [get, list, watch, patch]
- apiGroups: [penstock.dev]
  resources: [savepoints]
  verbs: [get, list, watch, create, patch]
- apiGroups: [penstock.dev]
  resources: [streamjobs/status, savepoints/status]
  verbs: [update]
# Owner references that block deletion, where the API server asks for this right.
- apiGroups: [penstock.dev]
  resources: [streamjobs/finalizers]
  verbs: [update]
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, delete]
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch]
- apiGroups: [apps]
  resources: [controllerrevisions]
  verbs: [get, list, create, patch, delete]
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [services, serviceaccounts]
  verbs: [get, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, create, patch]
# Tokens of jobs are derived, so that none need be read; a patch would be answered with all that is there.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create, update]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [events]
  verbs: [list, create, patch]
{{- end -}}
