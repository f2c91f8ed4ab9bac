"""Finds the other ProtectedVMs of a machine: the same address and port at the same site, in another vault."""

from __future__ import annotations

from farshore_operator.api import FailoverRun, ProtectedVM, RecoveryVault
from farshore_operator.api.failoverrun import RunKind
from farshore_operator.api.protectedvm import DeletionPolicy, Place, Verdict
from farshore_operator.api.recoveryvault import Engine
from farshore_operator.decide import lifecycle
from farshore_operator.decide.machineruns import UNDER_WAY, ordered
from farshore_operator.decide.twins import Twin
from farshore_operator.kube.client import Json
from farshore_operator.observe.world import World


def of_vm(world: World, vm: ProtectedVM) -> tuple[Twin, ...]:
    """Return them, by name."""
    source, name = vm.spec.source, vm.metadata.name
    if len(world.cache.all(RecoveryVault.definition.kind, vm.metadata.namespace)) < 2:
        return ()  # thousands of machines need not be looked through

    def same(body: Json) -> bool:
        there = body["spec"]["source"].get("address") == source.address
        return bool(there and body["metadata"]["name"] != name)

    return tuple(
        _twin(world, one)
        for one in world.all(ProtectedVM, vm.metadata.namespace, same)
        if (one.spec.source.site_ref, one.spec.source.port) == (source.site_ref, source.port)
        and one.spec.vault_ref != vm.spec.vault_ref
    )


def _twin(world: World, vm: ProtectedVM) -> Twin:
    namespace, name = vm.metadata.namespace, vm.metadata.name
    vault = world.find(RecoveryVault, namespace, vm.spec.vault_ref.name)

    def mine(body: Json) -> bool:
        return any(member["protectedVM"] == name for member in body["spec"].get("members", []))

    runs = ordered(world.all(FailoverRun, namespace, mine))
    moving = [run for run in runs if run.spec.kind is not RunKind.TEST_FAILOVER and run.status.phase in UNDER_WAY]
    standing, ready = lifecycle.life(vm, runs).standing, vm.status.failover_ready
    moved_by = (standing.run or "an earlier run") if standing.place is not Place.SOURCE else ""
    return Twin(
        name,
        engine=vault.spec.engine.value if vault is not None else "",
        made_at=vm.metadata.creation_timestamp,
        ready=ready is not None and ready.verdict is Verdict.READY,
        moved_by=moving[-1].metadata.name if moving else moved_by,
        leaving=vm.metadata.deletion_timestamp is not None,
        retained=vault is not None
        and vault.spec.engine is Engine.SITE_RECOVERY
        and vm.spec.deletion_policy is DeletionPolicy.RETAIN,
    )
