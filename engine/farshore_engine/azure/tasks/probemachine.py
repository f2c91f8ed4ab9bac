"""ProbeMachine for Azure: ask the machine at its private address, which the process server must be able to reach.

From a network of a drill's own nothing comes out: of a machine there only Azure can say that it runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from farshore_engine.azure.machines import machine_address, power_state
from farshore_engine.azure.network import group_of
from farshore_engine.azure.tasks.scene import Scene
from farshore_engine.azure.tasks.startmachine import KIND, port_of
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.tasks import ProbeResult, TaskAssignment, TaskFailed, TaskResult
from farshore_engine.machines.probe import probe
from farshore_engine.machines.spec import MachineKind, MachineState, RunningMachine
from farshore_engine.processserver.probes.asking import Machine, ask_all
from farshore_engine.processserver.probes.question import Logins
from farshore_engine.processserver.tasks.context import TaskContext
from farshore_engine.processserver.tasks.hostkey import ask_host_key
from farshore_engine.processserver.tasks.probemachine import GREETING, since_start

REACH = "Check that the process server's network reaches the machine's subnet (peering, routes, security groups)"


def probe_machine(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`."""
    scene = Scene.of(task, context)
    found = scene.recovered()
    if found is None:
        raise StopFault(f"there is no machine {scene.place.name}", "Start the run anew", reason="MachineUnknown")
    group = group_of(str(found.id)) or scene.place.group
    power, failure = power_state(scene.cloud, group, scene.place.name)
    if power != "running":
        raise WaitFault(
            f"the machine {scene.place.name} does not run: {power or 'unknown'} {failure}".strip(),
            "Look at its boot diagnostics, or start the run anew",
            reason="NotRunning",
        )
    address = machine_address(scene.cloud, found)
    if scene.place.target.isolated:
        return _isolated(task, address)
    if not task.input.probes:
        return _greeted(task, context, scene, address)
    return _asked(task, context, scene, address)


def _asked(task: TaskAssignment, context: TaskContext, scene: Scene, address: str) -> TaskResult:
    @contextmanager
    def reach(port: int) -> Iterator[tuple[str, int]]:
        yield address, port

    asked = Machine(
        reach=reach,
        logins=Logins(task.source.credentials if task.source else None, task.database_logins),
        started=lambda: since_start(scene.directory, context),
    )
    answers = ask_all(task.input.probes, asked, lambda names: context.progress(None, f"waiting for {', '.join(names)}"))
    result = _result(task, address, answers, "; ".join(f"{one.name}: {one.answer}" for one in answers))
    failed = [f"{one.name}: {one.answer}" for one in answers if not one.passed]
    if failed:
        raise TaskFailed(
            f"{len(failed)} of {len(answers)} probes of {scene.place.name} failed: {'; '.join(failed)}",
            f"Look at the machine, which still runs, and at its boot diagnostics. {REACH}",
            reason="ProbeFailed",
            result=result,
        )
    return result


def _greeted(task: TaskAssignment, context: TaskContext, scene: Scene, address: str) -> TaskResult:
    port = port_of(task)
    context.progress(None, f"waiting for an answer from {address}:{port}")
    asked: Any = RunningMachine(
        scene.place.name, MachineKind.QEMU, MachineState.RUNNING, address, port, None, Path("boot-diagnostics")
    )
    try:
        evidence = probe(asked, timeout=float(task.input.probe_timeout_seconds))
    except WaitFault as fault:
        raise WaitFault(
            f"{scene.place.name} runs, and did not answer at {address}:{port}",
            f"Look at its boot diagnostics. {REACH}",
            reason=fault.reason,
        ) from fault
    said = f"{evidence.banner or 'TCP connection accepted'} after {evidence.attempts} attempts"
    seconds = since_start(scene.directory, context)
    return _result(task, address, (ProbeResult(name=GREETING, passed=True, answer=said, seconds=seconds),), said)


def _isolated(task: TaskAssignment, address: str) -> TaskResult:
    said = "Azure says that it runs; nothing was asked of it, because its network is isolated"
    if task.input.probes:
        result = TaskResult(machine_kind=KIND, address=address, port=port_of(task), evidence=said)
        raise TaskFailed(
            "the probes cannot be asked: the drill's network is isolated",
            "Name one that the process server reaches: spec.drillNetwork of the site, or spec.network of the drill",
            reason="ProbeFailed",
            result=result,
        )
    return TaskResult(machine_kind=KIND, address=address, port=port_of(task), evidence=said)


def _result(task: TaskAssignment, address: str, answers: tuple[ProbeResult, ...], evidence: str) -> TaskResult:
    return TaskResult(
        machine_kind=KIND,
        address=address,
        port=port_of(task),
        evidence=evidence,
        probes=answers,
        host_key=asyncio.run(ask_host_key(address, port_of(task))),
    )
