"""A snapshot below LVM in place of a long freeze: frozen only while the tables are exchanged, read at leisure.

Everything is laid out before the freeze, and the metadata of the volume group is read before that, so that a restored
group knows nothing of the snapshot. Inside the freeze each volume's table is exchanged by one ioctl. Decision and
steps: docs/decisions/lvm-snapshot.md.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from farshore_engine.agent import lvm
from farshore_engine.agent.devicemapper import CONTROL, Device, Mapper, Segment
from farshore_engine.agent.logs import LOGGER_NAME
from farshore_engine.agent.lvm import SECTOR, Group, NoSnapshot, Volume
from farshore_engine.agent.mounts import Mount, device_number
from farshore_engine.agent.source import READ_SIZE, Reader
from farshore_engine.blocks.grid import BLOCK_SIZE, Indexes

log = logging.getLogger(LOGGER_NAME)

REAL, COPY = "farshore-real-", "farshore-snap-"  # names of our devices, before that of the volume
CHUNK = 64  # sectors that are kept at the first write to one of them
SPARE = 64 << 20  # bytes of room beside what the rest suggests


@dataclass(slots=True)
class _Shadow:
    """A volume with its snapshot."""

    volume: Volume
    table: list[Segment]
    room: str  # volume that keeps what changes, as group/name
    real: Device | None = None
    copy: Device | None = None
    loaded: bool = False  # the exchange is prepared
    active: bool = False  # and done
    reader: Reader | None = None


@dataclass(slots=True)
class _Metadata:
    disk: str
    offset: int
    before: bytes  # without the volumes made for the snapshot: what goes into the point
    after: bytes = b""


def available() -> bool:
    """Whether this machine has device-mapper and LVM's tools."""
    return Path(CONTROL).exists() and shutil.which("lvm") is not None


def clean_up() -> list[str]:
    """Undo what an agent that died has left; returns the names of the volumes that are themselves again."""
    if not available():
        return []
    undone = []
    with suppress(OSError):
        mapper = Mapper()
        try:
            for name in mapper.names(REAL):
                volume = name.removeprefix(REAL)
                mapper.load(volume, mapper.table(name))
                mapper.resume(volume, quiet=False)
                mapper.remove(COPY + volume)
                mapper.remove(name)
                undone.append(volume)
        finally:
            mapper.close()
    with suppress(NoSnapshot):
        columns = ("--noheadings", "--separator", "/", "-o", "vg_name,lv_name")
        for room in lvm.command("lvs", *columns, "-S", f"lv_tags={lvm.TAG}").split():
            lvm.command("lvremove", "-y", room)
    return undone


