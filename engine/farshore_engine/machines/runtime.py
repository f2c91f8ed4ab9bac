"""Recovered machines of the `local` provider: one interface over QEMU and namespace machines.

    runtime = MachineRuntime(Path("/var/lib/farshore/machines"), masked=("/var/lib/farshore",))
    running = runtime.start(MachineSpec(name="shop.db1", owner="drill-1", disks=..., description=...))
    runtime.probe(running)          # evidence from outside
    runtime.stop(running.name)      # nothing stays

Every call may be repeated, also after its process was killed in the middle: names derive from the machine's name, the
record is written before anything is made, and what exists is asked of the kernel.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.machine import BootMode, MachineDescription
from farshore_engine.machines.bootable import boot_modes
from farshore_engine.machines.directory import VALID_NAME, MachineDirectory, machine_names
from farshore_engine.machines.filesystems import file_systems, mounts_of
from farshore_engine.machines.namespace import NamespaceMachines, NamespaceSpec
from farshore_engine.machines.network import Network
from farshore_engine.machines.probe import ProbeEvidence, ProbeKind, probe
from farshore_engine.machines.qemu import QemuMachines
from farshore_engine.machines.qemu_command import QemuSpec, mac_address, serial_of, told_id
from farshore_engine.machines.remains import looked_for, remains
from farshore_engine.machines.saved import load
from farshore_engine.machines.spec import (
    Account,
    DiskFile,
    MachineKind,
    MachineSpec,
    Remains,
    Removal,
    RunningMachine,
    Script,
)

LEAST_MEMORY_MIB = 512
HOST_NAME_LENGTH = 63


class MachineRuntime:
    """The recovered machines of one run directory.

    Args:
        run_dir: directory for records, root layers and consoles; on a file system that can hold an overlay's layer.
        masked: directories of this host that a namespace machine must not see (the appliance's state and keys).
    """

    def __init__(self, run_dir: Path, *, masked: tuple[str, ...] = ()) -> None:
        self.run_dir = run_dir.absolute()
        self.masked = masked
        self._namespaces = NamespaceMachines(self.run_dir)
        self._qemu = QemuMachines(self.run_dir)

    def start(self, spec: MachineSpec) -> RunningMachine:
        """Start the machine, or find it running, or finish what a killed call began; never a second one.

        A machine whose first disk is bootable is booted by QEMU and returned before it has booted: probe it. Another
        becomes a namespace machine, returned when its sshd answers and its recovery scripts have ended.

        Raises:
            StopFault: cannot be started without a person; `RecoveryScriptFailed` leaves the machine up to be looked at.
            WaitFault: not yet; call again.
        """
        spec = _as_described(spec)
        if self._kind(spec) is MachineKind.QEMU:
            return self._qemu.start(self._qemu_spec(spec))
        running = self._namespaces.start(self._namespace_spec(spec))
        failed = [f"{script.name} (code {script.exit})" for script in running.scripts if script.exit != 0]
        if failed:
            raise StopFault(
                f"{spec.name} is up, but its recovery scripts failed: {', '.join(failed)}",
                f"Read its console, {running.console}; correct the scripts in the source's /etc/farshore/recovery.d",
                reason="RecoveryScriptFailed",
            )
        return running

    def inspect(self, name: str) -> RunningMachine | None:
        """The machine as it is now; None if there is none of this name."""
        return self._namespaces.inspect(name) or self._qemu.inspect(name)

    def list(self) -> tuple[RunningMachine, ...]:
        """Every machine of the run directory, running or not."""
        found = (self.inspect(name) for name in machine_names(self.run_dir))
        return tuple(machine for machine in found if machine is not None)

    def stop(self, name: str, *, grace: float = 0) -> Removal:
        """Take the machine away, whatever state it is in; its disks' files stay. Says what was removed.

        Args:
            grace: seconds for an orderly shutdown first; 0 pulls the plug.

        Raises:
            WaitFault: the message lists what is left; call again.
        """
        machines = self._qemu if self._recorded_kind(name) is MachineKind.QEMU else self._namespaces
        return machines.stop(name, grace=grace)

    def power_off(self, name: str, *, grace: float = 120) -> Removal:
        """Shut the machine down in order and keep it: `start` with the same spec brings it up again."""
        machines = self._qemu if self._recorded_kind(name) is MachineKind.QEMU else self._namespaces
        return machines.power_off(name, grace=grace)

    def knows(self, name: str) -> bool:
        """Whether there is a machine of this name here, running or not."""
        return VALID_NAME.fullmatch(name) is not None and self._recorded_kind(name) is not None

    def cut_power(self, name: str) -> Removal:
        """Pull the plug at once and keep the machine: what it had not written to its disks is lost, as it should be."""
        if self._recorded_kind(name) is MachineKind.QEMU:
            return self._qemu.power_off(name, grace=0)
        return self._namespaces.cut_power(name)

    def power_on(self, name: str, disks: tuple[DiskFile, ...] | None = None) -> RunningMachine:
        """Start a machine that was here before, from what it was started from; `disks` in place of its own.

        Raises:
            StopFault: it is not known here; else as `start`.
        """
        saved = load(MachineDirectory(self.run_dir, name))
        if saved is None:
            raise StopFault(
                f"this host does not know how the machine {name} was started",
                "Start it by hand",
                reason="MachineUnknown",
            )
        spec = saved if disks is None else replace(saved, disks=disks)
        return self._qemu.start(spec) if isinstance(spec, QemuSpec) else self._namespaces.start(spec)

    def disks(self, name: str) -> tuple[DiskFile, ...]:
        """The machine's disks, in its own order; nothing if it is not known how it was started."""
        saved = load(MachineDirectory(self.run_dir, name))
        return saved.disks if saved is not None else ()

    def probe(
        self,
        running: RunningMachine,
        kind: ProbeKind = ProbeKind.SSH_BANNER,
        port: int | None = None,
        timeout: float = 60,
    ) -> ProbeEvidence:
        """Ask from outside until it answers; see `probe.probe`."""
        return probe(running, kind, port, timeout)

    def disk_names(self, address: str) -> tuple[tuple[str, str], ...]:
        """Return serial number and id of the disks whose ids the agent of the machine at an address is to be told."""
        for name in machine_names(self.run_dir):
            record = MachineDirectory(self.run_dir, name).read("machine.json")
            if record is not None and record["address"] == address and record["kind"] == MachineKind.QEMU:
                return tuple((serial_of(disk), disk.id) for disk in self.disks(name) if told_id(disk))
        return ()

    def network(self, name: str) -> Network:
        """Return one of this run directory's networks."""
        return Network(str(self.run_dir.resolve()), name)

    def remains(self, name: str, network: str, disks: Path) -> Remains:
        """Look for what is left on this host of a machine that was taken away, whoever remembers it.

        Args:
            network: name of the network that it was in.
            disks: the directory of its disks.
        """
        directory = MachineDirectory(self.run_dir, name)
        return Remains(tuple(remains(directory, network, disks)), looked_for(directory, network, disks))

    def host_seen_from(self, address: str) -> str | None:
        """Return this host's address in the isolated network of the machine with that address, None if none has it."""
        for name in machine_names(self.run_dir):
            directory = MachineDirectory(self.run_dir, name)
            record = directory.read("machine.json")
            if record is not None and record["address"] == address and record["network"]:
                subnet = Network(directory.scope, record["network"]).subnet()
                return str(subnet.ip) if subnet is not None else None
        return None

    @contextmanager
    def reach(self, running: RunningMachine, port: int) -> Iterator[tuple[str, int]]:
        """Address and port where this host reaches a port of the machine, while the context lasts; raises WaitFault."""
        if running.kind is MachineKind.QEMU:
            with self._qemu.reach(running.name, port) as place:
                yield place
        else:
            yield running.address, port

    def _recorded_kind(self, name: str) -> MachineKind | None:
        record = MachineDirectory(self.run_dir, name).read("machine.json")
        return MachineKind(record["kind"]) if record else None

    def _kind(self, spec: MachineSpec) -> MachineKind:
        """What it is already, else what its first disk says: a running machine may change its own boot sector."""
        if not spec.disks:
            raise StopFault(f"{spec.name} has no disks", "Replicate at least one disk", reason="NoDisks")
        recorded = self._recorded_kind(spec.name)
        if recorded is not None:
            return recorded
        for disk in spec.disks:
            if not disk.path.is_file():
                raise StopFault(f"the disk {disk.path} of {spec.name} is not there", "Hydrate it", reason="DiskMissing")
        if _boot_disk(spec) is not None:
            return MachineKind.QEMU
        if any(disk.nbd_socket is not None for disk in spec.disks):
            raise StopFault(
                f"{spec.name} has no boot loader on its disks, and only such a machine runs while they stream in",
                "Hydrate its disks first",
                reason="NotBootable",
            )
        return MachineKind.NAMESPACE

    def _qemu_spec(self, spec: MachineSpec) -> QemuSpec:
        described = spec.description
        boot_disk = _boot_disk(spec) or 0
        modes = boot_modes(spec.disks[boot_disk].path)
        wants_uefi = described.boot_mode is BootMode.UEFI or BootMode.BIOS not in modes
        address, gateway = (spec.address, "") if spec.address else _fixed_address(described)
        return QemuSpec(
            name=spec.name,
            disks=spec.disks,
            memory_mib=spec.memory_mib or max(described.memory_bytes >> 20, LEAST_MEMORY_MIB),
            cpus=spec.cpus or min(max(described.cpus, 1), os.cpu_count() or 1),
            boot=BootMode.UEFI if wants_uefi and BootMode.UEFI in modes else BootMode.BIOS,
            boot_disk=boot_disk,
            fixed_address=address,
            gateway=gateway,
            network=spec.network if spec.address else "",
            mac=mac_address(str(self.run_dir), spec.name) if spec.address else "",
            owner=spec.owner,
        )

    def _namespace_spec(self, spec: MachineSpec) -> NamespaceSpec:
        scripts = sorted(spec.description.recovery_scripts, key=lambda script: script.name)
        return NamespaceSpec(
            name=spec.name,
            hostname=spec.description.hostname.split(".")[0][:HOST_NAME_LENGTH] or "recovered",
            network=spec.network,
            disks=spec.disks,
            mounts=mounts_of(spec.description, spec.disks),
            accounts=spec.accounts or (Account("root", None, spec.authorized_keys),),
            scripts=tuple(Script(script.name, script.content, script.mode) for script in scripts),
            masked=(*self.masked, *_directories(spec.disks)),
            owner=spec.owner,
        )


def _as_described(spec: MachineSpec) -> MachineSpec:
    """The spec with the sector sizes that its disks had."""
    sectors = {disk.id: disk.logical_sector_bytes for disk in spec.description.disks}
    disks = tuple(replace(disk, sector_bytes=sectors.get(disk.id, disk.sector_bytes)) for disk in spec.disks)
    return replace(spec, disks=disks)


def _boot_disk(spec: MachineSpec) -> int | None:
    """Index of the disk to boot: the first, or the one that held the root, if a boot loader is on it."""
    roots = {disk.id for disk in spec.description.disks for _, held in file_systems(disk) if held.mount_point == "/"}
    for index, file in enumerate(spec.disks):
        if (index == 0 or file.id in roots) and boot_modes(file.path):
            return index
    return None


def _fixed_address(described: MachineDescription) -> tuple[str, str]:
    """The first IPv4 address of the machine, in CIDR notation, and its gateway; empty if it had none."""
    for interface in described.interfaces:
        for address in interface.addresses:
            if "." in address and "/" in address and not address.startswith(("127.", "169.254.")):
                return address, interface.gateway
    return "", ""


def _directories(disks: tuple[DiskFile, ...]) -> tuple[str, ...]:
    return tuple(sorted({str(disk.path.resolve().parent) for disk in disks}))
