"""The steps of runs: a point chosen, a drill made and cleaned up, a failover, another point, a commit.

Each kind is a row: is it done, as the item shows; what is called while it is not; what must be allowed for that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.points import Selector, resolve
from farshore_engine.contract.replication import Check, CheckResult
from farshore_engine.contract.tasks import TaskKind, TaskPhase, TaskReport, TaskResult
from farshore_operator.engines.siterecovery.calls import (
    Call,
    ChangePoint,
    CleanUpTest,
    Commit,
    Failover,
    TestFailover,
)
from farshore_operator.engines.siterecovery.decide.verdict import Verdict, checks, told, under_way
from farshore_operator.engines.siterecovery.facts import Allowed, Item, Job, Points
from farshore_operator.engines.siterecovery.wishes import TaskWish

WAITING = "WaitingForCompletion"
CLOCKS = timedelta(minutes=5)
"""How far Azure's clock and ours may differ."""


@dataclass(frozen=True)
class TaskView:
    """A task as it was read: its machine's item, its points, and the job that was recorded. `network` is the resource
    id that a drill joins, empty for none."""

    wish: TaskWish
    item: Item | None = None
    points: Points = field(default_factory=Points)
    job: Job | None = None
    network: str = ""


def decide(view: TaskView, now: datetime) -> Verdict[TaskReport]:
    """Return the next call for a task, and its report."""
    report = _claimed(view.wish, now)
    if view.wish.deadline is not None and now > view.wish.deadline:
        return _end(report, now, StopFault("it did not end in time", "Look at the job in the vault"))
    try:
        if view.wish.kind in _AT_ONCE:
            return Verdict(_done(report, now, *_AT_ONCE[view.wish.kind](view, now)))
        if view.wish.kind not in _MOVES:
            raise StopFault(
                f"engine siteRecovery has no step {view.wish.kind}", "Use a RecoveryVault of engine native for it"
            )
        return _move(view, _MOVES[view.wish.kind], report, now)
    except StopFault as fault:
        return _end(report, now, fault)


def began(view: TaskView) -> datetime | None:
    """Return when the task was claimed; what Azure did since then, it did for the task."""
    return view.wish.report.started_at if view.wish.report is not None else None


@dataclass(frozen=True)
class Move:
    """How a step that changes something is taken.

    Attributes:
        done: whether the item shows that it is done, and was done for this task.
        call: what begins it; None if there is nothing to do.
        allowed: what the item must allow for that.
        result: what it brought.
    """

    done: Callable[[TaskView], bool]
    call: Callable[[TaskView, Item], Call]
    allowed: Allowed
    result: Callable[[TaskView, Item | None], tuple[str, TaskResult]]


def _move(view: TaskView, move: Move, report: TaskReport, now: datetime) -> Verdict[TaskReport]:
    item, recorded = view.item, report.operation
    if recorded is not None and view.job is not None and view.job.failed:
        why = told(view.job)
        raise StopFault(why.message, f"{why.remedy}, and start again{_left_off(view)}", reason=f"Failed{why.code}")
    if move.done(view):
        return Verdict(_done(report, now, *move.result(view, item)))
    if item is None:
        raise StopFault(f"Site Recovery does not protect {view.wish.machine}", "Look at its ProtectedVM")
    if recorded is not None and under_way(recorded, view.job, now):
        percent = view.job.percent if view.job is not None else None
        text = f"{recorded.call} of {item.friendly} is under way at Site Recovery (job {recorded.job})"
        return Verdict(_running(report, text, percent))
    if item.job and item.drill != WAITING:
        return Verdict(_running(report, f"Site Recovery is busy with {item.doing} of {item.friendly} (job {item.job})"))
    if move.allowed not in item.allowed:
        return Verdict(_not_allowed(view, item, move, report))
    call = move.call(view, item)
    return Verdict(_running(report, f"{call.name} of {item.friendly} is begun"), call)


def _left_off(view: TaskView) -> str:
    """Tell that a failover which failed may have switched the machine off, and a change of point taken it away."""
    if view.wish.kind is TaskKind.CHANGE_POINT:
        return f". Until then {view.wish.machine} may not run: Site Recovery makes it anew"
    if not view.wish.input.shutdown or (view.item is not None and view.item.recovered):
        return ""
    return f". {view.wish.machine} may be switched off at its site: if it is not failed over, start it there"


