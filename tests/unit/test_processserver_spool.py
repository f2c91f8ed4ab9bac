"""The spool keeps every promise that it made, wherever a crash cuts its files."""

from __future__ import annotations

import errno
import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from farshore_engine.contract.points import GroupCut
from farshore_engine.processserver.budget import Cancelled, SpoolBudget
from farshore_engine.processserver.closedpoint import ClosedPoint
from farshore_engine.processserver.generation import AgentSession, Frame
from farshore_engine.processserver.journal import PREFIX, Journal, Kind, Record, SyncFailed, records
from farshore_engine.processserver.spool import Spool
from farshore_engine.vault.encoding import BLOCK_REF, REF, BlockRefs
from farshore_engine.vault.names import PackId
from farshore_engine.vault.pack import SealedPack
from farshore_engine.wire.messages import Consistency, DiskInfo, PointEnd

END = PointEnd(
    id="t1",
    seq=2,
    consistency=Consistency.CRASH,
    frozen_at=1.0,
    freeze_seconds=0.01,
    precopy_rounds=1,
    frozen_bytes=0,
    disks=(DiskInfo("disk-a", "/dev/a", 1 << 30),),
    machine={},
)
POINT = ClosedPoint(END, 1.5, ("a note",), GroupCut(name="web", id="c1", members=("demo.a", "demo.b")))


def pack(number: int, size: int = 100) -> SealedPack:
    return SealedPack(PackId(1, number), memoryview(bytes([number]) * size))


def refs(number: int, *blocks: int) -> BlockRefs:
    array = np.zeros(len(blocks), BLOCK_REF)
    array["index"] = blocks
    array["ref"]["claim"], array["ref"]["random"] = 1, number
    array["ref"]["offset"], array["ref"]["length"] = np.arange(len(blocks)) * 10, 10
    array["ref"]["digest"] = number
    return array


def view(spool: Spool, disk: str, count: int) -> list[int]:
    """Return for each block which pack it now comes from, 0 for none."""
    found = np.zeros(count, REF)
    for frame in spool.frames():
        if frame.disk == disk:
            found[frame.refs["index"].astype(np.int64)] = frame.refs["ref"]
    return [int(r) for r in found["random"]]


def filled(directory: Path) -> Spool:
    spool = Spool(directory, SpoolBudget(1 << 20))
    spool.rebase(0)
    spool.begin_session(AgentSession("s1"))
    spool.store([pack(1)], [Frame(1, "disk-a", refs(1, 0, 1, 2))])
    spool.store([pack(2)], [Frame(2, "disk-a", refs(2, 1))])
    return spool


def test_what_was_stored_is_found_again_after_a_restart(tmp_path: Path) -> None:
    spool = filled(tmp_path)
    again = Spool(tmp_path, SpoolBudget(1 << 20))
    assert again.id == spool.id
    assert view(again, "disk-a", 4) == [1, 2, 1, 0]
    assert again.current.session == AgentSession("s1", durable=2)
    assert [p.id.random for p in again.waiting()] == [1, 2]
    assert again.path_of(PackId(1, 2)).read_bytes() == bytes([2]) * 100


def test_a_journal_cut_at_any_byte_keeps_every_whole_record_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal.create(path, Record(Kind.OPENED, b"first"))
    ends = [journal.size]
    for number in range(5):
        journal.append([Record(Kind.FRAME, bytes([number]) * 7 * number)])
        ends.append(journal.size)
    journal.sync()
    whole = path.read_bytes()
    for cut in range(ends[0], len(whole) + 1):
        path.write_bytes(whole[:cut])
        found = list(records(path))
        end = found[-1][1]
        assert len(found) == sum(e <= cut for e in ends), f"cut at {cut}"
        assert end == max(e for e in ends if e <= cut)


