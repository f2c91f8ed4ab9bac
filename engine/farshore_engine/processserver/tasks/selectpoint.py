"""SelectPoint: turn a selector into a point and pin it for the run, once: a repeated task finds its pin."""

from __future__ import annotations

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.points import resolve
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.tasks.context import TaskContext, vault_of

TRIES = 3  # points that retention may take away between looking and pinning


def select_point(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    pin = task.input.pin
    with vault_of(task) as vault:
        for attempt in range(TRIES):
            points = vault.catalogue().summaries()
            mine = next((point for point in points if pin in point.pins), None)
            if mine is not None:
                return TaskResult(point=mine, slot=mine.slot, disk_bytes=mine.disk_bytes)
            chosen = resolve(task.input.selector, points, context.now())
            try:
                vault.pin(vault.find(chosen.name), pin, note=task.run)
            except StopFault as fault:
                if fault.reason not in ("PointGone", "NoSuchRecoveryPoint") or attempt == TRIES - 1:
                    raise
                continue
            chosen = chosen.model_copy(update={"pins": (*chosen.pins, pin)})
            return TaskResult(point=chosen, slot=chosen.slot, disk_bytes=chosen.disk_bytes)
    raise AssertionError("every try returns or raises")
