"""The steps of a run for members that a service moves by itself (engine siteRecovery), and what it refuses."""

from __future__ import annotations

from farshore_operator.api.failoverplan import Mode, ShutdownSource
from farshore_operator.api.failoverrun import FailoverRunSpec, RunKind, RunMember
from farshore_operator.api.recoveryvault import Engine
from farshore_operator.decide.probes import asked_of
from farshore_operator.engines.capabilities import FACTS, LACKING, Capability

NEEDS = {
    RunKind.ABORT: Capability.ABORT,
    RunKind.REPROTECT: Capability.REPROTECT,
    RunKind.FAILBACK: Capability.FAILBACK,
}
"""What kinds of runs need of the engine."""


def by_service(member: RunMember | None) -> bool:
    """Tell whether the engine of a member moves it without process servers of ours."""
    return member is not None and Capability.OWN_SERVERS not in FACTS[engine(member)].capabilities


def engine(member: RunMember) -> Engine:
    """Return the engine that moves a member."""
    return Engine(member.engine) if member.engine else Engine.NATIVE


def lacking(spec: FailoverRunSpec, member: RunMember) -> tuple[Capability, ...]:
    """Return what a run wants of a member's engine that it cannot do."""
    wanted = [NEEDS[spec.kind]] if spec.kind in NEEDS else []
    if spec.kind is RunKind.FAILOVER and spec.mode is Mode.PLANNED:
        wanted.append(Capability.PLANNED_FAILOVER)
    elif spec.kind is RunKind.FAILOVER and spec.shutdown_source is ShutdownSource.REQUIRED:
        wanted.append(Capability.REQUIRED_SHUTDOWN)
    if spec.kind in (RunKind.FAILOVER, RunKind.TEST_FAILOVER, RunKind.CHANGE_POINT) and asked_of(spec, member):
        wanted.append(Capability.CHOSEN_PROBES)
    return tuple(one for one in wanted if one not in FACTS[engine(member)].capabilities)


def refusals(spec: FailoverRunSpec, member: RunMember) -> tuple[tuple[str, str], ...]:
    """Return each such thing by its name with what to do instead."""
    return tuple((one.value, LACKING[engine(member)][one]) for one in lacking(spec, member))
