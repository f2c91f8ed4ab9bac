"""What holds for the status of every object at every moment; numbered, and asserted by every test with a cluster.

1. The three kstatus conditions are there once the operator has seen the object.
2. Ready=True means Reconciling and Stalled are False.
3. Reconciling and Stalled are never both True.
4. Ready other than True means that Reconciling or Stalled is True: somebody or something is waited for.
5. No condition type appears twice.
6. No condition speaks of a generation that does not exist yet, and Ready=True only of observedGeneration.
7. No transition lies in the future.
8. What is not Ready says why, with a reason in CamelCase.
"""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from farshore_operator.api.resource import Condition, ConditionStatus, Resource, ResourceStatus
from farshore_operator.report.conditions import KSTATUS, READY, RECONCILING, STALLED

CLOCK_TOLERANCE = timedelta(seconds=5)


def violations(resource: Resource, status: ResourceStatus | None, now: datetime) -> list[str]:
    """Return each invariant that the status breaks, by number and in words; empty if it breaks none.

    A status without conditions is one that the operator has not seen, and breaks nothing.
    """
    if status is None or not status.conditions:
        return []
    by_type = {condition.type: condition for condition in status.conditions}
    missing = [type_ for type_ in KSTATUS if type_ not in by_type]
    if missing:
        return [f"1: {', '.join(missing)} is missing"]
    found = _kstatus(by_type)
    if len(by_type) != len(status.conditions):
        found.append("5: a condition type appears twice")
    if (status.observed_generation or 0) > resource.metadata.generation:
        found.append("6: observedGeneration is ahead of the generation")
    for condition in status.conditions:
        found += _one(condition, resource.metadata.generation, now)
    ready = by_type[READY]
    if _true(ready) and ready.observed_generation != status.observed_generation:
        found.append("6: Ready=True speaks of another generation than observedGeneration")
    return found


def _kstatus(by_type: dict[str, Condition]) -> list[str]:
    ready, reconciling, stalled = (_true(by_type[type_]) for type_ in (READY, RECONCILING, STALLED))
    found = []
    if ready and (reconciling or stalled):
        found.append("2: Ready=True beside Reconciling or Stalled")
    if reconciling and stalled:
        found.append("3: Reconciling and Stalled are both True")
    if not ready and not reconciling and not stalled:
        found.append("4: not Ready, but neither Reconciling nor Stalled")
    if not ready and not by_type[READY].message:
        found.append("8: not Ready, and no message says why")
    return found


def _one(condition: Condition, generation: int, now: datetime) -> list[str]:
    found = []
    if (condition.observed_generation or 0) > generation:
        found.append(f"6: {condition.type} speaks of a generation that does not exist yet")
    if condition.last_transition_time > now + CLOCK_TOLERANCE:
        found.append(f"7: {condition.type} changes in the future")
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", condition.reason):
        found.append(f"8: the reason {condition.reason!r} of {condition.type} is not one CamelCase word")
    return found


def _true(condition: Condition) -> bool:
    return condition.status is ConditionStatus.TRUE