def _not_allowed(view: TaskView, item: Item, move: Move, report: TaskReport) -> TaskReport:
    """Wait for what Site Recovery will allow by itself; refuse what only a person can make room for."""
    allowed = ", ".join(sorted(item.allowed)) or "nothing"
    said = f"Site Recovery does not allow {move.allowed.value} of {item.friendly} now ({item.state_text or item.state})"
    if item.drill == WAITING:
        raise StopFault(
            f"{said}: a test failover that was begun elsewhere waits for its clean-up",
            "Clean it up in the vault, or delete the TestFailover that made it, and start again",
            reason="TestFailoverPending",
        )
    if item.allowed and not (item.allowed & {Allowed.DISABLE}) == item.allowed:
        raise StopFault(f"{said}: it allows {allowed}", "Do that first, and start again", reason="NotAllowed")
    return _running(report, f"{said}: it allows {allowed}; looked at again until then")


# what is done at once


def _preflight(view: TaskView, _: datetime) -> tuple[str, TaskResult]:
    item = view.item
    if item is None:
        text = "Site Recovery does not protect the machine yet: see status.replication of its ProtectedVM"
        found = (Check(name="SiteRecoveryItem", result=CheckResult.WARNING, message=text),)
        return text, TaskResult(checks=found)
    good = Check(name="SiteRecoveryItem", result=CheckResult.PASSED, message=f"{item.friendly}: {item.state_text}")
    return "the health errors of Site Recovery", TaskResult(checks=(good, *checks(item.problems)))


def _select(view: TaskView, now: datetime) -> tuple[str, TaskResult]:
    chosen = resolve(view.wish.input.selector or Selector.LATEST_PROCESSED, view.points.all, now)
    text = f"recovery point {chosen.name} of {chosen.time:%Y-%m-%dT%H:%M:%SZ}"
    return text, TaskResult(point=chosen)


def _journal(_: TaskView, __: datetime) -> tuple[str, TaskResult]:
    return "Site Recovery keeps no journal of runs", TaskResult()


def _report(_: TaskView, __: datetime) -> tuple[str, TaskResult]:
    return "Site Recovery keeps no reports: it is in the FailoverRun", TaskResult()


def _probe(view: TaskView, _: datetime) -> tuple[str, TaskResult]:
    """Tell what Site Recovery says of the recovered machine: the operator reaches no network of machines."""
    item = view.item
    if item is None or not (item.recovered or item.drill == WAITING):
        raise StopFault(f"Site Recovery does not say that {view.wish.machine} runs in Azure", "Look at it in the vault")
    evidence = f"Site Recovery: {item.state_text or item.state}, active location {item.location}"
    if not item.recovered:
        evidence = f"Site Recovery: test failover {item.drill}"
    return evidence, TaskResult(evidence=evidence, address=item.target_address if item.recovered else "")


# what changes something


def _since(view: TaskView, at: datetime | None) -> bool:
    """Tell whether something that Azure did at a time can have been done for this task."""
    begun = began(view)
    recorded = view.wish.report is not None and view.wish.report.operation is not None
    return recorded or (begun is not None and at is not None and at >= begun - CLOCKS)


def _tested(view: TaskView) -> bool:
    item = view.item
    return item is not None and item.drill == WAITING and _since(view, item.last_drill)


def _test(view: TaskView, item: Item) -> Call:
    return TestFailover(item, _point_id(view), view.network)


def _of_test(_: TaskView, item: Item | None) -> tuple[str, TaskResult]:
    name = f"{item.target_name}-test" if item is not None else ""
    return f"test machine {name} runs", TaskResult(machine_kind="azure", address="")


def _cleaned(view: TaskView) -> bool:
    """Tell whether no drill of the run is left; one that began before the run is not the run's."""
    item = view.item
    if item is None or item.drill in ("", "None", "MarkedForDeletion"):
        return True
    if item.drill != WAITING or item.last_drill is None:
        return False
    began_at = view.wish.run_began
    return began_at is not None and item.last_drill < began_at - CLOCKS


def _clean(view: TaskView, item: Item) -> Call:
    if item.last_drill is None or view.wish.run_began is None:
        raise StopFault(
            f"it is not known when the test failover of {item.friendly} that waits for its clean-up was begun, so "
            "neither whether this run made it",
            "Clean it up in the vault if it did",
            reason="TestFailoverUnknown",
        )
    return CleanUpTest(item, view.wish.input.notes or f"cleaned up by Farshore, run {view.wish.run}")


