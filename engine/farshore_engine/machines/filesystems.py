"""Finds the file systems of a recovered machine on its disks and makes them fit to mount on this host's kernel."""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.machine import FileSystem, MachineDescription, MachineDisk
from farshore_engine.machines.commands import attempt
from farshore_engine.machines.loop import nodes_of
from farshore_engine.machines.spec import DiskFile, Mount

# Options of the source that mean the same here; the others are left to the kernel's defaults.
PORTABLE_OPTIONS = frozenset({"ro", "noatime", "relatime", "nodiratime", "noexec", "nosuid", "nodev", "sync"})
SHUTDOWN, SHUTDOWN_WITHOUT_LOG = 0x8004587D, 2  # EXT4_IOC_SHUTDOWN, which is XFS_IOC_GOINGDOWN
FITHAW = 0xC0045878
MOUNTABLE = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "vfat"})


def mounts_of(description: MachineDescription, disks: Sequence[DiskFile]) -> tuple[Mount, ...]:
    """Where the file systems of the given disks were mounted, outermost first.

    The root file system is left out: a namespace machine has this host's.
    """
    described = {disk.id: disk for disk in description.disks}
    mounts = [
        Mount(index, system.mount_point, system.kind, number, _portable(system.mount_options), system.uuid)
        for index, file in enumerate(disks)
        if file.id in described
        for number, system in file_systems(described[file.id])
        if system.kind in MOUNTABLE and system.mount_point.startswith("/") and system.mount_point != "/"
    ]
    return tuple(sorted(mounts, key=lambda mount: (mount.path.count("/"), mount.path)))


def mount_plan(mount: Mount, devices: Sequence[str]) -> dict[str, str]:
    """Find the file system of a mount on the attached devices, repair it as at boot, and say how to mount it.

    Raises:
        StopFault: it is not there (`FileSystemMissing`), or needs more than a boot's repair (`FileSystemDamaged`).
    """
    node = _locate(mount, devices)
    kind = mount.kind or probe_tag(node, "TYPE")
    if kind.startswith("ext"):
        _replay(node, mount)
    # The source may be mounted on this very kernel, as in the demo, and xfs refuses to mount one UUID twice.
    options = [*filter(None, mount.options.split(",")), *(["nouuid"] if kind == "xfs" else [])]
    return {"device": node, "path": mount.path, "kind": kind, "options": ",".join(options) or "defaults"}


@contextmanager
def shut_down(mount_points: Sequence[str]) -> Iterator[None]:
    """Run the block, then let nothing more be written to these file systems, frozen or not, as in a power cut.

    ext4 and xfs can be shut down without writing anything back. Others are only thawed, and written back as they are
    unmounted.
    """
    with ExitStack() as stack:
        handles = []
        for point in mount_points:
            try:
                handles.append(os.open(point, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
            except OSError:
                continue
            stack.callback(os.close, handles[-1])
        yield
        for handle in handles:
            for request, argument in ((SHUTDOWN, SHUTDOWN_WITHOUT_LOG), (FITHAW, 0)):
                with suppress(OSError):
                    fcntl.ioctl(handle, request, struct.pack("=I", argument))


def thaw_orphans(device: str, mount_point: Path) -> None:
    """Thaw what is frozen on a device whose machine is dead: nobody has it mounted, but the freeze holds the device.

    Mounting it once more gives a handle on the frozen file system. That is done in a mount namespace of its own, so
    that nothing stays when this process is killed meanwhile.
    """
    mount_point.mkdir(exist_ok=True)
    thaw = 'mount "$0" "$1" && { fsfreeze --unfreeze "$1"; umount "$1"; }'
    for node in nodes_of(device):
        attempt(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", thaw, node, str(mount_point)], timeout=20
        )


def file_systems(disk: MachineDisk) -> list[tuple[int, FileSystem]]:
    """The file systems of a described disk, each with the number of its partition (0: on the bare disk)."""
    whole = [(0, disk.file_system)] if disk.file_system else []
    return whole + [(part.number, part.file_system) for part in disk.partitions if part.file_system]


def _portable(options: str) -> str:
    return ",".join(option for option in options.split(",") if option in PORTABLE_OPTIONS)


def _locate(mount: Mount, devices: Sequence[str]) -> str:
    expected = devices[mount.disk] + (f"p{mount.partition}" if mount.partition else "")
    nodes = [node for device in devices for node in nodes_of(device)]
    ordered = sorted(nodes, key=lambda node: node != expected)
    for node in ordered:
        if mount.uuid and probe_tag(node, "UUID").lower() == mount.uuid.lower():
            return node
    if mount.uuid or expected not in nodes:
        sought = f"file system {mount.uuid}" if mount.uuid else f"partition {mount.partition} of disk {mount.disk}"
        raise StopFault(
            f"the {sought} for {mount.path} is on none of the machine's disks",
            "Choose another recovery point, or exclude that file system",
            reason="FileSystemMissing",
        )
    return expected


def probe_tag(node: str, tag: str) -> str:
    """A tag of the file system on a node, read from the node itself (no cache); empty if there is none."""
    code, output, _ = attempt(["blkid", "--probe", "--match-tag", tag, "--output", "value", node])
    return output.strip() if code == 0 else ""


def _replay(node: str, mount: Mount) -> None:
    """Replay the journal and make the repairs that are safe without a person, as every boot does."""
    code, output, errors = attempt(["e2fsck", "-p", node], timeout=3600)
    if (
        code > 2
    ):  # 0 clean, 1 repaired, 2 repaired and wants a reboot, which a file system not yet mounted does not need
        raise StopFault(
            f"the file system for {mount.path} is damaged: {(output + errors).strip()[-400:]}",
            "Choose another recovery point, or repair it with e2fsck",
            reason="FileSystemDamaged",
        )
