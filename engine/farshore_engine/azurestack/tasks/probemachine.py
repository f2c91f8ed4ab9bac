"""ProbeMachine at a Hub: ask the machine from the process server, at its private address."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from farshore_engine.azurestack.machine import Machine as HubMachine
from farshore_engine.azurestack.tasks.stage import staged
from farshore_engine.azurestack.tasks.startsource import KIND
from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.tasks import ProbeResult, TaskAssignment, TaskFailed, TaskResult
from farshore_engine.processserver.probes.asking import Machine, ask_all
from farshore_engine.processserver.probes.question import Logins
from farshore_engine.processserver.tasks.context import TaskContext
from farshore_engine.processserver.tasks.probemachine import GREETING

PAUSE = 1.0
CONNECT = 5.0  # seconds


def probe_machine(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. A probe that is not answered as it should be fails the task, whose result has every answer."""
    with staged(task, context) as stage:
        machine = stage.machine()
    if machine is None or not machine.addresses:
        what = "is not at the Hub" if machine is None else "has no private address"
        raise WaitFault(f"the machine {task.input.machine_name} {what}", "Start the run anew", reason="NotRunning")
    if not task.input.probes:
        return _greeted(task, context, machine)
    logins = Logins(task.source.credentials if task.source else None, task.database_logins)
    asked = Machine(reach=lambda port: _reached(machine, port), logins=logins, started=lambda: None)
    answers = ask_all(task.input.probes, asked, lambda names: context.progress(None, f"waiting for {', '.join(names)}"))
    result = _result(task, machine, answers)
    failed = [f"{one.name}: {one.answer}" for one in answers if not one.passed]
    if failed:
        raise TaskFailed(
            f"{len(failed)} of {len(answers)} probes of {machine.name} failed: {'; '.join(failed)}",
            "Look at the machine, which still runs, and at its boot diagnostics in the Hub's portal",
            reason="ProbeFailed",
            result=result,
        )
    return result


@contextmanager
def _reached(machine: HubMachine, port: int) -> Iterator[tuple[str, int]]:
    yield machine.addresses[0], port


def _greeted(task: TaskAssignment, context: TaskContext, machine: HubMachine) -> TaskResult:
    """Wait for the greeting of its SSH server."""
    address, port = machine.addresses[0], _port(task)
    deadline = time.monotonic() + float(task.input.probe_timeout_seconds)
    while True:
        context.progress(None, f"waiting for an answer from {address}:{port}")
        try:
            with socket.create_connection((address, port), timeout=CONNECT) as connection:
                connection.settimeout(CONNECT)
                said = connection.recv(256).decode("ascii", "replace").strip() or "TCP connection accepted"
                return _result(task, machine, (ProbeResult(name=GREETING, passed=True, answer=said),))
        except OSError as error:
            if time.monotonic() >= deadline:
                raise WaitFault(
                    f"nothing answers at {address}:{port}: {error}",
                    "Look at the machine's boot diagnostics in the Hub's portal",
                    reason="NoAnswer",
                ) from error
            time.sleep(PAUSE)


def _port(task: TaskAssignment) -> int:
    return task.source.port if task.source is not None else 22


def _result(task: TaskAssignment, machine: HubMachine, answers: tuple[ProbeResult, ...]) -> TaskResult:
    said = "; ".join(f"{one.name}: {one.answer}" for one in answers)
    return TaskResult(machine_kind=KIND, address=machine.addresses[0], port=_port(task), evidence=said, probes=answers)
