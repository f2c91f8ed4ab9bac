"""Names the API resources that Farshore touches, and how their paths are spelled."""

from __future__ import annotations

from dataclasses import dataclass

GROUP = "farshore.dev"
VERSION = "v1alpha1"


@dataclass(frozen=True)
class Resource:
    """A namespaced resource of the API."""

    group: str
    version: str
    plural: str
    kind: str

    @property
    def api_version(self) -> str:
        """Group and version as manifests spell them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None, name: str = "", subresource: str = "") -> str:
        """Return the URL path of an object, of a namespace's list, or (namespace None) of the cluster's list."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if namespace else ""
        return "/".join(part for part in (f"{root}{scope}/{self.plural}", name, subresource) if part)


def _ours(plural: str, kind: str) -> Resource:
    return Resource(GROUP, VERSION, plural, kind)


RECOVERY_VAULT = _ours("recoveryvaults", "RecoveryVault")
SITE = _ours("sites", "Site")
PROCESS_SERVER = _ours("processservers", "ProcessServer")
REPLICATION_POLICY = _ours("replicationpolicies", "ReplicationPolicy")
PROTECTED_VM = _ours("protectedvms", "ProtectedVM")
FAILOVER_PLAN = _ours("failoverplans", "FailoverPlan")
TEST_FAILOVER = _ours("testfailovers", "TestFailover")
FAILOVER_RUN = _ours("failoverruns", "FailoverRun")
TASK = _ours("tasks", "Task")
APPROVAL = _ours("approvals", "Approval")

WATCHED = (
    RECOVERY_VAULT,
    SITE,
    PROCESS_SERVER,
    REPLICATION_POLICY,
    PROTECTED_VM,
    FAILOVER_PLAN,
    TEST_FAILOVER,
    FAILOVER_RUN,
    TASK,
    APPROVAL,
)
BY_KIND = {resource.kind: resource for resource in WATCHED}

JOB = Resource("batch", "v1", "jobs", "Job")
SECRET = Resource("", "v1", "secrets", "Secret")
SERVICE_ACCOUNT = Resource("", "v1", "serviceaccounts", "ServiceAccount")
ROLE = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDING = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
LEASE = Resource("coordination.k8s.io", "v1", "leases", "Lease")
KUSTOMIZATION = Resource("kustomize.toolkit.fluxcd.io", "v1", "kustomizations", "Kustomization")
HELM_RELEASE = Resource("helm.toolkit.fluxcd.io", "v2", "helmreleases", "HelmRelease")
APPLICATION = Resource("argoproj.io", "v1alpha1", "applications", "Application")
EVENT = Resource("events.k8s.io", "v1", "events", "Event")
