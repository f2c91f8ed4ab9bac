"""What a spool holds is only ever built upon what it was made for: this vault, this point, these disks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import SecretBytes
from tests.contract.memory_store import MemoryStore
from tests.machine.memory_controlplane import assignment

from farshore_engine.blocks.encoded import encode
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.assignment import (
    DirectoryAccess,
    Policy,
    VaultAccess,
)
from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.machine import MachineDescription
from farshore_engine.contract.points import Consistency
from farshore_engine.processserver.budget import SpoolBudget
from farshore_engine.processserver.generation import AgentSession, Frame
from farshore_engine.processserver.intake import Intake
from farshore_engine.processserver.keeper import PointKeeper, Points
from farshore_engine.processserver.metrics import Metrics
from farshore_engine.processserver.opening import open_replica
from farshore_engine.processserver.replica import Link, Replica, Shared
from farshore_engine.processserver.spool import Spool
from farshore_engine.vault.encoding import holes
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter

KEY = b"k" * 32
DISK = "disk-a"
SIZE = 64 * BLOCK_SIZE


@dataclass
class Server:
    """A process server that is opened and closed as often as a test wants."""

    directory: Path
    shared: Shared

    def open(self, vault: str = "vault", restart: frozenset[str] = frozenset()) -> Replica:
        storage = DirectoryAccess(path=self.directory / vault)
        access = VaultAccess(name=vault, storage=storage, key=SecretBytes(KEY))
        return open_replica(assignment("vm", access, Policy()), self.directory / "spool", self.shared, restart)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with ThreadPoolExecutor(2) as encoders:
        yield Server(tmp_path, Shared("ps", SpoolBudget(1 << 30), encoders, Metrics()))


def receive(replica: Replica, seq: int, *blocks: int) -> None:
    """Take in blocks full of their sequence number, and make them durable."""
    if replica.spool.current.session is None:
        replica.spool.begin_session(AgentSession("s1"))
    payload = bytes([seq]) * (BLOCK_SIZE * len(blocks))
    replica.intake.data(seq, DISK, np.array(blocks, np.int64), encode(replica.vault.digest_key, payload)[1])
    replica.intake.flush()


def commit(replica: Replica) -> None:
    disks = (DiskFields(DISK, "sda", SIZE),)
    fields = PointFields(datetime.now(UTC), Consistency.CRASH, disks, MachineDescription(hostname="db"))
    replica.writer.commit(fields)


def held(replica: Replica) -> list[int]:
    _, hole = replica.writer.digests_of(DISK, 0, 64)
    return [int(block) for block in np.flatnonzero(~hole)]


def test_a_spool_that_was_filled_for_another_vault_is_given_up(server: Server) -> None:
    """A first copy had begun, then the vault was emptied: both chains were at slot 0, and the packs in neither."""
    before = server.open("vault")
    receive(before, 1, 0, 1, 2)
    name = before.spool.id
    before.close("the vault is replaced")
    after = server.open("emptied")
    assert after.spool.id != name, "the agent must learn that what was acknowledged is gone"
    assert held(after) == []
    assert server.shared.budget.used == 0
    after.close("end")


def test_a_spool_for_the_same_vault_is_taken_up_again(server: Server) -> None:
    before = server.open()
    receive(before, 1, 0, 1, 2)
    name = before.spool.id
    before.close("restart")
    after = server.open()
    assert (after.spool.id, held(after)) == (name, [0, 1, 2])
    after.close("end")


def test_a_disk_that_is_copied_anew_shows_nothing_old_after_a_restart_either(server: Server) -> None:
    """Its map was damaged; the agent leaves zeros out, since nothing is held. The process died in the middle: the
    blocks that the old map still had would have come back into the new point."""
    first = server.open()
    receive(first, 1, 0, 1, 2, 3)
    commit(first)
    first.spool.discard()
    first.close("the map is found damaged")
    copying = server.open(restart=frozenset({DISK}))
    receive(copying, 2, 0)
    copying.close("killed")
    after = server.open()
    assert held(after) == [0], "blocks 1 to 3 are zeros on the disk now"
    after.close("end")


def test_what_the_store_lost_of_a_disk_whose_map_is_whole_is_asked_for_again_and_no_more(server: Server) -> None:
    """The whole disk was copied in full."""
    first = server.open()
    receive(first, 1, 0, 1)
    commit(first)
    known = {path.name for path in packs_of(server)}
    receive(first, 2, 2, 3)
    first.intake.flush()
    first.uploader.drain()
    (lost,) = {path for path in packs_of(server) if path.name not in known}
    commit(first)
    first.close("killed")
    lost.unlink()
    after = server.open()
    assert after.lost and DISK in after.held_disks, "its agent compares"
    told, _ = after.writer.digests_of(DISK, 0, 64)
    assert [block for block in range(4) if bytes(told[block]) == b"\xff" * 32] == [2, 3]
    receive(after, 1, 2, 3)
    commit(after)
    after.close("end")
    again = server.open()
    assert not again.lost
    again.close("end")


def test_a_disk_of_zeros_only_is_held_too(server: Server) -> None:
    """It was read in full each time that its agent connected, and its status said InitialReplication again."""
    first = server.open()
    first.writer.add_zeros(DISK, 0, 64)
    commit(first)
    first.close("restart")
    after = server.open()
    assert after.held_disks == {DISK}
    (told, hole) = after.writer.digests_of(DISK, 0, 64)
    assert hole.all() and not told.any()
    after.close("end")


def packs_of(server: Server) -> list[Path]:
    return [path for path in (server.directory / "vault").rglob("packs/*") if path.is_file()]


def test_the_replay_of_more_than_the_cache_of_nodes_holds_comes_to_an_end(tmp_path: Path) -> None:
    """It waited for packs of map nodes to be stored, by a thread that was to start behind the replay."""
    store = MemoryStore()
    vault = MachineVault.open(store, KEY, "demo.vm", create=True)
    vault.nodes._limit = 1
    chain = vault.claim(writer="ps", epoch=1, reason="test")
    budget = SpoolBudget(1 << 30)
    spool = Spool(tmp_path, budget)
    spool.rebase(0)
    uploader = PackUploader(store, vault.access.names, uploaded=lambda pack: spool.uploaded(pack) and None)
    one = holes(np.array([0], np.int64))
    one["ref"]["claim"], one["ref"]["random"], one["ref"]["length"], one["ref"]["digest"] = 1, 7, 10, 7
    for number in range(4):
        refs = one.copy()
        refs["index"] = number % 2 * 256  # two leaves in turn, of which the cache holds none
        spool.store([], [Frame(number + 1, DISK, refs)])
    with ThreadPoolExecutor(1) as encoders:
        intake = Intake(spool, uploader, encoders, budget, lambda: 0.0)
        writer = PointWriter(vault, chain, intake, fold_at=1)
        replay = threading.Thread(target=intake.start, args=(writer,), daemon=True)
        replay.start()
        replay.join(120)
        assert not replay.is_alive()
        intake.stop()
        uploader.close()


def test_an_acknowledgement_goes_to_the_session_that_sent_the_frames(server: Server) -> None:
    """A restarted agent counts from 1 again: an acknowledgement of its predecessor's frame 200 would have told it that
    whatever it had sent was safe."""
    replica = server.open()
    old: list[int] = []
    new: list[int] = []
    replica.intake.on_durable = old.append
    stored = replica.spool.store

    def store(*given: Any) -> None:
        stored(*given)
        replica.intake.on_durable = new.append  # another session takes over before the acknowledgement is out

    replica.spool.store = store  # type: ignore[method-assign]
    receive(replica, 200, 0)
    replica.close("end")
    assert (old, new) == ([200], [])


def test_a_demanded_point_fails_when_replication_is_closed_before_it_is_made(server: Server) -> None:
    """The newest point, minutes old, was handed out as the one that holds everything until now."""
    replica = server.open()
    receive(replica, 1, 0)
    commit(replica)
    points = Points.of(replica.vault.catalogue().summaries())
    assert points.recent
    keeper = PointKeeper(replica, points)
    replica.link = Link(connected=True)
    with ThreadPoolExecutor(1) as caller:
        demanded = caller.submit(keeper.take_now, 120.0)
        replica.close("the assignment changed")
        with pytest.raises(WaitFault, match="closed before"):
            demanded.result(120)
