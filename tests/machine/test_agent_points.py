"""A point equals the disks at the instant of the freeze, byte for byte, while programs write (invariant 2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.machine.agent_rig import Rig, running_agent

from farshore_engine.wire.messages import Consistency, PointEnd


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "rig").open()
    yield rig
    rig.close()


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(["ext4"], id="one ext4 disk"),
        pytest.param(["xfs"], id="one xfs disk"),
        pytest.param(["ext4", "xfs"], id="two disks, ext4 and xfs"),
    ],
)
def test_points_equal_the_source_under_load(rig: Rig, kinds: list[str]) -> None:
    with ExitStack() as stack:
        for kind in kinds:
            disk = rig.disk(kind, options="discard")
            stack.enter_context(rig.fio(disk))
        running = stack.enter_context(running_agent(rig))
        running.peer.wait_synced()
        for number in range(4):
            end = running.peer.take_point(f"p{number}")
            assert isinstance(end, PointEnd)
            assert running.verdicts[end.id] == []
            assert end.consistency is Consistency.CRASH
            assert 0 < end.freeze_seconds <= running.peer.settings.freeze_bound
        assert not running.peer.heard.resyncs
        assert running.peer.heard.synced <= len(running.peer.heard.hellos), "no connection passes over the disks twice"
