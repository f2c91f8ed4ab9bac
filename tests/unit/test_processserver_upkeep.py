"""What a process server does for the vault beside points: rotate keys, ask again for lost packs, keep to locks."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from pydantic import SecretBytes
from tests.unit.test_processserver_opening import DISK, KEY, Server, commit, held, receive

from farshore_engine.blocks.encoded import encode
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.assignment import (
    Desired,
    DirectoryAccess,
    MachineAssignment,
    Policy,
    PreviousKey,
    Source,
    VaultAccess,
)
from farshore_engine.contract.faults import StopFault
from farshore_engine.processserver.budget import SpoolBudget
from farshore_engine.processserver.keeper import PointKeeper, Points
from farshore_engine.processserver.metrics import Metrics
from farshore_engine.processserver.opening import open_replica
from farshore_engine.processserver.replica import Replica, Shared
from farshore_engine.vault.keyring import WrongKey

NEW = b"n" * 32


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with ThreadPoolExecutor(2) as encoders:
        yield Server(tmp_path, Shared("ps", SpoolBudget(1 << 30), encoders, Metrics()))


def open_with(server: Server, **vault: object) -> Replica:
    storage = DirectoryAccess(path=server.directory / "vault")
    access = VaultAccess.model_validate({"name": "vault", "storage": storage, "key": SecretBytes(KEY), **vault})
    assignment = MachineAssignment(
        name="vm", machine_id="demo.vm", epoch=1, desired=Desired.REPLICATE, source=Source(address="10.0.0.1"),
        policy=Policy(), vault=access,
    )  # fmt: skip
    return open_replica(assignment, server.directory / "spool", server.shared)


def test_a_new_key_beside_the_old_one_is_wrapped_at_opening_and_the_spool_stays(server: Server) -> None:
    first = server.open()
    receive(first, 1, 0, 1, 2)
    spool = first.spool.id
    first.close("the key changes")
    old = PreviousKey(key=SecretBytes(KEY))
    added = open_with(server, key=SecretBytes(NEW), previous_keys=(old,))
    report = added.vault.key_report
    assert report is not None and report.wrapped and len(report.previous) == 1
    assert (added.spool.id, held(added)) == (spool, [0, 1, 2])
    commit(added)
    added.close("the old key goes")
    removed = open_with(server, key=SecretBytes(NEW), previous_keys=(old.model_copy(update={"remove": True}),))
    assert removed.vault.key_report is not None and removed.vault.key_report.previous == ()
    removed.close("end")
    with pytest.raises(WrongKey):
        server.open()


def test_a_vault_that_cannot_lock_is_not_written_without_locks(server: Server) -> None:
    with pytest.raises(StopFault) as caught:
        open_with(server, immutable_for=timedelta(days=7))
    assert caught.value.reason == "ImmutabilityNotSupported"


def test_a_pack_that_the_storage_lost_is_asked_for_again(server: Server) -> None:
    """The blocks in it are told as different, so that the agent sends them, and the next point restores."""
    replica = server.open()
    receive(replica, 1, 0, 1, 2)
    commit(replica)
    for seq in (2, 3):  # what the newest point added is watched by the writer itself
        receive(replica, seq, 10 + seq)
        commit(replica)
    known, _ = replica.writer.digests_of(DISK, 0, 3)
    ref = replica.writer._disks[DISK].base.lookup(1, 1)[0]
    (path,) = (server.directory / "vault").glob(f"machines/demo.vm/packs/*-{int(ref['random']):016x}")
    path.unlink()
    keeper = PointKeeper(replica, Points())
    keeper._housekeeper._ran_at = -1e9
    keeper._housekeeper.run_if_due()
    assert keeper._housekeeper._thread is not None
    keeper._housekeeper._thread.join()
    told, _ = replica.writer.digests_of(DISK, 0, 3)
    assert replica.lost == "the vault lost 1 packs"
    assert not np.array_equal(known, told)
    replica.intake.data(4, DISK, np.arange(3), encode(replica.vault.digest_key, bytes([1]) * (3 * BLOCK_SIZE))[1])
    replica.intake.flush()
    commit(replica)
    fresh = replica.writer._disks[DISK].base.lookup(0, 3)
    assert int(ref["random"]) not in fresh["random"].tolist()
    replica.close("end")
