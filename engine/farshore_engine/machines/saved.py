"""What a machine was started from, kept beside its record, so that it can be started again by its name alone.

It may hold a password of the machine, so the file is its owner's alone, like the directory that it lies in.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farshore_engine.contract.machine import BootMode
from farshore_engine.machines.directory import MachineDirectory
from farshore_engine.machines.spec import Account, DiskFile, MachineKind, Mount, Script

if TYPE_CHECKING:
    from farshore_engine.machines.namespace import NamespaceSpec
    from farshore_engine.machines.qemu_command import QemuSpec

FILE = "spec.json"


def save(directory: MachineDirectory, kind: MachineKind, spec: NamespaceSpec | QemuSpec) -> None:
    """Keep what a machine is started from."""
    fields = asdict(spec)
    for disk in fields["disks"]:
        disk["path"], disk["nbd_socket"] = str(disk["path"]), str(disk["nbd_socket"] or "")
    directory.write(FILE, {"kind": kind.value, "spec": fields})
    (directory.path / FILE).chmod(0o600)


def load(directory: MachineDirectory) -> NamespaceSpec | QemuSpec | None:
    """Return what a machine was started from, None if that is not known."""
    from farshore_engine.machines.namespace import NamespaceSpec  # which saves through this module
    from farshore_engine.machines.qemu_command import QemuSpec

    record = directory.read(FILE)
    if record is None:
        return None
    fields: dict[str, Any] = dict(record["spec"])
    fields["disks"] = tuple(_disk(disk) for disk in fields["disks"])
    for name, value in fields.items():
        if isinstance(value, list):
            fields[name] = tuple(value)
    if MachineKind(record["kind"]) is MachineKind.QEMU:
        return QemuSpec(**{**fields, "boot": BootMode(fields["boot"])})
    fields["mounts"] = tuple(Mount(**mount) for mount in fields["mounts"])
    fields["scripts"] = tuple(Script(**script) for script in fields["scripts"])
    keys = "authorized_keys"
    fields["accounts"] = tuple(Account(**{**account, keys: tuple(account[keys])}) for account in fields["accounts"])
    return NamespaceSpec(**fields)


def with_disks(spec: NamespaceSpec | QemuSpec, disks: tuple[DiskFile, ...]) -> NamespaceSpec | QemuSpec:
    """Return the same machine on other disks."""
    return replace(spec, disks=disks)


def _disk(fields: dict[str, Any]) -> DiskFile:
    socket = fields["nbd_socket"]
    return DiskFile(**{**fields, "path": Path(fields["path"]), "nbd_socket": Path(socket) if socket else None})
