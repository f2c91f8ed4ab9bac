"""Conditions: the one place that knows transition times, observed generations, and how kstatus reads an object.

Deciders state what they see (`Seen`); `settle` turns that into conditions, and keeps the time of what did not change.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from farshore_engine.contract.faults import Fault, WaitFault
from farshore_operator.api.resource import Condition, ConditionStatus

READY = "Ready"
RECONCILING = "Reconciling"
STALLED = "Stalled"
KSTATUS = (READY, RECONCILING, STALLED)


class Health(StrEnum):
    """How kstatus, Flux and Argo CD should read an object."""

    READY = "Ready"  # all is as declared, or it waits for a person as designed
    RECONCILING = "Reconciling"  # time or another object will change it
    STALLED = "Stalled"  # nothing will change without a person


@dataclass(frozen=True)
class Verdict:
    """The health of an object, with a reason (CamelCase) and a sentence: what, where, what next, when retried."""

    health: Health
    reason: str
    message: str = ""


@dataclass(frozen=True)
class Seen:
    """One condition as a decider sees it; `holds` None for unknown."""

    type: str
    holds: bool | None
    reason: str
    message: str = ""


def ready(reason: str = "AsDeclared", message: str = "everything is as declared") -> Verdict:
    """Return the verdict that all is well."""
    return Verdict(Health.READY, reason, message)


def waiting(reason: str, message: str) -> Verdict:
    """Return the verdict that time or another object will help."""
    return Verdict(Health.RECONCILING, reason, message)


def stalled(reason: str, message: str) -> Verdict:
    """Return the verdict that a person is needed."""
    return Verdict(Health.STALLED, reason, message)


def of_fault(fault: Fault) -> Verdict:
    """Return the verdict that a fault means."""
    wait = isinstance(fault, WaitFault)
    return Verdict(Health.RECONCILING if wait else Health.STALLED, fault.reason, str(fault))


def settle(
    previous: Iterable[Condition], verdict: Verdict, seen: Iterable[Seen], generation: int, now: datetime
) -> tuple[Condition, ...]:
    """Return all conditions of an object: the three of kstatus, then its own in the order given.

    A condition whose status did not change keeps its transition time; those not seen any more disappear.
    """
    old = {condition.type: condition for condition in previous}
    moment = now.astimezone(UTC).replace(microsecond=0)
    return tuple(_settle_one(old.get(one.type), one, generation, moment) for one in (*_kstatus(verdict), *seen))


def _kstatus(verdict: Verdict) -> tuple[Seen, Seen, Seen]:
    def abnormal(type_: str, health: Health) -> Seen:
        if verdict.health is health:
            return Seen(type_, True, verdict.reason, verdict.message)
        return Seen(type_, False, verdict.reason, "")

    return (
        Seen(READY, verdict.health is Health.READY, verdict.reason, verdict.message),
        abnormal(RECONCILING, Health.RECONCILING),
        abnormal(STALLED, Health.STALLED),
    )


def _settle_one(old: Condition | None, seen: Seen, generation: int, now: datetime) -> Condition:
    status = {True: ConditionStatus.TRUE, False: ConditionStatus.FALSE, None: ConditionStatus.UNKNOWN}[seen.holds]
    return Condition(
        type=seen.type,
        status=status,
        observed_generation=generation,
        last_transition_time=old.last_transition_time if old is not None and old.status is status else now,
        reason=seen.reason,
        message=seen.message[:8000],
    )
