"""What the vault lost comes again: the agent dials in anew, its disks are compared, and then all is as before."""

from __future__ import annotations

import pytest

from farshore_engine.processserver.syncmode import Held, plan_sync
from farshore_engine.wire.messages import Baseline, DiskInfo, SyncMode

DISKS = (DiskInfo("sda", "/dev/sda", 1 << 30), DiskInfo("sdb", "/dev/sdb", 1 << 30))
TRACKED = Baseline(session="s", spool="p", acked=5, point="p-1")


@pytest.mark.parametrize(
    ("lost", "mode"),
    [
        pytest.param("", SyncMode.DELTA, id="nothing is lost"),
        pytest.param("the vault lost 2 packs", SyncMode.RESYNC, id="packs are lost"),
    ],
)
def test_a_tracked_disk_is_compared_when_the_vault_lost_something(lost: str, mode: SyncMode) -> None:
    plan = plan_sync(DISKS, TRACKED, Held("p", "s", 9, "p-1", frozenset({"sda"}), lost))
    assert [disk.mode for disk in plan.disks] == [mode, SyncMode.FULL]
    assert plan.keep_pending  # what was tracked meanwhile is not forgotten
    assert plan.resync_reason.startswith(lost)
