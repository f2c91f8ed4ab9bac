"""FinalPoint: the last point of a machine, committed while it is frozen; then its power goes before it can write again.

Either the machine is off when this succeeds, and the point holds all that it ever acknowledged, or it goes on as if
nothing had been (`NotPoweredOff`). Where this host runs the machine, it pulls the plug itself and compares the disks
with the point; elsewhere the machine's agent cuts the power, and it counts as off when nothing of it answers any more.
"""

from __future__ import annotations

import json
import socket
import time
from datetime import datetime
from pathlib import Path

from farshore_engine.agent.final import NOTE
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.tasks import TaskAssignment, TaskResult
from farshore_engine.hydrate.verify import verify
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.machines.spec import MachineState
from farshore_engine.processserver.identity import write_private
from farshore_engine.processserver.lastpoint import HeldPoint
from farshore_engine.processserver.tasks.context import TaskContext, power_of, source_of, vault_of
from farshore_engine.processserver.tasks.owndisks import match_disks
from farshore_engine.vault.machine import StoredPoint
from farshore_engine.vault.reader import PointReader

LONGEST = 1800.0  # seconds for one try to get the point made and committed
LEAST_LEFT = 5.0  # seconds of certain freeze without which no plug is pulled
SILENT_FOR = 3.0  # seconds without any answer after which a machine that cut its own power is off
CONNECT = 2.0
RUNS = (MachineState.RUNNING, MachineState.STARTING)


def final_point(task: TaskAssignment, context: TaskContext) -> TaskResult:
    """See `Executor`. What was committed is noted before the power goes, so that a repeated task finds it."""
    note = context.machines_dir.parent / "final-points" / Path(task.name).name
    power = power_of(task, context)
    if (before := _finished(task, context, power, note)) is not None:
        return before
    context.progress(None, "stopping services, freezing, and sending what is left")
    hold = float(task.input.freeze_seconds)
    write_private(note, json.dumps({"asked": context.now().isoformat()}).encode())
    try:
        held = context.take_last(task.input.machine_id, hold, power is None, _patience(task, context))
    except Fault:
        note.unlink(missing_ok=True)
        raise
    try:
        write_private(note, json.dumps({"point": held.point.name}).encode())
        context.progress(None, f"{held.point.name} is committed; powering the machine off")
        if power is not None:
            _pull_plug(task, power, held)
        else:
            _await_silence(task, held)
    except Fault:
        note.unlink(missing_ok=True)
        held.release("its power-off was not confirmed")
        raise
    except BaseException:
        held.release("the process server stops")
        raise
    held.release("it is off")
    return _result(task, context, power, held.point.name)


def _pull_plug(task: TaskAssignment, power: MachineRuntime, held: HeldPoint) -> None:
    name = task.input.source_machine
    if held.seconds_left() < LEAST_LEFT:
        raise _goes_on(task, held.over() or "the freeze would not have lasted until its power was off")
    try:
        power.cut_power(name)
    except WaitFault as fault:
        if _is_off(power, name):
            return  # something of it is left behind on this host, which the next start takes away
        raise _goes_on(task, fault.message) from fault
    except StopFault as fault:
        raise _goes_on(task, fault.message) from fault
    if not _is_off(power, name):
        raise _goes_on(task, f"{name} still runs")


def _is_off(power: MachineRuntime, name: str) -> bool:
    machine = power.inspect(name)
    return machine is None or machine.state not in RUNS


def _await_silence(task: TaskAssignment, held: HeldPoint) -> None:
    """Wait until nothing at the machine's address answers. Its agent says so when it goes on, or dials in anew."""
    deadline = time.monotonic() + float(task.input.freeze_seconds)
    silent_since: float | None = None
    while not held.alive() and (time.monotonic() < deadline or silent_since is not None):
        if _answers(task):
            silent_since = None
        else:
            silent_since = silent_since or time.monotonic()
            if time.monotonic() - silent_since >= SILENT_FOR and not held.alive():
                return
        time.sleep(0.2)
    raise _goes_on(task, held.over() or "it still answers")


def _answers(task: TaskAssignment) -> bool:
    source = source_of(task)
    try:
        with socket.create_connection((source.address, source.port), timeout=CONNECT):
            return True
    except ConnectionRefusedError:
        return True  # its kernel does
    except OSError:
        return False