def _of_clean(view: TaskView, item: Item | None) -> tuple[str, TaskResult]:
    name = f"test failover of {item.friendly if item is not None else view.wish.machine}"
    did = view.wish.report is not None and view.wish.report.operation is not None
    return "nothing of the drill is left", TaskResult(removed=(name,) if did else (), looked_for=(name,))


def _moved(view: TaskView) -> bool:
    item = view.item
    return item is not None and item.recovered and not item.job and _since(view, item.last_failover)


def _fail_over(view: TaskView, item: Item) -> Call:
    latest = view.wish.input.selector == Selector.LATEST
    return Failover(item, "" if latest else _point_id(view), view.wish.input.shutdown)


def _of_failover(view: TaskView, item: Item | None) -> tuple[str, TaskResult]:
    name = item.target_name if item is not None else ""
    asked = view.wish.input.shutdown
    off = not (view.job is not None and any("shutdown" in task.lower() for task in view.job.failed_tasks))
    text = f"{name} runs in Azure"
    if asked:
        text += "; the source machine was switched off" if off else "; the source machine could not be switched off"
    address = item.target_address if item is not None else ""
    return text, TaskResult(machine_kind="azure", address=address, confirmed=off if asked else None)


def _changed(view: TaskView) -> bool:
    item = view.item
    there = item is not None and item.recovered and not item.job
    return there and item is not None and item.failover_point.lower() == view.wish.input.point.lower()


def _change(view: TaskView, item: Item) -> Call:
    return ChangePoint(item, _point_id(view))


def _committed(view: TaskView) -> bool:
    item = view.item
    return item is not None and item.recovered and not item.job and bool(item.allowed) and _no_commit(item)


def _no_commit(item: Item) -> bool:
    return Allowed.COMMIT not in item.allowed


def _point_id(view: TaskView) -> str:
    """Return the resource id of the task's point.

    Raises:
        StopFault: Site Recovery does not have it any more.
    """
    name = view.wish.input.point
    if not name or name in view.points.ids:
        return view.points.ids.get(name, "")
    raise StopFault(
        f"Site Recovery has recovery point {name} of {view.wish.machine} no more",
        "Start again with one that it has: see status.replication.recentPoints",
        reason="NoSuchRecoveryPoint",
    )


_AT_ONCE: dict[TaskKind, Callable[[TaskView, datetime], tuple[str, TaskResult]]] = {
    TaskKind.PREFLIGHT: _preflight,
    TaskKind.SELECT_POINT: _select,
    TaskKind.READ_JOURNAL: _journal,
    TaskKind.WRITE_REPORT: _report,
    TaskKind.PROBE_MACHINE: _probe,
}
_MOVES: dict[TaskKind, Move] = {
    TaskKind.TEST_FAILOVER: Move(_tested, _test, Allowed.TEST_FAILOVER, _of_test),
    TaskKind.CLEAN_UP: Move(_cleaned, _clean, Allowed.CLEANUP, _of_clean),
    TaskKind.FAILOVER: Move(_moved, _fail_over, Allowed.FAILOVER, _of_failover),
    TaskKind.CHANGE_POINT: Move(_changed, _change, Allowed.CHANGE_POINT, _of_failover),
    TaskKind.COMMIT: Move(
        _committed,
        lambda _, item: Commit(item),
        Allowed.COMMIT,
        lambda _, __: ("the failover is final; Site Recovery deleted the recovery points", TaskResult()),
    ),
}


# reports


def _claimed(wish: TaskWish, now: datetime) -> TaskReport:
    old = wish.report
    if old is not None and old.started_at is not None:
        return old
    attempts = (old.attempts if old is not None else 0) + 1
    return TaskReport(phase=TaskPhase.RUNNING, started_at=now, attempts=attempts, message="taken up")


def _running(report: TaskReport, message: str, percent: int | None = None) -> TaskReport:
    update = {"phase": TaskPhase.RUNNING, "message": message, "percent": percent, "remedy": ""}
    return report.model_copy(update=update)


def _done(report: TaskReport, now: datetime, message: str, result: TaskResult) -> TaskReport:
    update = {"phase": TaskPhase.SUCCEEDED, "message": message, "result": result, "finished_at": now, "percent": None}
    return report.model_copy(update={**update, "remedy": ""})


def _end(report: TaskReport, now: datetime, fault: StopFault) -> Verdict[TaskReport]:
    update = {"phase": TaskPhase.FAILED, "message": fault.message, "remedy": fault.remedy, "finished_at": now}
    return Verdict(report.model_copy(update={**update, "percent": None}))
