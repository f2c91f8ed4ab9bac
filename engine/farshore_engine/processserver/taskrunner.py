"""Carries out the tasks of a snapshot: each in a thread, repeated while it must wait, reported until it is heard."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from time import monotonic

import structlog

from farshore_engine.contract.controlplane import ControlPlane
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.tasks import TaskAssignment, TaskFailed, TaskKind, TaskPhase, TaskReport, TaskResult
from farshore_engine.processserver.dispatch import executor_of
from farshore_engine.processserver.runjournal import note_begin, note_end
from farshore_engine.processserver.tasks import TaskContext

log = structlog.get_logger(__name__)

WORKERS = 8  # tasks at work at a time; those that wait for something take no place
STOP_SECONDS = 10.0
REPORT_EVERY = 3.0  # seconds between two reports of progress
RETRY_FIRST, RETRY_MOST = 1.0, 15.0
ASKED_MOST = 60.0  # seconds to wait where the peer asks for it
CALLED_OFF = "CalledOff"
FINAL = (TaskPhase.SUCCEEDED, TaskPhase.FAILED)


class TaskRunner:
    """Thread-safe. `take` is called with every snapshot; a task that it knows is not begun twice."""

    def __init__(self, control_plane: ControlPlane, context: TaskContext) -> None:
        """`context.progress` is replaced for each task."""
        self._control_plane = control_plane
        self._context = context
        self._places = threading.Semaphore(WORKERS)
        self._working = 0  # tasks that have a place
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._known: dict[str, TaskAssignment] = {}
        self._cleaning: set[str] = set()  # machine names that a CleanUp is for
        self._machines: dict[str, threading.Lock] = {}
        self._stopping = threading.Event()

    def take(self, tasks: Sequence[TaskAssignment]) -> None:
        """Begin the tasks that are new; forget those that are gone."""
        with self._lock:
            named = {task.name for task in tasks}
            self._known = {name: task for name, task in self._known.items() if name in named}
            cleaning = [t for t in tasks if t.kind is TaskKind.CLEAN_UP and not t.input.keep_machine and not _final(t)]
            self._cleaning = {task.input.machine_name for task in cleaning}
            fresh = [t for t in tasks if t.name not in self._known and not _final(t)]
            self._known.update({task.name: task for task in tasks})
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        for task in fresh:
            thread = threading.Thread(target=self._run, args=(task,), name=f"task-{task.name}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def busy(self) -> bool:
        """Tell whether tasks are at work; one that waits to be tried again is not."""
        return self._working > 0

    def stop(self) -> None:
        """Let running tasks end at their next step, if that comes soon; they go on after a restart."""
        self._stopping.set()
        deadline = monotonic() + STOP_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - monotonic()))

    def _run(self, task: TaskAssignment) -> None:
        try:
            with self._machine_lock(task):
                self._attempts(task)
        except _Stopped:
            log.info("task put off", **task.describe())
        except Exception as error:  # the outermost loop of a task: it must not stay Running for ever
            log.error("task failed unexpectedly", exc_info=True, **task.describe())
            fault = StopFault(f"internal error: {type(error).__name__}: {error}", "Please report it", reason="Internal")
            self._finish(task, TaskReport(phase=TaskPhase.RUNNING), fault)

    def _attempts(self, task: TaskAssignment) -> None:
        now = self._context.now
        report = TaskReport(
            phase=TaskPhase.RUNNING,
            attempts=(task.report.attempts if task.report else 0) + 1,
            started_at=(task.report.started_at if task.report else None) or now(),
        )
        self._tell(task, report)
        log.info("task begins", attempt=report.attempts, **task.describe())
        delay = RETRY_FIRST
        while True:
            try:
                outcome: TaskResult | Fault = self._execute(task, report)
            except StopFault as fault:
                outcome = fault
            except WaitFault as fault:
                pause = min(fault.retry_after, ASKED_MOST) if fault.retry_after else min(delay, RETRY_MOST)
                delay = min(delay * 2, RETRY_MOST)
                if task.deadline is not None and now() + timedelta(seconds=pause) >= task.deadline:
                    self._finish(task, report, late(fault, task.deadline))
                    return
                report = report.model_copy(update={"attempts": report.attempts + 1, "message": str(fault)})
                self._tell(task, report)
                self._pause(pause)
                continue
            self._finish(task, report, outcome)
            return

    def _execute(self, task: TaskAssignment, report: TaskReport) -> TaskResult:
        told = [monotonic()]

        def progress(percent: int | None, sentence: str) -> None:
            self._check_called_off(task)
            if monotonic() - told[0] >= REPORT_EVERY:
                told[0] = monotonic()
                update = {"percent": percent, "message": sentence}
                self._control_plane_report(task, report.model_copy(update=update))

        self._check_called_off(task)
        try:
            with self._place():
                if note := note_begin(task, self._context.now):
                    log.warning("run not noted", note=note, **task.describe())
                return executor_of(task)(task, replace(self._context, progress=progress))
        except OSError as error:
            raise WaitFault(f"{task.kind.value} failed on this host: {error}", reason="HostError") from error

    def _check_called_off(self, task: TaskAssignment) -> None:
        if self._stopping.is_set():
            raise _Stopped
        with self._lock:
            gone = task.name not in self._known
            cleaning = task.kind is not TaskKind.CLEAN_UP and task.input.machine_name in self._cleaning
        if gone or (cleaning and task.input.machine_name):
            raise StopFault("the task was called off", "Nothing: its run was ended", reason=CALLED_OFF)

    def _finish(self, task: TaskAssignment, report: TaskReport, outcome: TaskResult | Fault) -> None:
        failed = isinstance(outcome, Fault)
        found = (outcome.result if isinstance(outcome, TaskFailed) else None) if failed else outcome
        update: dict[str, object] = {
            "phase": TaskPhase.FAILED if failed else TaskPhase.SUCCEEDED,
            "message": outcome.message if isinstance(outcome, Fault) else "",
            "remedy": outcome.remedy if isinstance(outcome, Fault) else "",
            "percent": None if failed else 100,
            "finished_at": self._context.now(),
            "result": found,
        }
        log.info("task ends", phase=str(update["phase"]), message=update["message"], **task.describe())
        final = report.model_copy(update=update)
        if isinstance(outcome, Fault) and outcome.reason == CALLED_OFF:
            self._tell(task, final)  # by a control plane that may be lost, say: not an end of the step
        else:
            self._tell(task, self._journalled(task, final))

    def _journalled(self, task: TaskAssignment, final: TaskReport) -> TaskReport:
        """Write the end into the run's journal before it is told; returns what is to be told.

        What must be written and cannot be is tried until the task's deadline, and then fails the task: a step that
        the vault does not know of would be done again by a fresh control plane.
        """
        delay = RETRY_FIRST
        while True:
            try:
                note = note_end(task, final)
            except WaitFault as fault:
                log.warning("end not noted yet", message=fault.message, **task.describe())
                if task.deadline is None or self._context.now() + timedelta(seconds=delay) < task.deadline:
                    self._pause(delay)
                    delay = min(delay * 2, RETRY_MOST)
                    if self._is_gone(task):
                        return final
                    continue
                unwritten: Fault = late(fault, task.deadline)
            except StopFault as fault:
                unwritten = fault
            else:
                return final.model_copy(update={"message": "; ".join(filter(None, (final.message, note)))})
            message = "; ".join(filter(None, (final.message, f"not in the vault's journal: {unwritten.message}")))
            failed = {"phase": TaskPhase.FAILED, "message": message, "percent": None, "result": None}
            return final.model_copy(update={**failed, "remedy": final.remedy or unwritten.remedy})

    def _is_gone(self, task: TaskAssignment) -> bool:
        with self._lock:
            return task.name not in self._known

    def _tell(self, task: TaskAssignment, report: TaskReport) -> None:
        """Report until it is heard, or nobody asks for the task any more."""
        delay = RETRY_FIRST
        while not self._control_plane_report(task, report):
            self._pause(delay)
            delay = min(delay * 2, RETRY_MOST)
            if self._is_gone(task):
                return

    def _control_plane_report(self, task: TaskAssignment, report: TaskReport) -> bool:
        try:
            self._control_plane.report_task(task.name, report)
        except WaitFault as fault:
            log.warning("task report put off", message=fault.message, **task.describe())
            return False
        return True

    @contextmanager
    def _place(self) -> Iterator[None]:
        while not self._places.acquire(timeout=RETRY_FIRST):
            if self._stopping.is_set():
                raise _Stopped
        with self._lock:
            self._working += 1
        try:
            yield
        finally:
            with self._lock:
                self._working -= 1
            self._places.release()

    def _pause(self, seconds: float) -> None:
        if self._stopping.wait(seconds):
            raise _Stopped

    def _machine_lock(self, task: TaskAssignment) -> threading.Lock:
        """Return what keeps two tasks of one recovered machine apart; each task without one has its own."""
        with self._lock:
            return self._machines.setdefault(task.input.machine_name or f"/{task.name}", threading.Lock())


class _Stopped(Exception):
    """The process server stops."""


def _final(task: TaskAssignment) -> bool:
    return task.report is not None and task.report.phase in FINAL


def late(fault: WaitFault, deadline: datetime) -> StopFault:
    """Return what a task fails with when its time is up."""
    message = f"{fault.message} (tried until {deadline:%Y-%m-%d %H:%M:%S} UTC)"
    return StopFault(message, fault.remedy, reason=fault.reason)
