"""What a machine of this host is made from, and what can be seen of it. Frozen; shared by both kinds of machine."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from farshore_engine.contract.machine import MachineDescription

DEFAULT_NETWORK = "default"


class MachineKind(StrEnum):
    """How a machine is run."""

    QEMU = "qemu"
    NAMESPACE = "namespace"


class MachineState(StrEnum):
    """What is observed of a machine now."""

    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True)
class DiskFile:
    """A raw disk on this host.

    Args:
        path: absolute path of the raw file.
        id: the disk's id in the vault.
        name: the name the source machine gave it, such as `sda`; for people.
        sector_bytes: its logical sector size.
        nbd_socket: Unix socket of the NBD server that serves the disk under its id while `path`, its overlay, still
            fills (`nbd.serving`); None when the file is the whole disk.
    """

    path: Path
    id: str
    name: str = ""
    sector_bytes: int = 512
    nbd_socket: Path | None = None


@dataclass(frozen=True)
class Script:
    """A recovery script: file name (they run in the order given), permission bits and content."""

    name: str
    content: str
    mode: int = 0o755


@dataclass(frozen=True)
class Account:
    """A login. Root, or a user that is made; `sudo` asks for the password if there is one."""

    user: str = "root"
    password: str | None = field(default=None, repr=False)
    authorized_keys: tuple[str, ...] = ()
    sudo: bool = False


@dataclass(frozen=True)
class Mount:
    """A file system of a disk and its place in the machine.

    Args:
        disk: index of the disk in the machine's disks.
        path: absolute mount point.
        kind: file system type, empty to let mount find out.
        partition: number of the partition, 0 for the whole disk.
        options: mount options, comma separated.
        uuid: UUID of the file system; when it is given, the file system is found by it, wherever it is.
    """

    disk: int
    path: str
    kind: str = ""
    partition: int = 0
    options: str = ""
    uuid: str = ""


@dataclass(frozen=True)
class MachineSpec:
    """A recovered machine to run: what `runtime.MachineRuntime.start` takes.

    Args:
        name: unique within the runtime's run directory.
        owner: the run or drill that it belongs to; on record with the machine.
        disks: its hydrated disks, in the order of the description.
        description: what its agent recorded of it.
        network: name of the isolated network; machines with the same one reach each other, but for those that boot
            their own disk and have no `address`.
        address: address in the network, in CIDR notation, that the disks of a machine that boots them were prepared
            for; empty for user-mode networking, which looks like the machine's old network and lets nothing out.
        memory_mib: MiB; by default as described, at least 512.
        cpus: by default as described, at most as many as this host has.
        authorized_keys: public keys that may log in as root to a namespace machine.
        accounts: logins of a namespace machine, which has this host's root; others have theirs on their disks.
    """

    name: str
    owner: str
    disks: tuple[DiskFile, ...]
    description: MachineDescription
    network: str = DEFAULT_NETWORK
    address: str = ""
    memory_mib: int | None = None
    cpus: int | None = None
    authorized_keys: tuple[str, ...] = ()
    accounts: tuple[Account, ...] = ()


@dataclass(frozen=True)
class ScriptResult:
    """How a recovery script ended: its exit code (124: it ran out of time) and the seconds it took."""

    name: str
    exit: int
    seconds: float


@dataclass(frozen=True)
class RunningMachine:
    """A machine as it is observed.

    Args:
        address: where this host reaches it.
        port: port of its sshd at that address.
        pid: its process on this host (QEMU, or process 1 of the namespace); None when there is none.
        console: the file that holds its console output.
        detail: why it failed, or what it waits for; empty when it runs.
        owner: the run or drill that it belongs to.
    """

    name: str
    kind: MachineKind
    state: MachineState
    address: str
    port: int
    pid: int | None
    console: Path
    detail: str = ""
    owner: str = ""
    scripts: tuple[ScriptResult, ...] = ()


@dataclass(frozen=True)
class Remains:
    """What was found of a machine that should be gone.

    Args:
        left: in words; empty when nothing is left.
        looked_for: what was looked for, in words.
    """

    left: tuple[str, ...]
    looked_for: tuple[str, ...]


@dataclass(frozen=True)
class Removal:
    """What `stop` took away.

    Args:
        removed: in words for a journal; empty when there was nothing.
        orderly: whether the machine shut itself down within the grace, so that its file systems are clean.
    """

    removed: tuple[str, ...] = ()
    orderly: bool = False
