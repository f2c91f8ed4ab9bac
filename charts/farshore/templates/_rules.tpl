{{/*
The operator's rights. What a rule grants and the operator does not use itself, it passes on to process servers and
registrars: nobody can grant what they do not have. README.md lists who gets what.
*/}}
{{- define "farshore.rules" -}}
# Our resources: read all, hold them with a finalizer, write their status.
- apiGroups: [farshore.dev]
  resources:
    - failoverplans
    - failoverruns
    - processservers
    - protectedvms
    - recoveryvaults
    - replicationpolicies
    - sites
    - tasks
    - testfailovers
  verbs: [get, list, watch, patch]
# What people say to hooks that wait for them.
- apiGroups: [farshore.dev]
  resources: [approvals]
  verbs: [get, list, watch]
- apiGroups: [farshore.dev]
  resources:
    - failoverplans/status
    - failoverruns/status
    - processservers/status
    - protectedvms/status
    - recoveryvaults/status
    - replicationpolicies/status
    - sites/status
    - tasks/status
    - testfailovers/status
  verbs: [patch]
# Runs and tasks are the operator's own.
- apiGroups: [farshore.dev]
  resources: [failoverruns, tasks]
  verbs: [create, delete]
# Drills that a plan's schedule asks for, and the old ones of them.
- apiGroups: [farshore.dev]
  resources: [testfailovers]
  verbs: [create, delete]
# Passed on: a registrar creates the ProcessServer that it registers.
- apiGroups: [farshore.dev]
  resources: [processservers]
  verbs: [create]
# Logins, storage credentials and vault keys are checked by name, and passed on by name to the process servers that need
# them. None can be listed. The CA of a namespace is created.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create]
# An account with a Role for each process server and each site's registrar. An admission policy holds this to accounts
# of these names.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [serviceaccounts/token]
  verbs: [create]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, create, patch]
# Hooks of plans that run a Job. An admission policy holds this to Jobs of runs, without secrets and without an account
# that is not meant for hooks.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, create]
# Heartbeats: the operator makes the Lease, the process server renews it.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{ include "farshore.revisions" . }}
{{- end }}

{{/* What every role for people may read: all of our kinds, and what is told of them. */}}
{{- define "farshore.reads" -}}
- apiGroups: [farshore.dev]
  resources:
    - approvals
    - failoverplans
    - failoverruns
    - processservers
    - protectedvms
    - recoveryvaults
    - replicationpolicies
    - sites
    - tasks
    - testfailovers
  verbs: [get, list, watch]
{{- end }}

{{- define "farshore.revisions" -}}
# The Git revision of a plan, for the record of who asked for a run; nothing else is read of these.
- apiGroups: [kustomize.toolkit.fluxcd.io]
  resources: [kustomizations]
  verbs: [get]
- apiGroups: [helm.toolkit.fluxcd.io]
  resources: [helmreleases]
  verbs: [get]
- apiGroups: [argoproj.io]
  resources: [applications]
  verbs: [get]
{{- end }}
