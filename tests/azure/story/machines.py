"""The machines of the story: what is on their disks, what they write, and how the vault gets points of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.assignment import Desired, MachineAssignment, Policy, Source, VaultAccess
from farshore_engine.contract.machine import BootMode, MachineDescription, MachineDisk, NetworkInterface
from farshore_engine.contract.points import Consistency, RecoveryPoint
from farshore_engine.processserver.opening import older_base
from farshore_engine.vault.stores import open_machine
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter

MIB = 1 << 20
SIZE = 20 * MIB
"""Bytes of each disk: the smallest that Azure lets one upload, and as large at either site."""
DISKS = ("os", "data")
Content = tuple[bytes, ...]
"""The bytes of a machine's disks, the operating system's first."""


def first_content(seed: int) -> Content:
    """Return a disk that a BIOS boots and one of data, with something at several places."""
    rng = np.random.default_rng(seed)
    system, data = bytearray(SIZE), bytearray(SIZE)
    system[:64] = bytes(range(1, 65))
    system[446:462] = (
        bytes([0x80, 1, 1, 0, 0x83, 1, 1, 1]) + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little")
    )
    system[510:512] = b"\x55\xaa"
    for disk, at, length in ((system, MIB, 90_000), (system, SIZE - 4096, 4096), (data, 3 * MIB, 200_000)):
        disk[at : at + length] = rng.bytes(length)
    return bytes(system), bytes(data)


@dataclass(repr=False)
class Actor:
    """One machine, where it stands in the circle of its life, and every point that was made of it.

    Attributes:
        epoch: of its assignment, or of the newest fence where that is higher.
        base: the point that it was made from, until a point of its own has followed.
        content: what each point must hold, by its name.
    """

    name: str
    home: str
    away: str
    epoch: int = 1
    base: str = ""
    content: dict[str, Content] = field(default_factory=dict)
    points: list[RecoveryPoint] = field(default_factory=list)

    @property
    def machine_id(self) -> str:
        return f"shop.{self.name}"

    @property
    def at_azure(self) -> str:
        return f"{self.name}-01"

    def described(self) -> MachineDescription:
        disks = tuple(MachineDisk(id=one, name=one, size_bytes=SIZE, bootable=one == "os") for one in DISKS)
        return MachineDescription(
            hostname=self.name, cpus=2, memory_bytes=4 << 30, boot_mode=BootMode.BIOS, disks=disks,
            interfaces=(NetworkInterface(name="eth0", addresses=(f"{self.home}/24",)),),
        )  # fmt: skip

    def replicate(self, vault: VaultAccess, server: str, disks: Content, now: Callable[[], datetime]) -> RecoveryPoint:
        """Make a point of what the disks hold, as the process server that serves the machine does."""
        opened = open_machine(vault, self.machine_id, create=True)
        sink = PackUploader(opened.access.store, opened.access.names)
        try:
            chain = opened.claim(
                writer=server, epoch=self.epoch, reason="replication begins", clock=now, base=self.base
            )
            base = older_base(opened, self._assignment(vault))
            writer = PointWriter(opened, chain, sink, base=base)
            before = self.content[writer.last.manifest.name] if writer.last is not None else (bytes(SIZE),) * 2
            for name, old, new in zip(DISKS, before, disks, strict=True):
                changed = [
                    at for at in range(0, SIZE, BLOCK_SIZE) if old[at : at + BLOCK_SIZE] != new[at : at + BLOCK_SIZE]
                ]
                content = b"".join(new[at : at + BLOCK_SIZE] for at in changed)
                if changed:
                    writer.add(name, np.array(changed) // BLOCK_SIZE, content)
            fields = tuple(DiskFields(name, name, SIZE) for name in DISKS)
            point = writer.commit(PointFields(now(), Consistency.CRASH, fields, self.described()))
        finally:
            sink.close()
            opened.close()
        self.content[point.name] = disks
        self.points.append(point)
        return point

    def _assignment(self, vault: VaultAccess) -> MachineAssignment:
        return MachineAssignment(
            name=self.name, machine_id=self.machine_id, epoch=self.epoch, desired=Desired.REPLICATE,
            source=Source(address=self.home), policy=Policy(), vault=vault, base_point=self.base,
        )  # fmt: skip