def test_a_flipped_bit_ends_the_journal_there(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal = Journal.create(path, Record(Kind.OPENED, b"first"))
    start = journal.size
    journal.append([Record(Kind.FRAME, b"second"), Record(Kind.FRAME, b"third")])
    journal.sync()
    data = bytearray(path.read_bytes())
    data[start + PREFIX.size] ^= 1
    path.write_bytes(data)
    assert [record.payload for record, _ in records(path)] == [b"first"]


def test_a_crash_at_any_byte_of_the_journal_opens_as_a_prefix_of_what_happened(tmp_path: Path) -> None:
    filled(tmp_path / "spool")
    journal = next((tmp_path / "spool").glob("journal-*"))
    whole = journal.read_bytes()
    seen = set()
    for cut in (*range(0, len(whole), 3), len(whole)):
        copy = tmp_path / f"cut-{cut}"
        shutil.copytree(tmp_path / "spool", copy)
        (copy / journal.name).write_bytes(whole[:cut])
        spool = Spool(copy, SpoolBudget(1 << 20))
        session = spool.current.session
        durable = session.durable if session else 0
        seen.add(durable)
        assert view(spool, "disk-a", 4) == {0: [0, 0, 0, 0], 1: [1, 1, 1, 0], 2: [1, 2, 1, 0]}[durable]
        spool.close()
    assert seen == {0, 1, 2}


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_pack_that_is_gone_gives_the_spool_a_new_name_so_that_agents_know(tmp_path: Path, damage: str) -> None:
    spool = filled(tmp_path)
    path = tmp_path / str(PackId(1, 1))
    path.unlink() if damage == "missing" else path.write_bytes(b"x")
    budget = SpoolBudget(1 << 20)
    again = Spool(tmp_path, budget)
    assert again.id != spool.id
    assert again.lost
    assert not list(again.frames())
    assert budget.used == 0


def test_a_pack_without_its_record_is_removed(tmp_path: Path) -> None:
    filled(tmp_path)
    (tmp_path / str(PackId(1, 9))).write_bytes(b"written, then the power went")
    Spool(tmp_path, SpoolBudget(1 << 20))
    assert not (tmp_path / str(PackId(1, 9))).exists()


def test_a_point_closes_its_generation_and_later_changes_wait_for_the_next(tmp_path: Path) -> None:
    spool = filled(tmp_path)
    spool.close_generation(POINT)
    spool.store([pack(3)], [Frame(3, "disk-a", refs(3, 0))])
    for opened in (spool, Spool(tmp_path, SpoolBudget(1 << 20))):
        assert opened.committing is not None
        assert opened.committing.point == POINT
        assert view(opened, "disk-a", 3) == [3, 2, 1]
        assert opened.current.session is not None
        assert opened.current.session.durable == 3
    spool.committed(7)
    again = Spool(tmp_path, SpoolBudget(1 << 20))
    assert again.committing is None
    assert again.current.base == 7
    assert view(again, "disk-a", 3) == [3, 0, 0]


def test_a_crash_between_the_steps_of_a_commit_is_finished_at_open(tmp_path: Path) -> None:
    spool = filled(tmp_path)
    spool.close_generation(POINT)
    old = tmp_path / "journal-00000000"
    content = old.read_bytes()
    spool.committed(7)
    old.write_bytes(content)  # the removal never reached the disk
    again = Spool(tmp_path, SpoolBudget(1 << 20))
    assert again.committing is None
    assert again.current.base == 7
    assert not old.exists()


def test_a_crash_before_the_next_generation_was_made_keeps_the_point(tmp_path: Path) -> None:
    spool = filled(tmp_path)
    spool.close_generation(POINT)
    (tmp_path / "journal-00000001").write_bytes(b"FSJ")
    again = Spool(tmp_path, SpoolBudget(1 << 20))
    assert again.id == spool.id
    assert again.committing is not None
    assert again.current.session == spool.current.session


def test_uploaded_packs_leave_and_the_budget_knows(tmp_path: Path) -> None:
    budget = SpoolBudget(1 << 20)
    filled(tmp_path).close()
    spool = Spool(tmp_path, budget)
    assert budget.used == 200
    spool.uploaded(PackId(1, 1))
    assert budget.used == 100
    assert [p.id.random for p in Spool(tmp_path, SpoolBudget(1)).waiting()] == [2]
    assert view(Spool(tmp_path, SpoolBudget(1)), "disk-a", 3) == [1, 2, 1]
    spool.discard()
    assert budget.used == 0


def test_a_spool_whose_disk_failed_to_keep_something_is_never_believed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fsync the lost pages read back well, so a reopened journal promised what was not on the disk."""
    spool = filled(tmp_path)
    sync = os.fdatasync

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fdatasync", fail)
    with pytest.raises(SyncFailed):
        spool.store([], [Frame(3, "disk-a", refs(2, 3))])
    monkeypatch.setattr(os, "fdatasync", sync)
    again = Spool(tmp_path, SpoolBudget(1 << 20))
    assert again.id != spool.id
    assert not list(again.frames())
    assert again.current.session is None
    good = again.id
    again.close()
    assert Spool(tmp_path, SpoolBudget(1 << 20)).id == good


def test_a_spool_of_another_version_is_emptied(tmp_path: Path) -> None:
    directory = tmp_path / "spool"
    directory.mkdir()
    first = Record(Kind.OPENED, b'{"format":1,"spool":"old","vault":"","base":0,"session":null}')
    Journal.create(directory / "journal-00000000", first).close()
    spool = Spool(directory, SpoolBudget(1 << 20))
    assert spool.id != "old"
    assert "another version" in spool.lost


def test_the_replay_of_a_large_journal_takes_little_memory(tmp_path: Path) -> None:
    """The journal of a first copy of 1 TiB is about 1 GiB, and was held in memory twice."""
    spool = Spool(tmp_path, SpoolBudget(1 << 30))
    blocks = np.zeros(4096, BLOCK_REF)
    for number in range(1, 129):
        blocks["index"] = np.arange(4096) + number * 4096
        spool.store([], [Frame(number, "disk-a", blocks.copy())])
    size = next(tmp_path.glob("journal-*")).stat().st_size
    spool.close()
    tracemalloc.start()
    try:
        again = Spool(tmp_path, SpoolBudget(1 << 30))
        assert sum(frame.refs.size for frame in again.frames()) == 128 * 4096
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert size > 16 << 20
    assert peak < size / 8


def test_a_full_spool_makes_the_taker_wait_until_cancelled() -> None:
    budget = SpoolBudget(100)
    budget.take(80, lambda: False)
    with pytest.raises(Cancelled):
        budget.take(30, lambda: True)
    budget.add(-80)
    budget.take(500, lambda: False)  # larger than the spool: alone it may pass
    assert budget.used == 500
