{{/* Name of everything here: the release's, with the chart's in it. */}}
{{- define "mcs-proxy.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name }}{{ end -}}
{{- end }}

{{/* What never changes: selectors cannot. */}}
{{- define "mcs-proxy.selector" -}}
app.kubernetes.io/name: mcs-proxy
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "mcs-proxy.labels" -}}
{{ include "mcs-proxy.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end }}

{{/* Where the kubelet of the same node asks: an address that means all is asked by loopback. */}}
{{- define "mcs-proxy.probe" -}}
{{- $host := regexReplaceAll ":[0-9]+$" .Values.metrics.bindAddress "" | trimAll "[]" -}}
host: {{ if or (eq $host "0.0.0.0") (eq $host "::") }}127.0.0.1{{ else }}{{ $host | quote }}{{ end }}
port: {{ include "mcs-proxy.port" . }}
{{- end }}

{{- define "mcs-proxy.port" -}}
{{ regexFind "[0-9]+$" .Values.metrics.bindAddress }}
{{- end }}

{{/* Past the API server's ClusterIP, if that was asked for. */}}
{{- define "mcs-proxy.apiServer" -}}
{{- with .Values.apiServer }}
{{- if .host -}}
- name: KUBERNETES_SERVICE_HOST
  value: {{ .host | quote }}
- name: KUBERNETES_SERVICE_PORT
  value: {{ .port | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "mcs-proxy.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}
