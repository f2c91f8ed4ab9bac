"""ProbeMachine: ask the recovered machine from outside; what it answered is the evidence.

Without probes the greeting of its SSH server is enough, and it is waited for until the task's deadline.
"""

from __future__ import annotations

from pathlib import Path

from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.tasks import ProbeResult, TaskAssignment, TaskFailed, TaskResult
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.machines.spec import MachineState, RunningMachine
from farshore_engine.processserver.probes.asking import Machine, ask_all
from farshore_engine.processserver.probes.question import Logins
from farshore_engine.processserver.tasks.context import STARTED, TaskContext, machine_dir, power_of
from farshore_engine.processserver.tasks.hostkey import host_key_of

GREETING = "greeting"


def probe_machine(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. A probe that is not answered as it should be fails the task, whose result has every answer."""
    directory = machine_dir(task, context)
    runtime = power_of(task, context) or context.runtime
    running = runtime.inspect(directory.name)
    if running is None or running.state in (MachineState.FAILED, MachineState.STOPPED):
        detail = f"it {running.state.value}: {running.detail}" if running is not None else "there is none of this name"
        raise WaitFault(
            f"the machine {directory.name} does not run: {detail}",
            "Read its console, or start the run anew",
            reason="NotRunning",
        )
    if not task.input.probes:
        return _greeted(task, context, running, directory, runtime)
    machine = Machine(
        reach=lambda port: runtime.reach(running, port),
        logins=Logins(task.source.credentials if task.source else None, task.database_logins),
        started=lambda: since_start(directory, context),
    )
    answers = ask_all(
        task.input.probes, machine, lambda names: context.progress(None, f"waiting for {', '.join(names)}")
    )
    result = _result(running, answers, "; ".join(f"{one.name}: {one.answer}" for one in answers))
    failed = [f"{one.name}: {one.answer}" for one in answers if not one.passed]
    if failed:
        raise TaskFailed(
            f"{len(failed)} of {len(answers)} probes of {directory.name} failed: {'; '.join(failed)}",
            f"Look at the machine, which still runs, and at its console, {running.console}",
            reason="ProbeFailed",
            result=result,
        )
    return result


def _greeted(
    task: TaskAssignment, context: TaskContext, running: RunningMachine, directory: Path, runtime: MachineRuntime
) -> TaskResult:
    context.progress(None, f"waiting for an answer from {running.address}:{running.port}")
    evidence = runtime.probe(running, timeout=float(task.input.probe_timeout_seconds))
    said = f"{evidence.banner or 'TCP connection accepted'} after {evidence.attempts} attempts"
    seconds = since_start(directory, context)
    return _result(running, (ProbeResult(name=GREETING, passed=True, answer=said, seconds=seconds),), said)


def _result(running: RunningMachine, answers: tuple[ProbeResult, ...], evidence: str) -> TaskResult:
    return TaskResult(
        machine_kind=running.kind.value,
        address=running.address,
        port=running.port,
        evidence=evidence,
        probes=answers,
        host_key=host_key_of(running),
    )


def since_start(directory: Path, context: TaskContext) -> float | None:
    """Return the seconds since the note that is written just before a machine boots."""
    try:
        begun = (directory / STARTED).stat().st_mtime
    except FileNotFoundError:
        return None
    return round(max(0.0, context.now().timestamp() - begun), 1)
