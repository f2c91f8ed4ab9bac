"""Freezes the inputs of a run: once written, no edit and no revert changes what the run does."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from farshore_operator.api import FailoverPlan
from farshore_operator.api.failoverplan import Mode, Overrides, ShutdownSource
from farshore_operator.api.failoverrun import FailoverRunSpec, Owner, RunGroup, RunKind, RunMember
from farshore_operator.api.hook import Hooks
from farshore_operator.api.probe import Probe
from farshore_operator.api.recoveryvault import Engine
from farshore_operator.api.resource import Resource
from farshore_operator.api.site import Provider
from farshore_operator.decide import machineruns
from farshore_operator.decide.cloudtarget import cloud_target
from farshore_operator.decide.naming import MACHINE_NAME_LENGTH, bounded, machine_id
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.readiness import recovery_server

AS_PLANNED = Overrides()
"""Nothing is different for a machine."""
LOCAL_PREFIX = 24
"""Bits of the networks that a process server makes on its host."""


@dataclass(frozen=True)
class Choices:
    """What the plan or the drill chose for the run."""

    kind: RunKind
    recovery_point: str
    shutdown_source: ShutdownSource = ShutdownSource.NEVER
    network: str | None = None
    probes: tuple[Probe, ...] = ()
    previous_run: str | None = None
    mode: Mode = Mode.UNPLANNED
    groups: tuple[RunGroup, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """A machine of the run, the group of the plan that it is in, and what the plan has different for it."""

    observed: ObservedVM
    group: str | None = None
    overrides: Overrides = AS_PLANNED


def freeze(owner: Resource, run: str, choices: Choices, machines: Sequence[Chosen]) -> FailoverRunSpec:
    """Return the spec of a run; every machine must have a process server that can recover it."""
    meta = owner.metadata
    spec = FailoverRunSpec(
        kind=choices.kind,
        owner=Owner(kind=owner.definition.kind, name=meta.name, uid=meta.uid, generation=meta.generation),
        inputs_hash="",
        recovery_point=choices.recovery_point,
        shutdown_source=choices.shutdown_source,
        members=tuple(_member(chosen, run, choices) for chosen in machines),
        probes=choices.probes,
        previous_run=choices.previous_run,
        mode=choices.mode,
        groups=choices.groups,
        sequence=0 if choices.kind is RunKind.TEST_FAILOVER else next_sequence(machines),
    )
    return hashed(spec)


def hashed(spec: FailoverRunSpec) -> FailoverRunSpec:
    """Return the spec with the hash of all its inputs."""
    text = json.dumps(spec.model_copy(update={"inputs_hash": ""}).dump(), sort_keys=True)
    return spec.model_copy(update={"inputs_hash": hashlib.sha256(text.encode()).hexdigest()[:16]})


def next_sequence(machines: Sequence[Chosen]) -> int:
    """Return the number of the next run in the life of these machines."""
    known = [run.spec.sequence for chosen in machines for run in chosen.observed.runs]
    known += [machineruns.life(chosen.observed).standing.sequence for chosen in machines]
    return max(known, default=0) + 1


def drill_groups_of(plan: FailoverPlan) -> tuple[RunGroup, ...]:
    """Return the groups of a plan as a drill keeps them: with those of their hooks that are for drills too."""

    def kept(hooks: Hooks) -> Hooks:
        return tuple(hook for hook in hooks if hook.in_drills)

    return tuple(
        group.model_copy(update={"before": kept(group.before), "after": kept(group.after)}) for group in groups_of(plan)
    )


def groups_of(plan: FailoverPlan) -> tuple[RunGroup, ...]:
    """Return the groups of a plan as a run keeps them."""
    return tuple(
        RunGroup(
            name=group.name,
            max_parallel=group.max_parallel,
            before=group.before,
            after=group.after,
            probes=group.probes,
        )
        for group in plan.spec.groups
    )


def _member(chosen: Chosen, run: str, choices: Choices) -> RunMember:
    observed, own = chosen.observed, chosen.overrides
    vm, target = observed.vm, observed.vm.spec.target
    meta, assignment = vm.metadata, vm.status.assignment
    defaults = observed.target_site.spec.defaults if observed.target_site else None
    server = recovery_server(observed)
    network = _network(chosen, run, choices)
    return RunMember(
        protected_vm=meta.name,
        uid=meta.uid,
        generation=meta.generation,
        machine_id=machine_id(meta.namespace, meta.name),
        vault=vm.spec.vault_ref.name,
        group=chosen.group,
        source_site=vm.spec.source.site_ref.name,
        target_site=target.site_ref.name,
        source_process_server=assignment.process_server if assignment else None,
        process_server=server.name if server else "",
        epoch=max(assignment.epoch if assignment else 0, _vault_epoch(observed), machineruns.fenced(observed)),
        source_machine=vm.spec.source.machine or meta.name,
        target_name=_target_name(observed, run, choices.kind),
        network=network,
        address=_private_address(observed, choices.kind),
        cpus=own.cpus or target.cpus or (defaults.cpus if defaults else None),
        memory=own.memory or target.memory or (defaults.memory if defaults else None),
        size=own.size or target.size or (defaults.size if defaults else None),
        recovery_point=own.recovery_point,
        engine=engine_of(observed),
        **_cloud(chosen, run, choices.kind, network),
    )


def _cloud(chosen: Chosen, run: str, kind: RunKind, network: str | None) -> dict[str, Any]:
    """Return what a member has in addition where it is recovered in a cloud: nothing elsewhere."""
    site, drill = chosen.observed.target_site, kind is RunKind.TEST_FAILOVER
    target = None
    if site is not None:
        target = cloud_target(chosen.observed.vm, site, chosen.overrides, network=network or "", drill=drill)
    if site is None or target is None:
        return {}
    isolated = drill and network == _own_network(run)
    return {"provider": site.spec.provider.value, "target": target.model_copy(update={"isolated": isolated})}


def engine_of(observed: ObservedVM) -> str | None:
    """Return the engine that moves a machine, None for native."""
    engine = observed.vault.spec.engine if observed.vault is not None else Engine.NATIVE
    return None if engine is Engine.NATIVE else engine.value


def _vault_epoch(observed: ObservedVM) -> int:
    report = observed.vm.status.replication
    return report.vault_epoch if report else 0


def _target_name(observed: ObservedVM, run: str, kind: RunKind) -> str:
    """Name the recovered machine: as the manifest says, or in a drill so that no two drills meet."""
    vm = observed.vm
    name = vm.spec.target.name or vm.metadata.name
    if kind is RunKind.TEST_FAILOVER:
        name = f"{name}-{run}"
    return bounded(name.lower(), MACHINE_NAME_LENGTH)


def _private_address(observed: ObservedVM, kind: RunKind) -> str | None:
    """Return the address that the machine shall have, with the prefix length of its site's addresses, or 24.

    A provider that gives its machines their addresses itself tells them by DHCP.
    """
    wanted, site = observed.vm.spec.target.private_ip, observed.target_site
    if wanted is None or kind is RunKind.TEST_FAILOVER or site is None or site.spec.provider is not Provider.LOCAL:
        return None
    pool = site.spec.local.address_pool if site.spec.local else None
    network = ipaddress.ip_network(pool, strict=False) if pool else None
    known = network is not None and ipaddress.ip_address(wanted) in network
    return f"{wanted}/{network.prefixlen if network is not None and known else LOCAL_PREFIX}"


def _network(chosen: Chosen, run: str, choices: Choices) -> str | None:
    """Choose the network; a drill without one gets its own, so that it cannot meet what runs."""
    observed = chosen.observed
    if choices.kind is not RunKind.TEST_FAILOVER and chosen.overrides.network:
        return chosen.overrides.network
    if choices.network:
        return choices.network
    site, target = observed.target_site, observed.vm.spec.target
    if choices.kind is RunKind.TEST_FAILOVER:
        return (site.spec.drill_network if site else None) or _own_network(run)
    defaults = site.spec.defaults if site else None
    return target.network or (defaults.network if defaults else None)


def _own_network(run: str) -> str:
    """Name the network that is made for a drill alone."""
    return bounded(f"drill-{run}", MACHINE_NAME_LENGTH)
