"""The FailoverPlans of a vault's namespace as wishes for recovery plans, read from the operator's cache."""

from __future__ import annotations

from farshore_operator.api import FailoverPlan, ProtectedVM, RecoveryVault
from farshore_operator.api.recoveryvault import Engine
from farshore_operator.engines.siterecovery.planwishes import PlannedMachine, plan_wish
from farshore_operator.engines.siterecovery.wishes import PlanWish
from farshore_operator.kube.cache import Cache


def plan_wishes(cache: Cache, vault: RecoveryVault, *, wanted: bool) -> tuple[PlanWish, ...]:
    """Return what the FailoverPlans ask of a vault; `wanted` False withdraws all of it."""
    namespace, name = vault.metadata.namespace, vault.metadata.name
    engines = {
        body["metadata"]["name"]: RecoveryVault.of(body).spec.engine
        for body in cache.all(RecoveryVault.definition.kind, namespace)
    }
    machines = [ProtectedVM.of(body) for body in cache.all(ProtectedVM.definition.kind, namespace)]
    found = []
    for body in cache.all(FailoverPlan.definition.kind, namespace):
        plan = FailoverPlan.of(body)
        members = _members(plan, machines, engines) if wanted else {}
        wish = plan_wish(plan, members, name)
        if wish is not None:
            found.append(wish)
    return tuple(sorted(found, key=lambda one: one.name))


def _members(
    plan: FailoverPlan, machines: list[ProtectedVM], engines: dict[str, Engine]
) -> dict[str, tuple[PlannedMachine, ...]]:
    """Return the machines of a plan by group, each in the first group that means it, as a run takes them."""
    taken: set[str] = set()
    found: dict[str, tuple[PlannedMachine, ...]] = {}
    for group in plan.spec.groups:
        chosen = []
        for member in group.members:
            for vm in sorted(machines, key=lambda one: one.metadata.name):
                if vm.metadata.name not in taken and member.means(vm.metadata.name, vm.metadata.labels):
                    taken.add(vm.metadata.name)
                    chosen.append(vm)
        found[group.name] = tuple(_planned(vm, engines) for vm in chosen)
    return found


def _planned(vm: ProtectedVM, engines: dict[str, Engine]) -> PlannedMachine:
    """Return a machine with its vault: the one that it moves to, once that is asked for."""
    refs = [ref.name for ref in (vm.spec.vault_ref, vm.spec.switch_to) if ref is not None]
    driven = [name for name in refs if engines.get(name) is Engine.SITE_RECOVERY]
    return PlannedMachine(vm.metadata.name, refs[-1] if driven == refs else refs[0], refs[0] in driven)
