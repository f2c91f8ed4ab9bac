"""The process servers of the story: the product's own task runner with its own executors, one for each site.

All that they say (logs, reports, exceptions) is kept, so that a test can look for secrets in it.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, cast

import structlog

from farshore_engine.azurestack.setting import HubSetting
from farshore_engine.contract.assignment import Source
from farshore_engine.contract.tasks import TaskAssignment, TaskPhase, TaskReport, TaskResult
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.processserver.installer import DataPort
from farshore_engine.processserver.lastpoint import HeldPoint
from farshore_engine.processserver.taskrunner import TaskRunner
from farshore_engine.processserver.tasks.context import TaskContext

PATIENCE = 120.0
"""Real seconds after which a task that has not ended is a failure of the test."""
FINAL = (TaskPhase.SUCCEEDED, TaskPhase.FAILED)


class Clock:
    """Time that goes on by a second with each look: what is retried reaches its deadline soon."""

    def __init__(self) -> None:
        self._now = datetime.now(UTC)
        self._lock = threading.Lock()

    def now(self) -> datetime:
        with self._lock:
            self._now += timedelta(seconds=1)
            return self._now


@dataclass(repr=False)
class Said:
    """Every line that was logged, every report, and every exception with its traceback."""

    lines: list[str] = field(default_factory=list)

    def keep(self, text: object) -> None:
        self.lines.append(str(text))

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Keep what is logged, at level DEBUG, by whichever library."""
        handler, root, before = _Handler(self), logging.getLogger(), logging.getLogger().level
        known = structlog.get_config()

        def processor(_: Any, method: str, event: MutableMapping[str, Any]) -> Mapping[str, Any]:
            self.keep(f"{method} {event!r}")
            if error := event.get("exc_info"):
                self.keep(traceback.format_exc() if error is True else error)
            raise structlog.DropEvent

        root.addHandler(handler)
        root.setLevel(logging.DEBUG)
        structlog.configure(processors=[processor])
        try:
            yield
        finally:
            structlog.configure(**known)
            root.removeHandler(handler)
            root.setLevel(before)

    def leaks(self, secrets: list[str]) -> list[str]:
        """Return the lines in which one of the secrets is."""
        wanted = [one for one in secrets if one]
        return [line for line in self.lines if any(one in line for one in wanted)]


class _Handler(logging.Handler):
    def __init__(self, said: Said) -> None:
        super().__init__(logging.DEBUG)
        self._said = said

    def emit(self, record: logging.LogRecord) -> None:
        self._said.keep(f"{record.name} {record.getMessage()}")
        if record.exc_info:
            self._said.keep("".join(traceback.format_exception(*record.exc_info)))


class Login(Protocol):
    """What of the installer is needed: machines that are asked over SSH to power off."""

    def shutdown(self, source: Source, asked: Callable[[], None]) -> bool:
        """As `Installer.shutdown`."""
        ...


class Desk:
    """The control plane as a task runner sees it: hears reports."""

    def __init__(self, said: Said) -> None:
        self._said = said
        self._ended: dict[str, TaskReport] = {}
        self._changed = threading.Condition()

    def report_task(self, name: str, report: TaskReport) -> None:
        self._said.keep(f"{name} {report.model_dump_json()}")
        with self._changed:
            if report.phase in FINAL:
                self._ended[name] = report
            self._changed.notify_all()

    def wait(self, name: str) -> TaskReport:
        """Return the final report of a task, once."""
        with self._changed:
            assert self._changed.wait_for(lambda: name in self._ended, PATIENCE), f"task {name} does not end"
            return self._ended.pop(name)


class Runner(TaskRunner):
    """Keeps what executors raise, before it is translated into a report."""

    said: Said

    def _execute(self, task: TaskAssignment, report: TaskReport) -> TaskResult:
        try:
            return super()._execute(task, report)
        except BaseException as error:
            self.said.keep("".join(traceback.format_exception(error)))
            raise


class Server:
    """One process server. Its directory is all that it has."""

    def __init__(
        self,
        name: str,
        state: Path,
        said: Said,
        clock: Clock,
        hub: HubSetting,
        login: Login,
        take: Callable[[str, float], Any],
        take_last: Callable[[str, float, bool, float], HeldPoint],
    ) -> None:
        self.name = name
        state.mkdir(parents=True, exist_ok=True)
        context = TaskContext(
            machines_dir=state / "machines", runtime=MachineRuntime(state / "run"), installer=cast(Any, login),
            data_port=lambda: DataPort(name, 9443), take_point=take, now=clock.now, progress=lambda *_: None,
            take_last=take_last, hub=hub,
        )  # fmt: skip
        self._desk = Desk(said)
        self._runner = Runner(cast(Any, self._desk), context)
        self._runner.said = said
        self._wanted: dict[str, TaskAssignment] = {}
        self._lock = threading.Lock()

    def carry_out(self, task: TaskAssignment) -> TaskReport:
        """Hand a task over, and return its final report."""
        with self._lock:
            self._wanted[task.name] = task
            self._runner.take(tuple(self._wanted.values()))
        try:
            return self._desk.wait(task.name)
        finally:
            with self._lock:
                del self._wanted[task.name]
                self._runner.take(tuple(self._wanted.values()))

    def stop(self) -> None:
        self._runner.stop()
