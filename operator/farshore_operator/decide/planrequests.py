"""The verdicts on `abort` and `changeRecoveryPoint`: made once, when their value is first seen, and kept in the status.

Each names the run that it means. A value that names another run does nothing, now and later.
"""

from __future__ import annotations

from farshore_operator.api import FailoverRun
from farshore_operator.api.failoverrun import RunKind, RunPhase
from farshore_operator.api.planstatus import SeenRequest
from farshore_operator.decide import planview
from farshore_operator.decide.planview import MOVES, ObservedPlan
from farshore_operator.engines.capabilities import Capability

ABORT = "abort"
CHANGE = "changeRecoveryPoint"


def judge(observed: ObservedPlan, unread: str = "") -> tuple[SeenRequest, ...]:
    """Return the verdicts on what the plan asks for now; those in the status unless the value is new.

    `unread` says what of the machines is not known yet; until it is, whatever is new is refused.
    """
    spec = observed.plan.spec
    asked = {}
    if spec.abort:
        asked[ABORT] = (spec.abort, spec.abort)
    if spec.change_recovery_point is not None:
        change = spec.change_recovery_point
        asked[CHANGE] = (f"{change.run} {change.point}", change.run)
    return tuple(_judged(observed, field, value, run, unread) for field, (value, run) in asked.items())


def accepted(observed: ObservedPlan, requests: tuple[SeenRequest, ...], field: str) -> SeenRequest | None:
    """Return the request of a field if it was accepted, and the verdict is in the status already."""
    found = next((request for request in requests if request.field == field and request.accepted), None)
    return found if found is not None and found in observed.plan.status.requests else None


def refused(requests: tuple[SeenRequest, ...]) -> str:
    """Say what was refused and why, empty if nothing was."""
    return "; ".join(request.message or "" for request in requests if not request.accepted)


def _judged(observed: ObservedPlan, field: str, value: str, run: str, unread: str) -> SeenRequest:
    known = next((one for one in observed.plan.status.requests if one.field == field and one.value == value), None)
    if known is not None:
        return known
    meant = planview.find(observed, run)
    why = unread or (_no_abort(observed, meant, run) if field == ABORT else _no_change(observed, meant, run))
    generation = observed.plan.metadata.generation
    text = f"spec.{field} does nothing: {why}" if why else None
    return SeenRequest(field=field, value=value, generation=generation, accepted=not why, run=run, message=text)


def _no_abort(observed: ObservedPlan, run: FailoverRun | None, name: str) -> str:
    if run is None or run.spec.kind not in MOVES:
        return f"{name} is no failover or failback of this plan"
    lacks = planview.refused(observed, Capability.ABORT)
    if lacks is not None:
        return f"{lacks.reason}: {lacks.message}"
    newest = planview.newest(observed, *MOVES)
    if newest is not run:
        return f"{name} is not the plan's last run, which is {newest.metadata.name if newest else 'none'}"
    if planview.undone(observed, run):
        return f"{name} was undone already"
    if run.status.phase is RunPhase.SUCCEEDED and planview.awaiting(observed) is not run:
        return f"{name} is committed, which is final"
    return _unreachable(observed, run)


def _no_change(observed: ObservedPlan, run: FailoverRun | None, name: str) -> str:
    current = planview.awaiting(observed)
    if run is None or current is not run:
        other = f"that is {current.metadata.name}" if current is not None else "there is none"
        return f"{name} is not the run that awaits its commit ({other})"
    if RunKind.FAILBACK in (run.spec.kind, run.spec.undoes):
        return f"{name} is a failback, which has brought back the last change"
    busy = planview.under_way(observed)
    if busy is not None:
        return f"run {busy.metadata.name} is under way: set it again when that is over"
    return ""


def _unreachable(observed: ObservedPlan, run: FailoverRun) -> str:
    """Say which process server is missing without which the only machine there is would be given away."""
    servers = {server.name: server for chosen in observed.machines for server in chosen.observed.servers}
    for member in run.spec.members:
        server = servers.get(member.source_process_server or "")
        if server is None or not server.connected:
            which = member.source_process_server or f"of site {member.source_site}"
            return (
                f"process server {which} is not connected, so {member.protected_vm} could not be started at site "
                f"{member.source_site}, and the recovered machine is the only one. Start it, then remove spec.abort "
                "and set it again"
            )
    return ""
