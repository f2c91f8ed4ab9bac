"""A plan as decisions see it: where its machines run, which run is under way, and which one can still be undone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from farshore_operator.api import FailoverPlan, FailoverRun, TestFailover
from farshore_operator.api.failoverplan import ActiveSite
from farshore_operator.api.failoverrun import RequestedBy, RunKind, RunPhase
from farshore_operator.api.protectedvm import Place
from farshore_operator.decide import lifecycle, machineruns, twins
from farshore_operator.decide.protection import refuses
from farshore_operator.decide.references import Problem
from farshore_operator.decide.runspec import Chosen
from farshore_operator.engines.capabilities import Capability

MOVES = (RunKind.FAILOVER, RunKind.CHANGE_POINT, RunKind.FAILBACK)
ACTIVE = (None, RunPhase.PENDING, RunPhase.RUNNING)


@dataclass(frozen=True)
class ObservedPlan:
    """A plan, its machines in order, references that do not resolve, and its runs, oldest first.

    `requests` says who wrote each field that can ask for a run; `unplanned` are the machines of the namespace that no
    plan means; `drills` are those that its schedule has made.
    """

    plan: FailoverPlan
    machines: tuple[Chosen, ...]
    problems: tuple[Problem, ...]
    runs: tuple[FailoverRun, ...]
    requests: Mapping[str, RequestedBy] = field(default_factory=dict)
    unplanned: frozenset[str] = frozenset()
    drills: tuple[TestFailover, ...] = ()


def active_site(observed: ObservedPlan) -> ActiveSite:
    """Return where the machines run: at the recovery site as soon as one of them does."""
    moved = [machineruns.life(chosen.observed).at_recovery for chosen in observed.machines]
    return ActiveSite.RECOVERY if any(moved) else ActiveSite.SOURCE


def find(observed: ObservedPlan, name: str | None) -> FailoverRun | None:
    """Return a run of the plan by its name."""
    return next((run for run in observed.runs if run.metadata.name == name), None)


def newest(observed: ObservedPlan, *kinds: RunKind) -> FailoverRun | None:
    """Return the newest run of some kinds, of all but drills if none is given."""
    return next(
        (
            run
            for run in reversed(observed.runs)
            if run.spec.kind in kinds or (not kinds and run.spec.kind is not RunKind.TEST_FAILOVER)
        ),
        None,
    )


def under_way(observed: ObservedPlan) -> FailoverRun | None:
    """Return the run that is neither over nor a drill; also one that is not of this plan but moves its machines."""
    own = next(
        (
            run
            for run in reversed(observed.runs)
            if run.spec.kind is not RunKind.TEST_FAILOVER and run.status.phase in ACTIVE
        ),
        None,
    )
    others = (machineruns.moving(chosen.observed) for chosen in observed.machines)
    return own or next((run for run in others if run is not None and run.status.phase in ACTIVE), None)


def refused(observed: ObservedPlan, wanted: Capability) -> Problem | None:
    """Return what the engine of one of the machines cannot do, None if all can."""
    return next(filter(None, (refuses(chosen.observed, wanted) for chosen in observed.machines)), None)


def twice(observed: ObservedPlan) -> Problem | None:
    """Return that the plan means one machine as two objects."""
    planned = names(observed)
    found = (twins.twice(one.observed.vm.metadata.name, one.observed.twins, planned) for one in observed.machines)
    return next(filter(None, found), None)


def names(observed: ObservedPlan) -> frozenset[str]:
    """Return the names of the machines that the plan means."""
    return frozenset(chosen.observed.vm.metadata.name for chosen in observed.machines)


def awaiting(observed: ObservedPlan) -> FailoverRun | None:
    """Return the run that moved machines and can still be undone, None if there is none."""
    return _standing(observed, lifecycle.TO_BE_COMMITTED)


def committed(observed: ObservedPlan) -> FailoverRun | None:
    """Return the committed failover after which no machine was reprotected yet."""
    return _standing(observed, (Place.COMMITTED,))


def _standing(observed: ObservedPlan, places: tuple[Place, ...]) -> FailoverRun | None:
    standings = [machineruns.life(chosen.observed).standing for chosen in observed.machines]
    names = {standing.run for standing in standings if standing.place in places}
    return next((run for run in reversed(observed.runs) if run.metadata.name in names), None)


def undone(observed: ObservedPlan, run: FailoverRun) -> bool:
    """Tell whether an abort of the run has succeeded, or it was cleaned up."""
    return run.status.phase in (RunPhase.ABORTED, RunPhase.CLEANED_UP) or any(
        one.spec.kind is RunKind.ABORT
        and one.spec.previous_run == run.metadata.name
        and one.status.phase is RunPhase.SUCCEEDED
        for one in observed.runs
    )


def failed_move(observed: ObservedPlan) -> FailoverRun | None:
    """Return the newest run that moves machines if it failed and was not undone."""
    run = newest(observed, *MOVES)
    if run is None or run.status.phase not in (RunPhase.FAILED, RunPhase.CLEANING_UP) or undone(observed, run):
        return None
    return run


def stops_machines(run: FailoverRun) -> bool:
    """Tell whether the run has stopped any machine where it ran."""
    return any(lifecycle.was_stopped(run, member) for member in run.spec.members)


def known_names(observed: ObservedPlan) -> frozenset[str | None]:
    """Return the names of runs that were ever made: a record that was deleted is not made again."""
    status = observed.plan.status
    standings = [machineruns.life(chosen.observed).standing.run for chosen in observed.machines]
    return frozenset({status.active_run, status.last_run, *standings, *(run.metadata.name for run in observed.runs)})
