"""The disks of a point that nobody hydrated, with what a preparation wrote over them in local files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from farshore_engine.nbd.overlay import Overlay
from farshore_engine.nbd.pointdevice import PointDevice
from farshore_engine.nbd.presence import LIVE, MAP
from farshore_engine.nbd.serving import bring_head
from farshore_engine.processserver.tasks.context import disk_files
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.reader import PointReader

CACHED = 32 << 20  # bytes of a disk's blocks that are kept while it is prepared


@contextmanager
def overlays(
    vault: MachineVault, point: StoredPoint, directory: Path, *, fresh: bool = False
) -> Iterator[dict[str, Overlay]]:
    """Open the point's disks with what the preparation wrote over them, or begin anew; by ids of the disks."""
    reader = PointReader(vault, point)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    with ExitStack() as undo:
        found = {}
        for disk, file in zip(point.manifest.disks, disk_files(point, directory), strict=True):
            if fresh:
                remove_overlay(file.path)
            base = PointDevice(reader, disk.id, cached=CACHED)
            undo.callback(base.close)
            found[disk.id] = overlay = Overlay(base, file.path)
            undo.callback(overlay.close)
            bring_head(base, overlay)
        yield found


def is_overlay(file: Path) -> bool:
    """Tell whether a disk's file holds only what a preparation wrote."""
    return any(file.with_name(file.name + suffix).exists() for suffix in (MAP, LIVE))


def remove_overlay(file: Path) -> None:
    """Remove a disk's file and what says that it is an overlay."""
    for suffix in ("", MAP, LIVE):
        file.with_name(file.name + suffix).unlink(missing_ok=True)
