"""The rights of registrars and process servers, as data. A ValidatingAdmissionPolicy of the chart narrows them further.

A process server reads the Secrets of the machines that it serves, and those of the vaults from which it may have to
recover machines, by name; it can list none.
"""

from __future__ import annotations

from collections.abc import Iterable

from farshore_operator.decide.actions import PolicyRule
from farshore_operator.decide.naming import appliance

GROUP = ("farshore.dev",)
CORE = ("",)
READ = ("get", "list", "watch")


def registrar_rules() -> tuple[PolicyRule, ...]:
    """Return what a registration key allows: to make a ProcessServer, see it, and put a request into its status."""
    return (
        PolicyRule(GROUP, ("processservers",), ("get", "create")),
        PolicyRule(GROUP, ("processservers/status",), ("patch",)),
    )


def appliance_rules(server: str, secrets: Iterable[str]) -> tuple[PolicyRule, ...]:
    """Return what a process server may do: read our resources, report, renew its Lease and token, read `secrets`."""
    readable = ("processservers", "protectedvms", "recoveryvaults", "replicationpolicies", "sites", "tasks")
    names = tuple(sorted(set(secrets)))
    rules = (
        PolicyRule(GROUP, readable, READ),
        PolicyRule(GROUP, ("processservers/status",), ("patch",), (server,)),
        PolicyRule(GROUP, ("protectedvms/status", "tasks/status"), ("patch",)),
        PolicyRule(("coordination.k8s.io",), ("leases",), ("get", "patch"), (server,)),
        PolicyRule(CORE, ("serviceaccounts/token",), ("create",), (appliance(server),)),
    )
    # A rule without names would allow every Secret.
    return (*rules, PolicyRule(CORE, ("secrets",), ("get",), names)) if names else rules
