"""What a machine is, as its agent saw it: enough to build it again from the vault alone, without its old site.

The description travels in every recovery point. Readers ignore fields that they do not know, so that points of a
newer agent stay readable.
"""

from __future__ import annotations

from enum import StrEnum

from pydantic import Field

from farshore_engine.contract.model import Status


class BootMode(StrEnum):
    """How the firmware starts the machine; `NONE` for one without a boot loader on its disks."""

    BIOS = "bios"
    UEFI = "uefi"
    NONE = "none"


class FileSystem(Status):
    """A file system on a disk or partition; `mount_point` is empty while it is not mounted."""

    kind: str  # as blkid names it: ext4, xfs, vfat, swap, ...
    uuid: str = ""
    label: str = ""
    mount_point: str = ""
    mount_options: str = ""
    freezable: bool = False


class Partition(Status):
    """A partition; start and size in bytes."""

    name: str
    number: int
    start_bytes: int
    size_bytes: int
    type_id: str = ""
    uuid: str = ""
    file_system: FileSystem | None = None


class MachineDisk(Status):
    """A disk; `id` is the one that the vault uses, `replicated` False when it is excluded. Sizes in bytes."""

    id: str
    name: str
    size_bytes: int
    logical_sector_bytes: int = 512
    partition_table: str = ""  # gpt, dos, or empty for none
    bootable: bool = False
    replicated: bool = True
    serial: str = ""
    model: str = ""
    partitions: tuple[Partition, ...] = ()
    file_system: FileSystem | None = None  # directly on the disk, without partitions


class NetworkInterface(Status):
    """A network interface with its addresses in CIDR notation."""

    name: str
    mac: str = ""
    mtu: int = 1500
    addresses: tuple[str, ...] = ()
    gateway: str = ""
    dhcp: bool | None = None


class RecoveryScript(Status):
    """A script of `/etc/farshore/recovery.d`, run on the recovered machine in the order of the names."""

    name: str
    content: str
    mode: int = 0o755


class MachineDescription(Status):
    """The machine: identity, hardware, system, disks and network. Memory in bytes."""

    hostname: str
    os: str = ""  # PRETTY_NAME of os-release
    os_id: str = ""  # ID of os-release
    os_version: str = ""  # VERSION_ID of os-release
    kernel: str = ""
    architecture: str = "x86_64"
    cpus: int = 1
    memory_bytes: int = 0
    boot_mode: BootMode = BootMode.BIOS
    machine_uuid: str = ""
    timezone: str = ""
    disks: tuple[MachineDisk, ...] = ()
    interfaces: tuple[NetworkInterface, ...] = ()
    nameservers: tuple[str, ...] = ()
    recovery_scripts: tuple[RecoveryScript, ...] = ()
    extra: dict[str, str] = Field(default_factory=dict)  # further facts for hooks, not used by the engine
