"""A point in the vault equals the source at the instant of its freeze, byte for byte, under load (invariant 2).

The whole way is walked: real disks under fio and file churn, the agent, TLS, the process server with its spool, the
vault, hydration. Inside each freeze the backing files are reflink-cloned; the hydrated disks must equal the clones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from tests.machine.replication_rig import Stage, open_stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with open_stage(tmp_path) as stage:
        yield stage


@pytest.mark.parametrize(
    "kinds",
    [
        pytest.param(["ext4"], id="one ext4 disk"),
        pytest.param(["xfs"], id="one xfs disk"),
        pytest.param(["ext4", "xfs"], id="two disks, ext4 and xfs"),
    ],
)
def test_every_point_of_a_series_restores_the_source_as_it_was_at_the_freeze(stage: Stage, kinds: list[str]) -> None:
    with ExitStack() as stack:
        for kind in kinds:
            stack.enter_context(stage.rig.fio(stage.rig.disk(kind, options="discard")))
        stack.enter_context(stage.process_server())
        stage.assign()
        stack.enter_context(stage.agent())
        stage.wait_points(5)
    verdicts = stage.wrong_blocks()
    assert len(verdicts) >= 5
    assert verdicts == {name: [] for name in verdicts}
