"""Which objects must be looked at again when another one changes.

Only changes that a decision can see are passed on: an appliance that reports its throughput wakes none of its machines.
"""

from __future__ import annotations

import json
from collections.abc import Callable

from farshore_operator.handlers.queue import Key
from farshore_operator.kube.cache import Cache
from farshore_operator.kube.client import Json
from farshore_operator.kube.resources import (
    APPROVAL,
    FAILOVER_PLAN,
    FAILOVER_RUN,
    PROCESS_SERVER,
    PROTECTED_VM,
    RECOVERY_VAULT,
    REPLICATION_POLICY,
    SITE,
    TASK,
    TEST_FAILOVER,
)
from farshore_operator.observe.world import spec_ref


def relevant(body: Json | None) -> str:
    """Return what others can see of an object, to be compared with what it was; empty if it does not exist."""
    if body is None:
        return ""
    meta, status = body["metadata"], body.get("status") or {}
    appliance, registration = status.get("appliance") or {}, status.get("registration") or {}
    replication = status.get("replication") or {}
    facts = (
        meta.get("uid"),
        meta.get("generation"),
        meta.get("deletionTimestamp"),
        meta.get("labels"),
        status.get("phase"),
        status.get("assignment"),
        status.get("desired"),
        status.get("activeRun"),
        status.get("recovered"),
        status.get("activeSite"),
        status.get("standing"),
        (status.get("failoverReady") or {}).get("verdict") if isinstance(status.get("failoverReady"), dict) else None,
        status.get("steps"),
        registration.get("phase"),
        appliance.get("canRunMachines"),
        *((appliance.get("recovery") or {}).get(field) for field in ("qemu", "machines", "obstacles")),
        bool(replication.get("lastPoint")),
        replication.get("epoch"),
        (replication.get("lastPoint") or {}).get("epoch"),
    )
    return json.dumps(facts, sort_keys=True, default=str)


def dependents(cache: Cache, body: Json, kind: str) -> set[Key]:
    """Return the objects whose decisions look at this one."""
    found = _FANOUT[kind](cache, body) if kind in _FANOUT else set()
    return found - {Key(kind, body["metadata"]["namespace"], body["metadata"]["name"])}


def _key(kind: str, body: Json, name: str) -> set[Key]:
    return {Key(kind, body["metadata"]["namespace"], name)} if name else set()


def _keys(cache: Cache, kind: str, body: Json, test: Callable[[Json], bool] = lambda _: True) -> set[Key]:
    namespace = body["metadata"]["namespace"]
    return {Key(kind, namespace, other["metadata"]["name"]) for other in cache.select(kind, namespace, test)}


def _of_vm(cache: Cache, vm: Json) -> set[Key]:
    assignment = (vm.get("status") or {}).get("assignment") or {}
    name = vm["metadata"]["name"]
    found = _key(RECOVERY_VAULT.kind, vm, spec_ref(vm, "vaultRef"))
    found |= _key(REPLICATION_POLICY.kind, vm, spec_ref(vm, "policyRef"))
    found |= _key(SITE.kind, vm, spec_ref(vm, "source", "siteRef"))
    found |= _key(PROCESS_SERVER.kind, vm, assignment.get("processServer", ""))
    target = spec_ref(vm, "target", "siteRef")
    found |= _keys(cache, PROCESS_SERVER.kind, vm, lambda server: spec_ref(server, "siteRef") == target)
    found |= _keys(cache, FAILOVER_PLAN.kind, vm)
    found |= _keys(cache, TEST_FAILOVER.kind, vm, lambda drill: spec_ref(drill, "protectedVMRef") == name)
    if group := vm["spec"].get("consistencyGroup"):
        found |= _keys(cache, PROTECTED_VM.kind, vm, lambda other: other["spec"].get("consistencyGroup") == group)
    if len(cache.all(RECOVERY_VAULT.kind, vm["metadata"]["namespace"])) > 1:
        found |= _keys(cache, PROTECTED_VM.kind, vm, lambda other: _same_machine(vm, other))
    return found | _keys(cache, FAILOVER_RUN.kind, vm, lambda run: name in _members(run) and not _over(run))


def _same_machine(one: Json, other: Json) -> bool:
    """Tell whether two ProtectedVMs in different vaults are of one machine."""
    address = (one["spec"].get("source") or {}).get("address")
    same = bool(address) and (other["spec"].get("source") or {}).get("address") == address
    return same and spec_ref(one, "vaultRef") != spec_ref(other, "vaultRef")


