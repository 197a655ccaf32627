{{/* What the program "credentials" makes: a certificate a Secret, passwords, an API key. */}}
{{- define "weir.credentials" -}}
{{- $full := include "weir.fullname" . -}}
{{- $namespace := .Release.Namespace -}}
namespace: {{ $namespace }}
{{- if eq .Values.certificates.mode "SelfMade" }}
authority: { secret: {{ $full }}-ca }
certificates:
{{- range (include "weir.certificates" . | fromYamlArray) }}
  - { secret: {{ .secret }}, subject: {{ .subject | quote }}, names: {{ toJson .names }}, days: {{ $.Values.certificates.validDays }} }
{{- end }}
{{- if .Values.metricsAPI.enabled }}
apiServices: [v1beta2.custom.metrics.k8s.io]
{{- end }}
{{- end }}
{{- if include "weir.isNatsEmbedded" . }}
passwords: { secret: {{ $full }}-nats-auth, keys: [operator, sfu-node, cluster] }
{{- end }}
{{- if not .Values.apiKeys.existingSecret }}
apiKeys: { secret: {{ $full }}-api-keys }
{{- end }}
{{- end -}}

{{/* Certificates of the release: Secret, subject and names. */}}
{{- define "weir.certificates" -}}
{{- $full := include "weir.fullname" . -}}
{{- $namespace := .Release.Namespace -}}
- { secret: {{ $full }}-operator-tls, subject: "CN=operator,OU=operator", commonName: operator, unit: operator, names: [operator.{{ $namespace }}.weir.internal] }
- { secret: {{ $full }}-sfu-node-tls, subject: "CN=sfu-node,OU=sfu-node", commonName: sfu-node, unit: sfu-node, names: ["*.{{ include "weir.nodeDomain" . }}"] }
{{- if include "weir.isNatsEmbedded" . }}
- { secret: {{ $full }}-nats-tls, subject: "CN=nats,OU=nats", commonName: nats, unit: nats, names: [{{ $full }}-nats, {{ $full }}-nats.{{ $namespace }}, {{ $full }}-nats.{{ $namespace }}.svc, "*.{{ $full }}-nats-headless.{{ $namespace }}.svc"] }
{{- end }}
{{- if .Values.metricsAPI.enabled }}
- { secret: {{ $full }}-metrics-api-tls, subject: "CN=metrics-api,OU=metrics-api", commonName: metrics-api, unit: metrics-api, names: [{{ $full }}-operator.{{ $namespace }}.svc, {{ $full }}-operator.{{ $namespace }}.svc.cluster.local] }
{{- end }}
{{- end -}}

{{/* Names of the Secrets that the program fills. */}}
{{- define "weir.madeSecrets" -}}
{{- $config := include "weir.credentials" . | fromYaml -}}
{{- $names := list -}}
{{- with $config.authority }}{{ $names = append $names .secret }}{{ end -}}
{{- range $config.certificates }}{{ $names = append $names .secret }}{{ end -}}
{{- with $config.passwords }}{{ $names = append $names .secret }}{{ end -}}
{{- with $config.apiKeys }}{{ $names = append $names .secret }}{{ end -}}
{{- toJson $names -}}
{{- end -}}

{{- define "weir.credentialsPod" -}}
metadata:
  labels: {{- include "weir.podLabels" (dict "root" . "component" "credentials") | nindent 4 }}
spec:
  {{- include "weir.pullSecrets" . | indent 2 }}
  serviceAccountName: {{ include "weir.fullname" . }}-credentials
  restartPolicy: OnFailure
  securityContext: {{- include "weir.podSecurity" . | nindent 4 }}
  {{- include "weir.placement" (omit .Values.operator "priorityClassName") | indent 2 }}
  containers:
    - name: credentials
      image: {{ include "weir.image" . }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [credentials]
      securityContext: {{- include "weir.containerSecurity" . | nindent 8 }}
      env:
        - { name: WEIR_LOG_FORMAT, value: {{ .Values.log.format }} }
        - { name: WEIR_CREDENTIALS_FILE, value: /etc/weir/credentials.yaml }
      resources: { requests: { cpu: 50m, memory: 96Mi }, limits: { memory: 256Mi } }
      volumeMounts: [{ name: config, mountPath: /etc/weir, readOnly: true }]
  volumes:
    - name: config
      configMap: { name: {{ include "weir.fullname" . }}-credentials }
{{- end -}}
