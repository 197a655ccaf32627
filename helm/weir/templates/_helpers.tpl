{{/* Name of everything in the release: weir for the release weir, RELEASE-weir for others. */}}
{{- define "weir.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains (include "weir.name" .) .Release.Name -}}
{{- .Release.Name | trunc 32 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "weir.name" .) | trunc 32 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "weir.name" -}}
{{- default .Chart.Name .Values.nameOverride -}}
{{- end -}}

{{/* Name of what exists once in a cluster. */}}
{{- define "weir.clusterName" -}}
{{- printf "%s:%s" .Release.Namespace (include "weir.fullname" .) -}}
{{- end -}}

{{/* Labels by which pods of a component are found. Takes (dict "root" $ "component" "operator"). */}}
{{- define "weir.selector" -}}
app.kubernetes.io/name: {{ include "weir.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{- define "weir.labels" -}}
{{ include "weir.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: weir
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* Labels of pods: nothing that changes with the version of the chart, or every upgrade would replace all of them. */}}
{{- define "weir.podLabels" -}}
{{ include "weir.selector" . }}
app.kubernetes.io/part-of: weir
{{- end -}}

{{/* An image of values that have repository, tag and digest. Takes (dict "image" ... "tag" DEFAULT). */}}
{{- define "weir.imageOf" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (default .tag .image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "weir.image" -}}
{{- include "weir.imageOf" (dict "image" .Values.image "tag" .Chart.AppVersion) -}}
{{- end -}}

{{/* The pools by name: sfuNode with what each changes. YAML, for fromYaml. */}}
{{- define "weir.pools" -}}
{{- $pools := dict -}}
{{- $root := . -}}
{{- range $name, $changes := (.Values.pools | default (dict "default" dict)) -}}
{{- $_ := set $pools $name (mergeOverwrite (deepCopy $root.Values.sfuNode) ($changes | default dict)) -}}
{{- end -}}
{{- toYaml $pools -}}
{{- end -}}

{{/* Takes (dict "root" $ "pool" NAME). */}}
{{- define "weir.poolName" -}}
{{- if eq .pool "default" -}}
{{- printf "%s-sfu-node" (include "weir.fullname" .root) -}}
{{- else -}}
{{- printf "%s-sfu-node-%s" (include "weir.fullname" .root) .pool -}}
{{- end -}}
{{- end -}}

{{- define "weir.poolSelector" -}}
{{ include "weir.selector" (dict "root" .root "component" "sfu-node") }}
weir.dev/pool: {{ .pool }}
{{- end -}}

{{- define "weir.isNatsEmbedded" -}}
{{- if not .Values.nats.external.url -}}true{{- end -}}
{{- end -}}

{{/* TLS to NATS: always to the chart's own, to another when its CA is given. */}}
{{- define "weir.hasNatsTls" -}}
{{- if or (include "weir.isNatsEmbedded" .) .Values.nats.external.caSecret -}}true{{- end -}}
{{- end -}}

{{- define "weir.natsAuthSecret" -}}
{{- .Values.nats.external.authSecret | default (printf "%s-nats-auth" (include "weir.fullname" .)) -}}
{{- end -}}

{{- define "weir.apiKeysSecret" -}}
{{- .Values.apiKeys.existingSecret | default (printf "%s-api-keys" (include "weir.fullname" .)) -}}
{{- end -}}

{{/* Whether a pool scales by the metrics API. */}}
{{- define "weir.isMetricsApiOn" -}}
{{- if .Values.metricsAPI.enabled -}}true{{- end -}}
{{- end -}}

{{- define "weir.isScalerOn" -}}
{{- range $name, $pool := (include "weir.pools" . | fromYaml) -}}
{{- if eq $pool.autoscaling.mode "KEDA" -}}true{{- end -}}
{{- end -}}
{{- end -}}

{{/* Name of a node in its certificate, below which every pod's name is (WEIR_NODE_DOMAIN). */}}
{{- define "weir.nodeDomain" -}}
sfu-node.{{ .Release.Namespace }}.weir.internal
{{- end -}}

{{- define "weir.listenHost" -}}
{{- if eq .Values.network.ipFamily "IPv4" -}}0.0.0.0{{- else -}}[::]{{- end -}}
{{- end -}}

{{/* How a Service takes its addresses. */}}
{{- define "weir.ipFamilies" -}}
{{- if eq .Values.network.ipFamily "DualStack" -}}
ipFamilyPolicy: PreferDualStack
{{- else -}}
ipFamilyPolicy: SingleStack
ipFamilies: [{{ .Values.network.ipFamily }}]
{{- end -}}
{{- end -}}

{{- define "weir.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile: { type: RuntimeDefault }
{{- end -}}

{{- define "weir.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end -}}

{{/*
Where NATS of the release is: its Service, and each of several servers. Whoever loses one of these goes to another one next,
where the Service may send it to the same one again.
*/}}
{{- define "weir.natsUrl" -}}
{{- $name := printf "%s-nats" (include "weir.fullname" .) -}}
{{- $urls := list (printf "tls://%s.%s.svc:4222" $name .Release.Namespace) -}}
{{- $replicas := int .Values.nats.replicas -}}
{{- range $index := until (ternary $replicas 0 (gt $replicas 1)) -}}
{{- $urls = append $urls (printf "tls://%s-%d.%s-headless.%s.svc:4222" $name $index $name $.Release.Namespace) -}}
{{- end -}}
{{- join "," $urls -}}
{{- end -}}

{{/* Environment of both programs: log, NATS and certificates. Takes (dict "root" $ "role" "operator"). */}}
{{- define "weir.commonEnv" -}}
- { name: WEIR_LOG_LEVEL, value: {{ .root.Values.log.level | quote }} }
- { name: WEIR_LOG_FORMAT, value: {{ .root.Values.log.format | quote }} }
{{- if include "weir.isNatsEmbedded" .root }}
- { name: WEIR_NATS_URL, value: {{ include "weir.natsUrl" .root | quote }} }
{{- else }}
- { name: WEIR_NATS_URL, value: {{ .root.Values.nats.external.url | quote }} }
{{- end }}
{{- if or (include "weir.isNatsEmbedded" .root) .root.Values.nats.external.authSecret }}
- { name: WEIR_NATS_USER, value: {{ .role }} }
- name: WEIR_NATS_PASSWORD
  valueFrom: { secretKeyRef: { name: {{ include "weir.natsAuthSecret" .root }}, key: {{ .role }} } }
{{- end }}
{{- if include "weir.hasNatsTls" .root }}
- { name: WEIR_NATS_CA_FILE, value: /etc/weir/nats/ca.crt }
{{- end }}
- { name: WEIR_TLS_CA_FILE, value: /etc/weir/tls/ca.crt }
- { name: WEIR_TLS_CERT_FILE, value: /etc/weir/tls/tls.crt }
- { name: WEIR_TLS_KEY_FILE, value: /etc/weir/tls/tls.key }
{{- end -}}

{{- define "weir.commonMounts" -}}
- { name: tls, mountPath: /etc/weir/tls, readOnly: true }
{{- if include "weir.hasNatsTls" .root }}
- { name: nats-ca, mountPath: /etc/weir/nats, readOnly: true }
{{- end }}
{{- end -}}

{{/* Items are named so that a pod waits for its certificates rather than starting without them. */}}
{{- define "weir.commonVolumes" -}}
- name: tls
  secret:
    secretName: {{ include "weir.fullname" .root }}-{{ .role }}-tls
    items: [{ key: ca.crt, path: ca.crt }, { key: tls.crt, path: tls.crt }, { key: tls.key, path: tls.key }]
{{- if include "weir.hasNatsTls" .root }}
- name: nats-ca
  secret:
    secretName: {{ .root.Values.nats.external.caSecret | default (printf "%s-nats-tls" (include "weir.fullname" .root)) }}
    items: [{ key: ca.crt, path: ca.crt }]
{{- end }}
{{- end -}}

{{- define "weir.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Fields of where a pod runs. Takes values that have nodeSelector, tolerations and so on. */}}
{{- define "weir.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{- define "weir.podEnv" -}}
- name: WEIR_POD_NAME
  valueFrom: { fieldRef: { fieldPath: metadata.name } }
- name: WEIR_POD_NAMESPACE
  valueFrom: { fieldRef: { fieldPath: metadata.namespace } }
- name: WEIR_POD_UID
  valueFrom: { fieldRef: { fieldPath: metadata.uid } }
- name: WEIR_POD_IP
  valueFrom: { fieldRef: { fieldPath: status.podIP } }
{{- end -}}

{{/* key=value,key=value of a dict. */}}
{{- define "weir.pairs" -}}
{{- $pairs := list -}}
{{- range $key, $value := . -}}
{{- $pairs = append $pairs (printf "%s=%s" $key $value) -}}
{{- end -}}
{{- join "," $pairs -}}
{{- end -}}

{{/* Streams that a pod carries: what its values say, or 500 a worker. */}}
{{- define "weir.capacityStreams" -}}
{{- .capacity.streams | default (mul 500 (int .workers)) | int -}}
{{- end -}}

{{/* Streams a pod that autoscaling aims at. */}}
{{- define "weir.targetStreams" -}}
{{- .autoscaling.targetStreams | default (div (mul 7 (include "weir.capacityStreams" . | int)) 10) | int -}}
{{- end -}}

{{/* Out at once, in slowly: calls move when a pod goes. */}}
{{- define "weir.scalingBehavior" -}}
scaleUp:
  stabilizationWindowSeconds: 0
  policies: [{ type: Percent, value: 100, periodSeconds: 15 }, { type: Pods, value: 2, periodSeconds: 15 }]
scaleDown:
  stabilizationWindowSeconds: {{ .scaleDownStabilizationSeconds }}
  policies: [{ type: Pods, value: {{ .scaleDownPodsPerMinute }}, periodSeconds: 60 }]
{{- end -}}