class Snapshot:
    """A snapshot of the volumes below some file systems; a context manager that undoes it.

    Args:
        readers: of the protected disks, by id.
        mounts: the file systems.
        rest: bytes that are to be read; they tell how long the snapshot will have to last.

    Raises:
        NoSnapshot: it cannot be had, and nothing has changed.
    """

    def __init__(self, readers: dict[str, Reader], mounts: list[Mount], rest: int) -> None:
        self._readers = readers
        self._ranges = lvm.ranges_of({disk: reader.path for disk, reader in readers.items()})
        self._shadows: list[_Shadow] = []
        self._metadata: list[_Metadata] = []
        try:
            self._mapper = Mapper()
        except OSError as error:
            raise NoSnapshot(f"device-mapper cannot be used: {error}") from error
        try:
            self._prepare(mounts, rest)
        except OSError as error:
            self.close()
            raise NoSnapshot(f"the snapshot cannot be prepared: {error}") from error
        except NoSnapshot:
            self.close()
            raise

    def __enter__(self) -> Snapshot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def activate(self) -> None:
        """Exchange the tables; to be called while the file systems are frozen and flushed.

        Raises:
            NoSnapshot: LVM's metadata changed since it was read; nothing was exchanged.
            OSError: an exchange failed.
        """
        for area in self._metadata:
            if self._read(area.disk, area.offset, len(area.after)) != area.after:
                raise NoSnapshot("the volume group was changed by somebody else")
        for shadow in self._shadows:
            assert shadow.copy is not None
            self._mapper.resume(shadow.copy.name)
            shadow.active = True
            self._mapper.resume(shadow.volume.name, quiet=False)

    def open(self) -> None:
        """Open the snapshots to read from them; after the thaw. Raises OSError."""
        for shadow in self._shadows:
            assert shadow.copy is not None
            shadow.reader = Reader(shadow.copy.path)

    def split(self, disk: str, blocks: Indexes) -> tuple[Indexes, Indexes]:
        """Return those of the blocks that can be read from the snapshot, and the others."""
        inside = np.zeros(blocks.size, bool)
        for extent in (e for s in self._shadows for e in s.volume.extents if e.disk == disk):
            first = -(-extent.disk_offset // BLOCK_SIZE)
            stop = (extent.disk_offset + extent.length) // BLOCK_SIZE
            inside |= (blocks >= first) & (blocks < stop)
        return blocks[inside], blocks[~inside]

    def reader(self, disk: str) -> SnapshotReader:
        """Return what reads a disk's blocks as they were in the freeze; only those that `split` gave."""
        return SnapshotReader(self._shadows, disk, self._readers[disk].size)

    def metadata_blocks(self) -> dict[str, Indexes]:
        """Return the blocks that hold LVM's metadata, by disk: they differ from what the point holds."""
        found: dict[str, set[int]] = {}
        for area in self._metadata:
            stop = -(-(area.offset + len(area.before)) // BLOCK_SIZE)
            found.setdefault(area.disk, set()).update(range(area.offset // BLOCK_SIZE, stop))
        return {disk: np.array(sorted(blocks), np.int64) for disk, blocks in found.items()}

    def restore_metadata(self, disk: str, offset: int, view: memoryview) -> None:
        """Put LVM's metadata as it was before the snapshot into bytes that were read at `offset`."""
        for area in self._metadata:
            first, stop = max(offset, area.offset), min(offset + len(view), area.offset + len(area.before))
            if area.disk == disk and first < stop:
                view[first - offset : stop - offset] = area.before[first - area.offset : stop - area.offset]

    def close(self) -> None:
        """Undo everything; what cannot be undone is left to `clean_up`."""
        for shadow in self._shadows:
            if shadow.reader is not None:
                shadow.reader.close()
            try:
                self._undo(shadow)
            except (OSError, NoSnapshot) as error:
                log.warning(
                    "a snapshot is not undone yet",
                    extra={"fields": {"volume": shadow.volume.name, "error": str(error)}},
                )
        self._shadows = []
        self._mapper.close()

    # -- before the freeze -----------------------------------------------------------------------------------------

    def _prepare(self, mounts: list[Mount], rest: int) -> None:
        found = lvm.volumes(self._mapper, mounts, self._ranges)
        if not found:
            raise NoSnapshot("no file system lies on a plain logical volume of the protected disks")
        for name in sorted({volume.group for volume in found}):
            group = lvm.group(name, self._ranges)
            own = [_Metadata(disk, at, self._read(disk, at, length)) for disk, at, length in group.metadata]
            members = [volume for volume in found if volume.group == name]
            for volume in members:
                self._make_room(group, volume, len(members), rest)
            now = lvm.group(name, self._ranges)
            if now.version != group.version + len(members):
                raise NoSnapshot(f"volume group {name} was changed by somebody else")
            for area in own:
                area.after = self._read(area.disk, area.offset, len(area.before))
            self._metadata += own
        for shadow in self._shadows:
            self._lay_out(shadow)

    def _make_room(self, group: Group, volume: Volume, members: int, rest: int) -> None:
        least = min(volume.size, rest // members + SPARE // 4)
        share = group.free // members // group.extent_size * group.extent_size
        if share < least:
            raise NoSnapshot(
                f"volume group {group.name} has {group.free >> 20} MiB left; "
                f"a snapshot of {volume.name} needs {least >> 20} MiB"
            )
        table = self._mapper.table(volume.name)
        size = min(share, volume.size + group.extent_size, 4 * rest + SPARE)
        name = f"farshore_{secrets.token_hex(4)}"
        lvm.command(
            "lvcreate", "-y", "-W", "n", "-Z", "n", "-n", name, "-L", f"{size}b", "--addtag", lvm.TAG, group.name
        )  # fmt: skip
        self._shadows.append(_Shadow(volume, table, f"{group.name}/{name}"))

    def _lay_out(self, shadow: _Shadow) -> None:
        name, sectors = shadow.volume.name, shadow.volume.size // SECTOR
        room = device_number(f"/dev/{shadow.room}")
        if room is None:
            raise NoSnapshot(f"the volume {shadow.room} did not appear")
        token = secrets.token_hex(4)
        shadow.real = self._mapper.create(REAL + name, f"FARSHORE-REAL-{token}", shadow.table)
        self._mapper.resume(REAL + name)
        change = Segment(0, sectors, "snapshot", f"{shadow.real.number} {room} N {CHUNK}")
        shadow.copy = self._mapper.create(COPY + name, f"FARSHORE-SNAP-{token}", [change])
        self._mapper.load(name, [Segment(0, sectors, "snapshot-origin", shadow.real.number)])
        shadow.loaded = True

    def _undo(self, shadow: _Shadow) -> None:
        name = shadow.volume.name
        if shadow.active:
            self._mapper.load(name, shadow.table)
            self._mapper.resume(name, quiet=False)
        elif shadow.loaded:
            self._mapper.clear(name)
        if shadow.copy is not None:
            self._mapper.remove(COPY + name)
        if shadow.real is not None:
            self._mapper.remove(REAL + name)
        lvm.command("lvremove", "-y", shadow.room)

    def _read(self, disk: str, offset: int, length: int) -> bytes:
        parts = []
        for at in range(offset, offset + length, READ_SIZE):
            parts.append(self._readers[disk].read(at, min(READ_SIZE, offset + length - at)))
        return b"".join(parts)


@dataclass(frozen=True, slots=True)
class SnapshotReader:
    """Reads a disk as it was in the freeze; a `Reader` for `read_ahead`."""

    shadows: list[_Shadow]
    disk: str
    size: int
    path: str = field(default="snapshot", init=False)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes that lie within extents of the volumes; raises OSError."""
        data = b""
        while length > 0:
            reader, place, count = self._find(offset, length)
            data += reader.read(place, count)
            offset, length = offset + count, length - count
        return data

    def _find(self, offset: int, length: int) -> tuple[Reader, int, int]:
        for shadow in self.shadows:
            for extent in shadow.volume.extents:
                inside = offset - extent.disk_offset
                if extent.disk == self.disk and 0 <= inside < extent.length:
                    assert shadow.reader is not None
                    return shadow.reader, extent.volume_offset + inside, min(length, extent.length - inside)
        raise OSError(f"{self.disk}: the snapshot holds nothing at {offset}")
