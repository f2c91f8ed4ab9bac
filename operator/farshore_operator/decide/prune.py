"""Which records go: runs and answered tasks beyond a limit that nobody needs. The vault's journal keeps what they said.

The newest stay, and whatever a machine's standing rests on, or a person may still name.
"""

from __future__ import annotations

from collections.abc import Sequence

from farshore_engine.contract.tasks import TaskPhase
from farshore_operator.api import FailoverRun, Task
from farshore_operator.api.failoverrun import RunKind, RunPhase
from farshore_operator.decide import lifecycle, machineruns, planview
from farshore_operator.decide.actions import DeleteOwned
from farshore_operator.decide.identity import id_of
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.planview import ObservedPlan

DRILLS = 20
"""How many records of drills that are cleaned up are kept for each machine."""
PREFLIGHTS = 3
"""How many answered preflights are kept for each machine."""
FINAL = (TaskPhase.SUCCEEDED, TaskPhase.FAILED)


def runs(observed: ObservedPlan) -> tuple[DeleteOwned, ...]:
    """Return what is to be deleted of a plan's runs."""
    mine = [run for run in observed.runs if run.spec.kind is not RunKind.TEST_FAILOVER]
    spare = mine[: max(0, len(mine) - observed.plan.spec.runs_history_limit)]
    needed = _needed(observed)
    return tuple(
        DeleteOwned(id_of(run))
        for run in spare
        if run.status.phase in lifecycle.OVER and run.metadata.name not in needed
    )


def _needed(observed: ObservedPlan) -> set[str | None]:
    """Return the names of the runs on which something rests."""
    standings = [machineruns.life(chosen.observed).standing for chosen in observed.machines]
    failed = planview.failed_move(observed)
    needed = {standing.run for standing in standings} | {failed.metadata.name if failed is not None else None}
    needed |= {observed.plan.status.active_run, observed.plan.spec.abort}
    # The failover that a machine went away with says where it came from.
    needed |= {run.metadata.name for run in [planview.newest(observed, RunKind.FAILOVER)] if run is not None}
    by_name = {run.metadata.name: run for run in observed.runs}
    return needed | {by_name[name].spec.previous_run for name in needed if name in by_name}


def drills(observed: ObservedVM) -> tuple[DeleteOwned, ...]:
    """Return what is to be deleted of the drills that this machine is the first member of."""
    name = observed.vm.metadata.name
    mine = [run for run in observed.runs if _first(run) == name and run.spec.kind is RunKind.TEST_FAILOVER]
    over = [run for run in mine if run.status.phase is RunPhase.CLEANED_UP]
    return tuple(DeleteOwned(id_of(run)) for run in over[: max(0, len(over) - DRILLS)])


def preflights(tasks: Sequence[Task]) -> tuple[DeleteOwned, ...]:
    """Return the answered preflights of a machine that are to be deleted; `tasks` are its preflights, oldest first."""
    over = [task for task in tasks if task.status is not None and task.status.phase in FINAL]
    return tuple(DeleteOwned(id_of(task)) for task in over[: max(0, len(over) - PREFLIGHTS)])


def _first(run: FailoverRun) -> str:
    return run.spec.members[0].protected_vm if run.spec.members else ""