def _goes_on(task: TaskAssignment, why: str) -> StopFault:
    return StopFault(
        f"{task.input.source_machine or task.input.machine_id} was not powered off while it was frozen: {why}; it goes "
        "on, and replicates as before",
        "See why it cannot be powered off, or how long that takes, and start the failover anew",
        reason="NotPoweredOff",
    )


def _finished(
    task: TaskAssignment, context: TaskContext, power: MachineRuntime | None, note: Path
) -> TaskResult | None:
    """Return the result of an earlier try that was cut off behind the power-off, None where there was none."""
    try:
        noted = json.loads(note.read_text())
    except (FileNotFoundError, ValueError):
        return None
    off = _is_off(power, task.input.source_machine) if power is not None else not _answers(task)
    point = noted.get("point") or _committed_since(task, datetime.fromisoformat(noted["asked"]))
    if off and point:
        return _result(task, context, power, point)
    note.unlink(missing_ok=True)  # it thawed when this process died, and has written since
    return None


def _committed_since(task: TaskAssignment, asked: datetime) -> str:
    """Return the name of the last point that was committed before it could be noted, "" if none was."""
    with vault_of(task) as vault:
        newest = vault.newest()
    if newest is None or NOTE not in newest.manifest.notes or newest.manifest.time < asked:
        return ""
    return newest.manifest.name


def _result(task: TaskAssignment, context: TaskContext, power: MachineRuntime | None, name: str) -> TaskResult:
    with vault_of(task) as vault:
        point = vault.find(name)
        if power is None:
            said = "nothing of the machine answers any more; its disks cannot be read from here"
            return TaskResult(point=point.summary, slot=point.slot, confirmed=True, evidence=said)
        context.progress(None, "comparing the machine's disks with the point")
        said = _compared(task, power, PointReader(vault, point))
    return TaskResult(point=point.summary, slot=point.slot, confirmed=True, disks_verified=True, evidence=said)


def _compared(task: TaskAssignment, power: MachineRuntime, reader: PointReader) -> str:
    """Compare what the stopped machine left on its disks with the point.

    Raises:
        StopFault: they differ; the machine is off, and was not frozen all the time.
    """
    files = match_disks(reader.disks, power.disks(task.input.source_machine))
    differing: list[str] = []
    left_out = 0
    for disk in reader.disks:
        runs = verify(reader, disk.id, files[disk.id].path)
        wrong, swap = _without_swap(reader, disk.id, runs)
        left_out += swap
        if wrong:
            differing.append(f"{disk.name} at blocks {', '.join(f'{at}+{count}' for at, count in wrong[:5])}")
    if differing:
        raise StopFault(
            f"{task.input.source_machine} is off, but its disks hold something else than the point "
            f"{reader.point.manifest.name}: {'; '.join(differing)}",
            "It was not frozen until its power was off. Start it where it was (abort the run), and fail over anew",
            reason="DisksDiffer",
        )
    swap_said = f", but for {left_out} blocks of swap" if left_out else ""
    return f"the machine is off, and its {len(reader.disks)} disks equal the point block by block{swap_said}"


def _without_swap(reader: PointReader, disk: str, runs: list[tuple[int, int]]) -> tuple[list[tuple[int, int]], int]:
    """Take out what the point leaves out on purpose: blocks that it has as holes, if the machine has swap."""
    if not runs or not _has_swap(reader.point):
        return runs, 0
    wrong, left_out = [], 0
    for first, count in runs:
        refs = reader.lookup(disk, first, count)
        holes = int((refs["length"] == 0).sum())
        left_out += holes
        if holes < count:
            wrong.append((first, count))
    return wrong, left_out


def _has_swap(point: StoredPoint) -> bool:
    machine = point.manifest.machine
    systems = [disk.file_system for disk in machine.disks]
    systems += [part.file_system for disk in machine.disks for part in disk.partitions]
    return any(system is not None and system.kind == "swap" for system in systems)


def _patience(task: TaskAssignment, context: TaskContext) -> float:
    if task.deadline is None:
        return LONGEST
    left = (task.deadline - context.now()).total_seconds() - float(task.input.freeze_seconds) - 1.0
    return min(LONGEST, max(1.0, left))
