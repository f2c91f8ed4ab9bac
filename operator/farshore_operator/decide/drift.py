"""What differs between a plan, the run that it froze, and the machines that there are.

A selector takes in machines that come later until a run starts. After that they are not moved, and nobody would notice:
so the plan tells which machines it means and its run does not, the other way round, and which are in no plan at all.
"""

from __future__ import annotations

from collections.abc import Iterable

from farshore_operator.api import FailoverRun
from farshore_operator.api.failoverrun import RunKind
from farshore_operator.api.planstatus import Drift
from farshore_operator.decide.planview import ObservedPlan

NAMED = 5


def drift(observed: ObservedPlan, run: FailoverRun | None) -> Drift | None:
    """Return what differs; `run` is the one that is under way or awaits its commit. None if nothing does."""
    now = {chosen.observed.vm.metadata.name for chosen in observed.machines}
    frozen = now
    own = run is not None and run.spec.owner.uid == observed.plan.metadata.uid
    if run is not None and own and run.spec.kind is not RunKind.TEST_FAILOVER:
        frozen = {member.protected_vm for member in run.spec.members}
    found = Drift(joined=_sorted(now - frozen), left=_sorted(frozen - now), unplanned=_sorted(observed.unplanned))
    return found if found.joined or found.left or found.unplanned else None


def told(found: Drift | None) -> str:
    """Return a sentence on what a run and its plan do not share; empty if nothing."""
    if found is None:
        return ""
    parts = []
    if found.joined:
        parts.append(f"{_names(found.joined)} came after the run had started, and is not moved by it")
    if found.left:
        parts.append(f"{_names(found.left)} is moved by the run, and no longer in the plan")
    return "; ".join(parts)


def _sorted(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(names))[:1000]


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
