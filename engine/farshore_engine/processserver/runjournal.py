"""What tasks leave in the vault's journal of a run, so that a fresh control plane continues it and repeats nothing.

    0: {"kind": "Begun", "spec": JSON, "at": time}                      once, before the first task of the run works
    n: {"kind": "Ended", "task", "step", "phase", "message", "result": JSON, "at"}    for each task that ended

A task that is repeated after a crash finds its entry. Two appliances of one run may write at the same time: who finds
its number taken writes behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.tasks import (
    JournalledRun,
    JournalledStep,
    RunEntry,
    TaskAssignment,
    TaskKind,
    TaskPhase,
    TaskReport,
)
from farshore_engine.vault.journal import JournalTaken, RunJournal
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.stores import open_machine

BEGUN, ENDED = "Begun", "Ended"
ATTEMPTS = 100  # entries of others that may come in between
NOT_THERE = ("NoVault", "NoMachine")

AT_THE_SOURCE = frozenset({TaskKind.PREFLIGHT, TaskKind.COMMIT_SPOOL, TaskKind.SHUTDOWN_SOURCE, TaskKind.FINAL_POINT})
"""Kinds that work where the machine is left: a vault that is away from there must not keep them from their work."""


def note_begin(task: TaskAssignment, now: Callable[[], datetime]) -> str:
    """Write that the task's run has begun, unless that is written; returns a note when it could not be, else "".

    Raises:
        Fault: it cannot be written, and the task must not begin without.
    """

    def begin(journal: RunJournal, entry: RunEntry) -> None:
        _append(journal, entry.run, {"kind": BEGUN, "spec": entry.spec, "at": now().isoformat()}, _is_begun)

    return _noted(task, begin)


def note_end(task: TaskAssignment, report: TaskReport) -> str:
    """Write how the task ended, unless that is written; returns a note when it could not be, else "".

    Raises:
        Fault: it cannot be written, and the task must not be reported without.
    """

    def end(journal: RunJournal, entry: RunEntry) -> None:
        assert report.finished_at is not None, "only a final report is written"
        record = {
            "kind": ENDED,
            "task": task.name,
            "step": entry.step,
            "phase": report.phase.value,
            "message": report.message,
            "result": report.result.model_dump_json(by_alias=True, exclude_defaults=True) if report.result else "",
            "at": report.finished_at.isoformat(),
        }

        def is_written(entries: list[dict[str, Any]]) -> bool:
            mine = [found for found in entries if found.get("task") == task.name]
            return bool(mine) and mine[-1].get("phase") == report.phase.value

        _append(journal, entry.run, record, is_written)

    return _noted(task, end)


def read_runs(vault: MachineVault) -> tuple[JournalledRun, ...]:
    """Return every run of the machine, oldest first; of a task that ended more than once, its last end.

    Raises:
        StopFault: an entry is damaged.
    """
    found = (_run(name, vault.journal.entries(name)) for name in vault.journal.runs())
    return tuple(sorted((run for run in found if run is not None), key=lambda run: (run.begun_at, run.run)))


def _run(name: str, entries: list[dict[str, Any]]) -> JournalledRun | None:
    begun = next((entry for entry in entries if entry.get("kind") == BEGUN), None)
    if begun is None:
        return None  # written by somebody else
    steps: dict[str, JournalledStep] = {}
    for entry in entries:
        if entry.get("kind") == ENDED:
            steps.pop(entry["task"], None)
            steps[entry["task"]] = JournalledStep(
                step=entry["step"],
                phase=TaskPhase(entry["phase"]),
                message=entry["message"],
                at=datetime.fromisoformat(entry["at"]),
                result=entry["result"],
            )
    at = datetime.fromisoformat(begun["at"])
    return JournalledRun(run=name, spec=begun["spec"], begun_at=at, steps=tuple(steps.values()))


def _noted(task: TaskAssignment, write: Callable[[RunJournal, RunEntry], None]) -> str:
    entry = task.input.journal
    if entry is None or task.vault is None:
        return ""
    try:
        with _opened(task) as vault:
            write(vault.journal, entry)
    except Fault as fault:
        # Where nothing of the machine is in the vault yet, there is nothing that a fresh control plane could continue.
        if task.kind in AT_THE_SOURCE or fault.reason in NOT_THERE:
            return f"not in the vault's journal: {fault.message}"
        raise
    return ""


@contextmanager
def _opened(task: TaskAssignment) -> Iterator[MachineVault]:
    assert task.vault is not None
    vault = open_machine(task.vault, task.input.machine_id)
    try:
        yield vault
    finally:
        vault.close()


def _is_begun(entries: list[dict[str, Any]]) -> bool:
    return any(entry.get("kind") == BEGUN for entry in entries)


def _append(
    journal: RunJournal, run: str, entry: dict[str, Any], written: Callable[[list[dict[str, Any]]], bool]
) -> None:
    """Write an entry behind the others, unless `written` finds it among them."""
    for _ in range(ATTEMPTS):
        entries = journal.entries(run)
        if written(entries):
            return
        try:
            journal.append(run, len(entries), entry)
        except JournalTaken:
            continue
        return
    raise StopFault(
        f"the journal of run {run} is being written by others all the time",
        "Check that one control plane only drives this run",
        reason="JournalBusy",
    )
