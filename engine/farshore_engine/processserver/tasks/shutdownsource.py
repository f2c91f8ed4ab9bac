"""ShutdownSource: power the source machine off over SSH, and see that it no longer answers."""

from __future__ import annotations

from pathlib import Path

from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.processserver.identity import write_private
from farshore_engine.processserver.tasks.context import TaskContext, power_of, source_of

GRACE = 60.0  # seconds that a machine of this host has to shut itself down before its plug is pulled
SILENT = ("Unreachable", "ConnectTimeout")  # reasons of the installer for a machine of which nothing answers at all


def shutdown_source(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. A machine that was asked to power off by an earlier attempt and is silent now is off.

    One that this host runs is shut down by its provider, which knows when it is off.
    """
    if (power := power_of(task, context)) is not None:
        context.progress(None, f"shutting {task.input.source_machine} down")
        power.power_off(task.input.source_machine, grace=GRACE)
        return TaskResult(confirmed=True)
    source = source_of(task)
    asked = context.machines_dir.parent / "asked-to-stop" / Path(task.name).name
    context.progress(None, f"shutting {source.address} down")
    try:
        confirmed = context.installer.shutdown(source, lambda: write_private(asked, b""))
    except WaitFault as fault:
        if fault.reason not in SILENT or not asked.exists():
            raise
        confirmed = True
    except StopFault:
        asked.unlink(missing_ok=True)  # it said no: silence means nothing from here on
        raise
    if not confirmed:
        raise WaitFault(
            f"{source.address} was asked to power off and still answers",
            "Look at its console: a service may hold up the shutdown; or power it off by hand",
            reason="StillAnswers",
        )
    asked.unlink(missing_ok=True)
    return TaskResult(confirmed=True)