def _of_server(cache: Cache, server: Json) -> set[Key]:
    name, site = server["metadata"]["name"], spec_ref(server, "siteRef")

    def concerns(vm: Json) -> bool:
        assignment = (vm.get("status") or {}).get("assignment") or {}
        sites = (spec_ref(vm, "source", "siteRef"), spec_ref(vm, "target", "siteRef"))
        return bool(assignment.get("processServer") == name or site in sites)

    return _key(SITE.kind, server, site) | _keys(cache, PROTECTED_VM.kind, server, concerns)


def _of_site(cache: Cache, site: Json) -> set[Key]:
    name = site["metadata"]["name"]
    sites = (("source", "siteRef"), ("target", "siteRef"))
    found = _keys(cache, PROTECTED_VM.kind, site, lambda vm: any(spec_ref(vm, *path) == name for path in sites))
    return found | _keys(cache, PROCESS_SERVER.kind, site, lambda server: spec_ref(server, "siteRef") == name)


def _of_vault(cache: Cache, vault: Json) -> set[Key]:
    name = vault["metadata"]["name"]
    refs = ("vaultRef", "switchTo")
    return _keys(cache, PROTECTED_VM.kind, vault, lambda vm: any(spec_ref(vm, ref) == name for ref in refs))


def _of_policy(cache: Cache, policy: Json) -> set[Key]:
    name = policy["metadata"]["name"]
    return _keys(cache, PROTECTED_VM.kind, policy, lambda vm: spec_ref(vm, "policyRef") == name)


def _of_plan(cache: Cache, plan: Json) -> set[Key]:
    name, uid = plan["metadata"]["name"], plan["metadata"].get("uid")
    found = _keys(cache, TEST_FAILOVER.kind, plan, lambda drill: spec_ref(drill, "planRef") == name)
    # A failed run is cleaned up when its plan is set back, and has nothing else that wakes it.
    return found | _keys(cache, FAILOVER_RUN.kind, plan, lambda run: (run["spec"].get("owner") or {}).get("uid") == uid)


def _of_run(cache: Cache, run: Json) -> set[Key]:
    owner = run["spec"].get("owner") or {}
    found = _key(owner["kind"], run, owner.get("name", "")) if owner.get("kind") in _OWNERS else set()
    for member in _members(run):
        found |= _key(PROTECTED_VM.kind, run, member)
    return (
        found | _keys(cache, FAILOVER_PLAN.kind, run) | _key(FAILOVER_RUN.kind, run, run["spec"].get("previousRun", ""))
    )


def _of_task(cache: Cache, task: Json) -> set[Key]:
    found = _key(PROCESS_SERVER.kind, task, task["spec"].get("processServer", ""))
    if not task["spec"].get("run"):
        found |= _key(PROTECTED_VM.kind, task, task["spec"].get("protectedVM", ""))
    return found | _key(FAILOVER_RUN.kind, task, task["spec"].get("run", ""))


def _of_approval(cache: Cache, approval: Json) -> set[Key]:
    return _key(FAILOVER_RUN.kind, approval, approval["spec"].get("run", ""))


def _of_drill(cache: Cache, drill: Json) -> set[Key]:
    plan = _key(FAILOVER_PLAN.kind, drill, spec_ref(drill, "planRef"))
    return plan | _key(
        FAILOVER_RUN.kind, drill, (drill.get("status") or {}).get("run", "") or drill["metadata"]["name"]
    )


def _members(run: Json) -> set[str]:
    return {member["protectedVM"] for member in run["spec"].get("members", [])}


def _over(run: Json) -> bool:
    return (run.get("status") or {}).get("phase") in ("Succeeded", "Failed", "Aborted", "CleanedUp")


_OWNERS = (FAILOVER_PLAN.kind, TEST_FAILOVER.kind)
_FANOUT: dict[str, Callable[[Cache, Json], set[Key]]] = {
    PROTECTED_VM.kind: _of_vm,
    PROCESS_SERVER.kind: _of_server,
    SITE.kind: _of_site,
    RECOVERY_VAULT.kind: _of_vault,
    REPLICATION_POLICY.kind: _of_policy,
    FAILOVER_PLAN.kind: _of_plan,
    FAILOVER_RUN.kind: _of_run,
    TASK.kind: _of_task,
    APPROVAL.kind: _of_approval,
    TEST_FAILOVER.kind: _of_drill,
}
