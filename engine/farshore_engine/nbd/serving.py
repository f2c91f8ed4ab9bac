"""Serving the disks of a point from beginning to end: pinned, opened, listened for, and all of it undone.

options = ServeOptions(overlays={"sda": Path("/var/sda.raw")})
with PointServer(vault, "p-20250301t120000z-3", Path("/run/disk.sock"), options) as served:
    ...  # QEMU opens served.uri("sda")
    served.wait_streamed()  # from here on /var/sda.raw alone is the disk
"""

from __future__ import annotations

import hashlib
import re
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.hydrate.image import aligned_buffer
from farshore_engine.nbd.device import Device, DeviceError
from farshore_engine.nbd.overlay import Overlay
from farshore_engine.nbd.pointdevice import PointDevice
from farshore_engine.nbd.server import NbdServer, TcpAddress
from farshore_engine.nbd.streaming import Streamed, Streaming
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.pins import list_pins
from farshore_engine.vault.reader import PointReader

log = structlog.get_logger(__name__)

HEAD = 16  # blocks at the front of a disk: its partition table, and what tells whether it can be booted


@dataclass(frozen=True)
class ServeOptions:
    """How a point is served.

    Args:
        disks: ids of the disks; all when empty.
        overlays: for each disk that can be written, the local file over it. Without one a disk is read-only.
        streaming: whether the rest of the point streams into the overlays.
        report: called with a disk's id and how far its streaming is.
    """

    disks: tuple[str, ...] = ()
    overlays: Mapping[str, Path] = field(default_factory=dict)
    streaming: bool = True
    report: Callable[[str, Streamed], None] = lambda *_: None


class PointServer:
    """Serves disks of a point by their ids at one place. Use it as a context manager."""

    def __init__(
        self, vault: MachineVault, point: str, where: Path | TcpAddress, options: ServeOptions | None = None
    ) -> None:
        """Prepare to serve the point of that name."""
        self._vault = vault
        self._point = point
        self._where = where
        self._options = options or ServeOptions()
        self._undo = ExitStack()
        self._server: NbdServer | None = None
        self.streams: dict[str, Streaming] = {}
        self.devices: dict[str, Device] = {}

    def __enter__(self) -> PointServer:
        with ExitStack() as undo:
            self._open(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def uri(self, disk: str) -> str:
        """Return where QEMU and other clients find a disk."""
        assert self._server is not None, "it is not served yet"
        if isinstance(self._where, Path):
            return f"nbd+unix:///{disk}?socket={self._where}"
        return f"{self._server.uri}/{disk}"

    @property
    def streamed(self) -> dict[str, Streamed]:
        """How far the streaming of each disk is."""
        return {disk: stream.progress for disk, stream in self.streams.items()}

    def wait_streamed(self, timeout: float | None = None) -> bool:
        """Wait until every overlay holds its whole disk; False if one does not within `timeout` seconds, or cannot."""
        deadline = None if timeout is None else time.monotonic() + timeout
        for stream in self.streams.values():
            stream.wait(None if deadline is None else max(0.0, deadline - time.monotonic()))
        return all(one.complete for one in self.streamed.values())

    def _open(self, undo: ExitStack) -> None:
        found = self._vault.find(self._point)
        self._pin(found, undo)
        reader = PointReader(self._vault, found)
        disks = self._options.disks or tuple(disk.id for disk in reader.disks)
        unknown = set(self._options.overlays) - set(disks)
        if unknown or not disks:
            raise StopFault(
                f"the point {self._point} has no disk {', '.join(sorted(unknown)) or 'at all'}",
                f"Its disks are {', '.join(disks) or 'none'}",
                reason="NoSuchDisk",
            )
        for disk in disks:
            base = PointDevice(reader, disk)
            undo.callback(base.close)
            self.devices[disk] = base
            if disk in self._options.overlays:
                self.devices[disk] = self._overlay(base, self._options.overlays[disk], undo)
        self._server = undo.enter_context(NbdServer(self.devices, self._where))

    def _pin(self, found: StoredPoint, undo: ExitStack) -> None:
        """Hold the point while it is served; a credential that may only read cannot."""
        pin = pin_name(self._where)
        try:
            self._vault.pin(found, pin, note="served over NBD")
        except StopFault as fault:
            if fault.reason == "PointGone":
                raise
            log.warning("the point is not held against pruning", why=fault.message)
            return
        undo.callback(self._unpin, found.slot, pin)
        for slot, pins in list_pins(self._vault.access).items():
            if slot != found.slot and pin in pins:  # of a server that was killed
                self._unpin(slot, pin)

    def _unpin(self, slot: int, pin: str) -> None:
        try:
            self._vault.unpin(slot, pin)
        except Fault as fault:
            log.warning("a pin is left in the vault", pin=pin, slot=slot, why=fault.message)

    def _overlay(self, base: PointDevice, path: Path, undo: ExitStack) -> Overlay:
        overlay = Overlay(base, path)
        undo.callback(overlay.close)
        bring_head(base, overlay)
        if self._options.streaming:
            report = self._options.report
            stream = Streaming(overlay, report=lambda progress: report(base.disk, progress))
            stream.start()
            undo.callback(stream.stop)
            self.streams[base.disk] = stream
        return overlay


def pin_name(where: Path | TcpAddress) -> str:
    """Return the name of the pin: the same for whoever serves here again, so that it can take back a killed one's."""
    host = re.sub(r"[^a-z0-9-]", "-", socket.gethostname().lower())[:40].strip("-") or "host"
    place = str(where.absolute()) if isinstance(where, Path) else f"{where.host}:{where.port}"
    return f"nbd-{host}-{hashlib.blake2b(place.encode(), digest_size=4).hexdigest()}"


def bring_head(base: PointDevice, overlay: Overlay) -> None:
    """Put the front of the disk into the file, where whoever starts the machine looks at it."""
    wanted = overlay.absent(0, min(HEAD, base.blocks))
    if not wanted.size:
        return
    buffer = aligned_buffer(HEAD * BLOCK_SIZE)
    try:
        for place, number in enumerate(wanted.tolist()):
            buffer[place * BLOCK_SIZE : (place + 1) * BLOCK_SIZE] = base.fetch(number, 1)[0]
        overlay.store(wanted, buffer)
    except DeviceError as error:
        raise StopFault(
            f"the front of disk {base.disk} cannot be read: {error}", "Choose another point", reason="PointDamaged"
        ) from error
