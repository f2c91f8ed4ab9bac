"""Namespace machines: a machine without a bootable disk, up in a fraction of a second.

A namespace machine has its own network, host name, processes and root (a layer over the host's root), its own real
sshd, and nothing in /dev but its own disks. It shares the host's kernel. It outlives its creator; `stop` finds what
belongs to it by name alone.

    machines = NamespaceMachines(Path("/run/farshore/machines"))
    running = machines.start(NamespaceSpec(name="db1", hostname="db1", network="drill", disks=(DiskFile(path, "d0"),),
                                           mounts=(Mount(0, "/data", "ext4"),), accounts=(Account("root", "secret"),)))
    machines.exec("db1", ["df", "/data"])
    machines.stop("db1")
"""

from __future__ import annotations

import builtins
import hashlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.machines import loop, namespace_init
from farshore_engine.machines.directory import MachineDirectory, machine_names
from farshore_engine.machines.filesystems import mount_plan, shut_down, thaw_orphans
from farshore_engine.machines.network import Network, Port
from farshore_engine.machines.process import ProcessRef
from farshore_engine.machines.saved import save
from farshore_engine.machines.spec import (
    Account,
    DiskFile,
    MachineKind,
    MachineState,
    Mount,
    Removal,
    RunningMachine,
    Script,
    ScriptResult,
)

SSH_PORT = 22


@dataclass(frozen=True)
class NamespaceSpec:
    """What to bring up.

    Args:
        network: name of the network within the run directory; machines with the same one reach each other.
        masked: directories of the host that must not be seen inside (spool, keys); the run directory always is.
        hosts: further lines of /etc/hosts.
        extra_addresses: further addresses of `eth0`.
        script_seconds: how long one recovery script may take.
    """

    name: str
    hostname: str
    network: str
    disks: tuple[DiskFile, ...] = ()
    mounts: tuple[Mount, ...] = ()
    accounts: tuple[Account, ...] = ()
    scripts: tuple[Script, ...] = ()
    masked: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    extra_addresses: tuple[str, ...] = ()
    script_seconds: float = 300
    owner: str = ""


