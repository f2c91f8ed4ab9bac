"""QEMU machines: a recovered VM that boots its own disk.

KVM is used where the processor offers it, else TCG. The guest is isolated: user-mode networking with `restrict=on`
forwards one port of this host's loopback to its sshd and lets nothing out. A guest that had a fixed address keeps it,
whether it asks by DHCP or not. With `QemuSpec.network` it gets a tap in an isolated bridge instead.

    machines = QemuMachines(Path("/run/farshore/machines"))
    running = machines.start(QemuSpec(name="web1", disks=(DiskFile(path, "d0"),), memory_mib=1024, cpus=2))
    machines.power_off("web1")      # the power button
    machines.stop("web1")           # at once, and nothing stays
"""

from __future__ import annotations

import builtins
import ipaddress
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.machines.directory import MachineDirectory, machine_names
from farshore_engine.machines.network import Network, Tap
from farshore_engine.machines.process import ProcessRef
from farshore_engine.machines.qemu_command import (
    NETDEV,
    QEMU,
    QMP_SOCKET,
    QemuSpec,
    command_line,
    guest_address,
    pidfile,
)
from farshore_engine.machines.qmp import QmpSession
from farshore_engine.machines.saved import save
from farshore_engine.machines.spec import MachineKind, MachineState, Removal, RunningMachine

PORT_ATTEMPTS = 5
LAUNCH_SECONDS = 120
GONE_SECONDS = 1.0
SSH_PORT = 22


