"""What is worth an Event: the transitions of an object's phase and conditions, found by comparing two statuses."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from farshore_operator.api.resource import Condition, ConditionStatus, ResourceStatus
from farshore_operator.report.conditions import READY, RECONCILING, STALLED


class EventType(StrEnum):
    """What `kubectl describe` shows in its first column."""

    NORMAL = "Normal"
    WARNING = "Warning"


@dataclass(frozen=True)
class Happening:
    """An event to be told: `reason` and `action` are CamelCase words, `note` a sentence without secrets."""

    type: EventType
    reason: str
    note: str
    action: str = "Reconcile"


def transitions(before: ResourceStatus | None, after: ResourceStatus) -> tuple[Happening, ...]:
    """Return what happened between two statuses of one object."""
    found: list[Happening] = []
    old_phase, new_phase = (_phase(status) for status in (before, after))
    if new_phase and old_phase != new_phase:
        note = f"phase is now {new_phase}" + (f", was {old_phase}" if old_phase else "")
        found.append(Happening(EventType.NORMAL, "PhaseChanged", note))
    for condition in after.conditions:
        old = before.condition(condition.type) if before else None
        happening = _of_condition(old, condition)
        if happening is not None:
            found.append(happening)
    return tuple(found)


def _of_condition(old: Condition | None, new: Condition) -> Happening | None:
    changed = old is None or (old.status, old.reason) != (new.status, new.reason)
    if not changed or new.status is ConditionStatus.UNKNOWN:
        return None
    holds = new.status is ConditionStatus.TRUE
    if new.type == STALLED:
        return Happening(EventType.WARNING, new.reason, new.message) if holds else None
    if new.type == RECONCILING:
        return None  # the phase and the other conditions tell it
    if new.type == READY:
        return Happening(EventType.NORMAL, new.reason, new.message or "it is ready") if holds else None
    was_true = old is not None and old.status is ConditionStatus.TRUE
    if holds:
        return Happening(EventType.NORMAL, new.type, new.message or new.reason)
    return Happening(EventType.WARNING, new.reason, f"{new.type} no longer holds: {new.message}") if was_true else None


def _phase(status: ResourceStatus | None) -> str:
    phase = getattr(status, "phase", None)
    return str(phase) if phase else ""
