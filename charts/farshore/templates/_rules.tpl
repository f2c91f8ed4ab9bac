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
# Heartbeats: the operator makes the Lease, the process server renews it.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [get, list, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