class QemuMachines:
    """The QEMU machines of one run directory. Every method may be repeated, by any process, also after a crash."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir.absolute()

    def start(self, spec: QemuSpec) -> RunningMachine:
        """Start the machine, or find it running; returns when QEMU runs it, which is long before it has booted.

        Raises:
            StopFault: QEMU is missing or refuses (`QemuFailed`), no UEFI firmware is installed (`FirmwareMissing`), or
                the name runs with other disks (`MachineConflict`).
        """
        directory = MachineDirectory(self.run_dir, spec.name)
        with directory.lock():
            if _process_of(directory) is None:
                self._take_down(directory, grace=0, keep=True)
                self._launch(directory, spec)
            else:
                directory.require_same_disks(spec.disks)
            found = self._observe(directory)
        assert found is not None  # its record was written under this lock
        return found

    def inspect(self, name: str) -> RunningMachine | None:
        """The machine as it is now; None if this run directory does not hold it."""
        return self._observe(MachineDirectory(self.run_dir, name))

    def list(self) -> tuple[RunningMachine, ...]:
        """Every QEMU machine of the run directory."""
        found = (self.inspect(name) for name in machine_names(self.run_dir))
        return tuple(machine for machine in found if machine is not None)

    def stop(self, name: str, *, grace: float = 0) -> Removal:
        """Take the machine away; its disks' files stay.

        Args:
            grace: seconds that the guest has to shut itself down; 0 pulls the plug.

        Raises:
            WaitFault: something is still there; the message lists it, and the call may be repeated.
        """
        directory = MachineDirectory(self.run_dir, name)
        with directory.lock():
            return self._take_down(directory, grace=grace, keep=False)

    def power_off(self, name: str, *, grace: float = 120) -> Removal:
        """Press the power button and wait `grace` seconds before the plug is pulled; `start` boots it again."""
        directory = MachineDirectory(self.run_dir, name)
        with directory.lock():
            return self._take_down(directory, grace=grace, keep=True)

    @contextmanager
    def reach(self, name: str, port: int) -> Iterator[tuple[str, int]]:
        """Where this host reaches a port of the guest while the context lasts; its sshd is always reached.

        Raises:
            WaitFault: QEMU does not answer, or does not forward.
        """
        directory = MachineDirectory(self.run_dir, name)
        record = directory.read("machine.json")
        if record is None:
            raise WaitFault(f"there is no machine {name}", reason="NotRunning")
        if port == SSH_PORT or record["network"]:
            yield record["address"], record["port"] if port == SSH_PORT else port
            return
        here = _free_port()
        with QmpSession(directory.path, QMP_SOCKET) as session:
            said = session.monitor(f"hostfwd_add {NETDEV} tcp:127.0.0.1:{here}-{record.get('guest', '')}:{port}")
        if said:
            raise WaitFault(f"QEMU does not forward port {port} of {name}: {said}", reason="NotForwarded")
        try:
            yield "127.0.0.1", here
        finally:
            with QmpSession(directory.path, QMP_SOCKET) as session:
                session.monitor(f"hostfwd_remove {NETDEV} tcp:127.0.0.1:{here}")

    def _launch(self, directory: MachineDirectory, spec: QemuSpec) -> None:
        if shutil.which(QEMU) is None:
            raise StopFault(
                f"{QEMU} is not installed here", "Install the package qemu-system-x86", reason="ToolMissing"
            )
        for disk in spec.disks:
            if not disk.path.is_file():
                raise StopFault(f"the disk {disk.path} is not there", "Hydrate the disk again", reason="DiskMissing")
        directory.create()
        record: dict[str, Any] = {
            "kind": MachineKind.QEMU.value,
            "network": spec.network,
            "owner": spec.owner,
            "disks": [
                {**asdict(disk), "path": str(disk.path), "nbd_socket": str(disk.nbd_socket or "")}
                for disk in spec.disks
            ],
            "address": spec.fixed_address.partition("/")[0] if spec.network else "127.0.0.1",
            "guest": guest_address(spec),
            "port": 0,
        }
        directory.write("machine.json", record)
        save(directory, MachineKind.QEMU, spec)
        if spec.network:
            fixed = ipaddress.IPv4Interface(spec.fixed_address) if spec.fixed_address else None
            Tap(Network(directory.scope, spec.network), spec.name).plug(fixed)
        for _ in range(PORT_ATTEMPTS):
            record["port"] = SSH_PORT if spec.network else _free_port()
            directory.write("machine.json", record)
            said = _run_qemu(command_line(directory, spec, record["port"]), directory)
            if "host forwarding" not in said:  # somebody else took the port meanwhile
                break
        if said:
            raise StopFault(f"QEMU did not start {spec.name}: {said}", "Read what it says", reason="QemuFailed")

    def _take_down(self, directory: MachineDirectory, *, grace: float, keep: bool) -> Removal:
        record = directory.read("machine.json")
        removed: builtins.list[str] = []
        left: builtins.list[str] = []
        process = _process_of(directory)
        orderly = False
        if process is not None:
            orderly = grace > 0 and _tell(directory, "system_powerdown") and process.wait(grace)
            if not orderly and _tell(directory, "quit"):
                process.wait(10)
            (removed if process.kill() else left).append(f"process {process.pid}")
        if record is not None and record["network"]:
            tap = Tap(Network(directory.scope, record["network"]), directory.name)
            left += tap.unplug()
        if left:
            raise WaitFault(
                f"the machine {directory.name} left {', '.join(left)} behind",
                "It is tried again; look at what holds it if this repeats",
                reason="MachineNotRemoved",
                retry_after=5,
            )
        if not keep and directory.remove():
            removed.append(f"directory {directory.path}")
        return Removal(tuple(removed), orderly)

    def _observe(self, directory: MachineDirectory) -> RunningMachine | None:
        record = directory.read("machine.json")
        if record is None or record["kind"] != MachineKind.QEMU:
            return None
        process = _process_of(directory)
        state, detail = MachineState.STOPPED, ""
        if process is not None:
            try:
                with QmpSession(directory.path, QMP_SOCKET) as session:
                    status = str(session.execute("query-status")["status"])
            except WaitFault as silent:
                state, detail = MachineState.STARTING, silent.message
            else:
                state = MachineState.RUNNING if status == "running" else MachineState.FAILED
                detail = "" if status == "running" else f"QEMU says {status}"
        return RunningMachine(
            name=directory.name,
            kind=MachineKind.QEMU,
            state=state,
            address=record["address"],
            port=record["port"],
            pid=process.pid if process else None,
            console=directory.console,
            detail=detail,
            owner=record["owner"],
        )


def _run_qemu(command: list[str], directory: MachineDirectory) -> str:
    """Launch QEMU detached and wait until it answers; what it said if it failed, empty when it runs.

    Not by its own -daemonize, which forks and so cannot be combined with a sandbox that forbids to fork.
    """
    log = directory.path / "qemu.log"
    with log.open("wb") as errors:
        launch = ["setsid", "--fork", *command]
        subprocess.run(launch, cwd=directory.path, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors, check=False)
    begun = time.monotonic()
    missed: float | None = None
    while not log.stat().st_size:
        if _process_of(directory) is not None:
            missed = None
            if _tell(directory, "query-status"):
                return ""
        # A process that is just replacing its program shows no command line for a moment: absence must last.
        elif missed is None:
            missed = time.monotonic()
        elif time.monotonic() - missed >= GONE_SECONDS:
            break
        if time.monotonic() - begun > LAUNCH_SECONDS:
            return f"it did not answer within {LAUNCH_SECONDS} s"
        time.sleep(0.02)
    return log.read_text(errors="replace").strip()[-800:] or "it ended without a word"


def _process_of(directory: MachineDirectory) -> ProcessRef | None:
    """The QEMU process of this machine: the one whose command line names this machine's own pid file.

    Found by search, not by record: a creator that is killed right after the launch has recorded nothing.
    """
    mark = f"\0-pidfile\0{pidfile(directory)}\0".encode()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                line = (entry / "cmdline").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if mark in line:
                found = ProcessRef.of(int(entry.name))
                if found is not None:
                    return found
    return None


def _tell(directory: MachineDirectory, command: str) -> bool:
    try:
        with QmpSession(directory.path, QMP_SOCKET) as session:
            session.execute(command)
    except Fault:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
