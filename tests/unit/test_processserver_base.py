"""A chain goes on from the point that a machine was made from: nothing of later points shows through, none is lost."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretBytes
from tests.machine.memory_controlplane import assignment

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.assignment import DirectoryAccess, Policy, VaultAccess
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import Consistency, RecoveryPoint
from farshore_engine.processserver.budget import SpoolBudget
from farshore_engine.processserver.generation import AgentSession
from farshore_engine.processserver.metrics import Metrics
from farshore_engine.processserver.opening import open_replica
from farshore_engine.processserver.replica import Replica, Shared
from farshore_engine.vault.prune import prune
from farshore_engine.vault.reader import PointReader
from farshore_engine.vault.retention import RetentionRules
from farshore_engine.vault.writer import DiskFields, PointFields

DISK = "disk-a"
BLOCKS = 8
NEWEST_ONLY = RetentionRules(keep_all=timedelta(0))


@dataclass
class Server:
    """A process server that opens and closes one machine as often as a test wants; one writer for each spool."""

    directory: Path
    encoders: ThreadPoolExecutor
    second: int = 0

    def open(self, epoch: int, base: str = "", writer: str = "ps") -> Replica:
        access = VaultAccess(name="v", storage=DirectoryAccess(path=self.directory / "v"), key=SecretBytes(b"k" * 32))
        wanted = assignment("vm", access, Policy(), epoch=epoch, base_point=base)
        shared = Shared(writer, SpoolBudget(1 << 30), self.encoders, Metrics())
        return open_replica(wanted, self.directory / "spool" / writer, shared)

    def point(self, replica: Replica, **blocks: int) -> RecoveryPoint:
        """Commit a point with blocks given as b<number>=<byte>."""
        for name, value in blocks.items():
            replica.writer.add(DISK, np.array([int(name[1:])]), bytes([value]) * BLOCK_SIZE)
        self.second += 1
        time = datetime(2030, 1, 1, tzinfo=UTC) + timedelta(seconds=self.second)
        disks = (DiskFields(DISK, "sda", BLOCKS * BLOCK_SIZE),)
        return replica.writer.commit(PointFields(time, Consistency.CRASH, disks, MachineDescription(hostname="db")))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with ThreadPoolExecutor(2) as encoders:
        yield Server(tmp_path, encoders)


def content(replica: Replica, point: str) -> str:
    """The first byte of each block of a point, as digits."""
    reader = PointReader(replica.vault, replica.vault.find(point))
    data = reader.read_blocks(DISK, 0, BLOCKS)
    return "".join(str(data[at]) for at in range(0, len(data), BLOCK_SIZE))


def names(replica: Replica) -> list[str]:
    return [point.manifest.name for point in replica.vault.catalogue().points]


def test_the_next_point_lies_on_the_one_that_the_machine_was_made_from(server: Server) -> None:
    home = server.open(1)
    old = server.point(home, b0=1, b1=1)
    later = server.point(home, b0=2, b2=2)
    home.close("the site is lost")
    there = server.open(3, old.name, writer="ps-there")
    _, hole = there.writer.digests_of(DISK, 0, BLOCKS)
    assert list(np.flatnonzero(~hole)) == [0, 1], "the agent compares with what the machine was made from"
    new = server.point(there, b3=3)
    assert {name: content(there, name) for name in names(there)} == {
        old.name: "11000000",
        later.name: "21200000",
        new.name: "11030000",
    }
    there.close("restart")
    again = server.open(3, old.name, writer="ps-there")
    assert again.writer.last is not None
    assert again.writer.last.manifest.name == new.name, "a restart goes on from its own newest point"
    again.close("assigned to another process server")
    other = server.open(4, old.name, writer="ps-other")
    assert other.writer.last is not None
    assert other.writer.last.manifest.name == new.name, "so does another process server of the same direction"
    other.close("end")


def test_pruning_keeps_the_base_and_what_it_needs(server: Server) -> None:
    home = server.open(1)
    old = server.point(home, b0=1)
    server.point(home, b0=2)
    home.close("failed over")
    there = server.open(2, old.name, writer="ps-there")
    in_flight = lambda: there.writer.in_flight  # noqa: E731

    def pruned() -> list[str]:
        assert there.writer.last is not None
        prune(
            there.vault, there.writer.chain, NEWEST_ONLY, in_flight=in_flight,
            clock=lambda: datetime(2031, 1, 1, tzinfo=UTC), base=there.writer.last.slot,
        )  # fmt: skip
        return names(there)

    assert old.name in pruned()
    new = server.point(there, b1=3)
    assert content(there, new.name) == "13000000"
    assert pruned() == [new.name]
    assert content(there, new.name) == "13000000"
    there.close("restart")
    again = server.open(2, old.name, writer="ps-there")
    assert again.writer.last is not None
    assert again.writer.last.manifest.name == new.name, "also when the base and the fence before the point are pruned"
    again.close("end")


def test_a_spool_that_was_filled_on_a_newer_point_is_given_up(server: Server) -> None:
    home = server.open(1)
    old = server.point(home, b0=1)
    newer = server.point(home, b0=2)
    home.spool.rebase(newer.slot)
    home.spool.begin_session(AgentSession("s1"))
    home.intake.zeros(1, DISK, np.array([0], np.int64))
    home.intake.flush()
    spool = home.spool.id
    home.close("failed over and back")
    back = server.open(3, old.name)
    assert back.spool.id != spool
    assert content(back, server.point(back).name) == "10000000"
    back.close("end")


def test_a_base_that_is_gone_leaves_the_newest_point_to_go_on_from(server: Server) -> None:
    home = server.open(1)
    newest = server.point(home, b0=1)
    home.close("failed over")
    there = server.open(2, "p-20200101t000000z-1", writer="ps-there")
    assert there.writer.last is not None
    assert there.writer.last.manifest.name == newest.name
    there.close("end")