class NamespaceMachines:
    """The namespace machines of one run directory.

    Every method may be called from any process, again after a crash, and by several callers at once.
    """

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir.absolute()

    def start(self, spec: NamespaceSpec, *, patience: float = 180) -> RunningMachine:
        """Bring the machine up, or find it running; returns when sshd answers and the recovery scripts have ended.

        A machine that was left half made is taken down and made anew; its root layer and its disks are kept.

        Raises:
            StopFault: a disk is in use or cannot be mounted, a tool is missing or failed.
            WaitFault: the machine did not become ready within `patience` seconds.
        """
        directory = MachineDirectory(self.run_dir, spec.name)
        with directory.lock() as lock:
            found = self._observe(directory)
            if found is None or found.state not in (MachineState.RUNNING, MachineState.STARTING):
                self._take_down(directory, grace=0, keep_root=True)
                self._bring_up(directory, spec, lock)
            else:
                directory.require_same_disks(spec.disks)
        return self._await_ready(directory, patience)

    def inspect(self, name: str) -> RunningMachine | None:
        """The machine as it is now; None if this run directory does not hold it."""
        return self._observe(MachineDirectory(self.run_dir, name))

    def list(self) -> tuple[RunningMachine, ...]:
        """Every namespace machine of the run directory."""
        found = (self.inspect(name) for name in machine_names(self.run_dir))
        return tuple(machine for machine in found if machine is not None)

    def stop(self, name: str, *, grace: float = 5) -> Removal:
        """Take the machine away: processes, network, loop devices, directory; its disks' files stay.

        Args:
            grace: seconds for an orderly power-off before its process 1 is killed; 0 kills at once.

        Raises:
            WaitFault: something is still there; the message lists it, and the call may be repeated.
        """
        directory = MachineDirectory(self.run_dir, name)
        with directory.lock():
            return self._take_down(directory, grace=grace, keep_root=False)

    def power_off(self, name: str, *, grace: float = 10) -> Removal:
        """Shut the machine down in order; its root layer stays, and `start` brings it up again."""
        directory = MachineDirectory(self.run_dir, name)
        with directory.lock():
            return self._take_down(directory, grace=grace, keep_root=True)

    def cut_power(self, name: str) -> Removal:
        """Take its power away: what is frozen or was not written back stays unwritten. `start` brings it up again.

        The kernel is shared, so its file systems are shut down as they are, which is what a power cut does to them.

        Raises:
            WaitFault: something is still there; the message lists it, and the call may be repeated.
        """
        directory = MachineDirectory(self.run_dir, name)
        with directory.lock():
            init = self._init_of(directory)
            record = directory.read("machine.json")
            if init is not None and record is not None:
                with shut_down([f"/proc/{init.pid}/root{path}" for path in record["mounts"]]):
                    init.signal(signal.SIGKILL)
            return self._take_down(directory, grace=0, keep_root=True)

    def exec(
        self, name: str, command: Sequence[str], *, stdin: str = "", timeout: float = 60
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside as root, with the machine's environment, and give what it said.

        Raises:
            StopFault: the machine does not run.
            subprocess.TimeoutExpired: the command took longer than `timeout` seconds.
        """
        return subprocess.run(
            self.enter(name, command), input=stdin, capture_output=True, text=True, timeout=timeout, check=False
        )

    def enter(self, name: str, command: Sequence[str]) -> tuple[str, ...]:
        """The command line that runs `command` inside the machine."""
        directory = MachineDirectory(self.run_dir, name)
        init = self._init_of(directory)
        if init is None:
            raise StopFault(f"the machine {name} does not run", "Start it first", reason="MachineNotRunning")
        namespaces = ["--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd"]
        environment = [f"{key}={value}" for key, value in namespace_init.ENVIRONMENT.items()]
        return ("nsenter", "--target", str(init.pid), *namespaces, "--", "env", "-i", *environment, *command)

    def loop_devices(self, name: str) -> tuple[str, ...]:
        """The loop devices of the machine's disks, in the order of the disks; empty where one is not attached."""
        record = MachineDirectory(self.run_dir, name).read("machine.json") or {"disks": []}
        return tuple(next(iter(loop.devices_of(Path(disk["path"]))), "") for disk in record["disks"])

    def _bring_up(self, directory: MachineDirectory, spec: NamespaceSpec, lock: int) -> None:
        for disk in spec.disks:  # before it is on record: `stop` must never detach another machine's disk
            loop.require_free(disk.path)
        directory.create()
        port = Port(Network(directory.scope, spec.network), spec.name)
        record = {
            "kind": MachineKind.NAMESPACE.value,
            "network": spec.network,
            "owner": spec.owner,
            "disks": [{**asdict(disk), "path": str(disk.path)} for disk in spec.disks],
            "mounts": [mount.path for mount in spec.mounts],
            "address": "",
        }
        directory.write("machine.json", record)
        save(directory, MachineKind.NAMESPACE, spec)
        address = port.plug(spec.extra_addresses)
        directory.write("machine.json", record | {"address": address})
        devices = [loop.attach(disk.path, sector_bytes=disk.sector_bytes) for disk in spec.disks]
        mounts = [mount_plan(mount, devices) for mount in spec.mounts]
        plan = _plan(directory, spec, port, devices, mounts) | {"lock": lock}
        with directory.console.open("ab") as console:
            launcher = subprocess.Popen(
                [sys.executable, "-I", "-S", namespace_init.__file__],
                stdin=subprocess.PIPE,
                stdout=console,
                stderr=console,
                start_new_session=True,
                # So that nobody takes the half-made machine for a dead one if this process dies now.
                pass_fds=(lock,),
            )
            launcher.communicate(json.dumps(plan).encode())
        if launcher.returncode != 0:
            raise StopFault(
                f"the machine {spec.name} could not be made",
                f"Read its console, {directory.console}",
                reason="MachineFailed",
            )

    def _take_down(self, directory: MachineDirectory, *, grace: float, keep_root: bool) -> Removal:
        record = directory.read("machine.json")
        if record is None:
            existed = not keep_root and directory.remove()
            return Removal((f"directory {directory.path}",) if existed else ())
        port = Port(Network(directory.scope, record["network"]), directory.name)
        removed: builtins.list[str] = []
        left: builtins.list[str] = []
        init = self._init_of(directory)
        orderly = False
        if init is not None:
            namespace_init.thaw([f"/proc/{init.pid}/root{path}" for path in record["mounts"]])
            orderly = init.ask(grace)
            init.kill(patience=2)
        entered = [found for found in map(ProcessRef.of, port.pids()) if found is not None and found != init]
        for process in entered:
            process.signal(signal.SIGKILL)
        # A process that waits for a frozen file system dies only when that is thawed, so the disks come in between.
        for disk in record["disks"]:
            removed += _detach(directory, Path(disk["path"]))
            left += loop.devices_of(Path(disk["path"]))
        for process in [init, *entered] if init is not None else entered:
            (removed if process.kill() else left).append(f"process {process.pid}")
        had_network = port.address() is not None
        left += port.unplug()
        removed += [f"network namespace {port.netns}"] if had_network else []
        if left:
            raise WaitFault(
                f"the machine {directory.name} left {', '.join(left)} behind",
                "It is tried again; look for a process that holds it if this repeats",
                reason="MachineNotRemoved",
                retry_after=5,
            )
        (directory.path / "init.json").unlink(missing_ok=True)
        if not keep_root and directory.remove():
            removed.append(f"directory {directory.path}")
        return Removal(tuple(removed), orderly)

    def _init_of(self, directory: MachineDirectory) -> ProcessRef | None:
        record = directory.read("init.json")
        init = ProcessRef(record["pid"], record["start_ticks"]) if record else None
        return init if init is not None and init.alive() else None

    def _observe(self, directory: MachineDirectory) -> RunningMachine | None:
        record = directory.read("machine.json")
        if record is None or record["kind"] != MachineKind.NAMESPACE:
            return None
        init = self._init_of(directory)
        boot = directory.read("boot.json") or {"phase": "starting", "error": "", "scripts": []}
        state = {"ready": MachineState.RUNNING, "failed": MachineState.FAILED}.get(boot["phase"], MachineState.STARTING)
        if init is None:
            state = MachineState.FAILED if boot["phase"] == "failed" else MachineState.STOPPED
        return RunningMachine(
            name=directory.name,
            kind=MachineKind.NAMESPACE,
            state=state,
            address=record["address"],
            port=SSH_PORT,
            pid=init.pid if init else None,
            console=directory.console,
            detail=boot["error"],
            owner=record["owner"],
            scripts=tuple(ScriptResult(**script) for script in boot["scripts"]),
        )

    def _await_ready(self, directory: MachineDirectory, patience: float) -> RunningMachine:
        deadline = time.monotonic() + patience
        while True:
            found = self._observe(directory)
            if found is not None and found.state is MachineState.RUNNING:
                return found
            if found is None or found.state in (MachineState.FAILED, MachineState.STOPPED):
                why = found.detail if found else "it was stopped"
                raise StopFault(
                    f"the machine {directory.name} did not come up: {why or 'it ended'}",
                    f"Read its console, {directory.console}",
                    reason="MachineFailed",
                )
            if time.monotonic() >= deadline:
                raise WaitFault(
                    f"the machine {directory.name} is not ready after {patience:.0f} s",
                    f"It goes on; its console is {directory.console}",
                    reason="MachineStarting",
                )
            time.sleep(0.01)


def _detach(directory: MachineDirectory, disk: Path) -> list[str]:
    """Detach the disk's loop devices; gives those that are gone."""
    devices = loop.devices_of(disk)
    for device in loop.detach(disk, patience=2):
        thaw_orphans(device, directory.path / "thaw")
    still = loop.detach(disk)
    return [device for device in devices if device not in still]


def _plan(
    directory: MachineDirectory, spec: NamespaceSpec, port: Port, devices: list[str], mounts: list[dict[str, str]]
) -> dict[str, Any]:
    """What `namespace_init` reads: everything it needs, so that it asks nobody after the pivot."""
    return {
        "directory": str(directory.path),
        "netns": f"/run/netns/{port.netns}",
        "hostname": spec.hostname,
        "address": port.address(),
        "machine_id": hashlib.blake2b(f"{directory.scope}\0{spec.name}".encode(), digest_size=16).hexdigest(),
        "nodes": [node for device in devices for node in loop.nodes_of(device)],
        "mounts": mounts,
        "accounts": [asdict(account) for account in spec.accounts],
        "scripts": [asdict(script) for script in spec.scripts],
        "script_seconds": spec.script_seconds,
        "masked": [directory.scope, *spec.masked],
        "hosts": list(spec.hosts),
    }
