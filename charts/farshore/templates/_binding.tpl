{{/*
Binds a policy to the whole cluster. Takes the policy's name and the chart's context; with `served` true, to the
namespaces that this release serves, so that releases for other namespaces are not held by it.
*/}}
{{- define "farshore.binding" -}}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ .name }}
  labels: {{- include "farshore.labels" .context | nindent 4 }}
spec:
  policyName: {{ .name }}
  validationActions: [Deny]
{{- if and .served .context.Values.namespaces }}
  matchResources:
    namespaceSelector:
      matchExpressions:
        - key: kubernetes.io/metadata.name
          operator: In
          values: {{- toYaml .context.Values.namespaces | nindent 12 }}
{{- end }}
{{- end }}

{{/*
CEL over variables `new` and `old` (two statuses) and `own` (a key): nothing differs but what is below `own`.
*/}}
{{- define "farshore.onlyOwn" -}}
variables.new.all(key, key == variables.own || (key in variables.old && variables.new[key] == variables.old[key])) &&
variables.old.all(key, key == variables.own || key in variables.new)
{{- end }}

{{/*
CEL over the same: no field manager has become an owner of anything else in the status. Otherwise a writer could apply
the values that are already there, and keep them alive after their real owner has removed them.
*/}}
{{- define "farshore.ownsNoMore" -}}
object.metadata.managedFields.all(entry,
  !('f:status' in entry.fieldsV1) ||
  entry.fieldsV1['f:status'].all(key, key == '.' || key == 'f:' + variables.own ||
    oldObject.metadata.?managedFields.orValue([]).exists(known,
      known.manager == entry.manager && known.operation == entry.operation &&
      known.?subresource.orValue('') == entry.?subresource.orValue('') &&
      'f:status' in known.fieldsV1 && key in known.fieldsV1['f:status'] &&
      known.fieldsV1['f:status'][key] == entry.fieldsV1['f:status'][key])))
{{- end }}

{{/* Variables that say what is written: `what` is a resource, with its subresource; `name` the object's name. */}}
{{- define "farshore.request" -}}
- name: what
  expression: >-
    request.resource.resource + (request.?subResource.orValue('') == '' ? '' : '/' + request.subResource)
- name: name
  expression: >-
    request.?name.orValue('') != '' ? request.name : object == null ? '' : object.metadata.?name.orValue('')
{{- end }}

{{/*
CEL: what of a plan's spec differs. `now` and `was` are the specs as maps; a plan that is made is compared with one that
asks for nothing.
*/}}
{{- define "farshore.planChange" -}}
- name: now
  expression: dyn(object.spec)
- name: was
  expression: >-
    oldObject != null ? dyn(oldObject.spec)
      : dyn({'activeSite': 'source', 'commit': 'Manual', 'recoveryPoint': 'Latest', 'reprotect': 'Manual'})
{{- end }}
