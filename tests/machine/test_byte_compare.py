"""A point in the vault equals the source at the instant of its freeze, byte for byte, under load (invariant 2).

The whole way is walked: real disks under fio and file churn, the agent, TLS, the process server with its spool, the
vault, hydration. Inside each freeze the backing files are reflink-cloned; the hydrated disks must equal the clones.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest
from azure.storage.blob import BlobServiceClient
from tests.machine.agent_rig import RealDisk
from tests.machine.agent_slow_disk import SlowDisk, write_direct
from tests.machine.replication_rig import FAST, Stage, azure_vault, open_stage

from farshore_cli.dev.azurite import Azurite
from farshore_engine.agent.agent import Variants
from farshore_engine.agent.source import Reader
from farshore_engine.agent.tracker.tracefs import COMPLETIONS, EVENTS, QUEUE, TraceFsTracker
from farshore_engine.blocks.grid import BLOCK_SIZE


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


def test_points_in_azure_blob_storage_restore_the_source_too(
    tmp_path: Path, azurite: Azurite, container_name: str
) -> None:
    BlobServiceClient.from_connection_string(azurite.connection_string).create_container(container_name).close()
    vault = azure_vault(azurite.connection_string, azurite.account_url, container_name)
    with open_stage(tmp_path, vault) as stage, ExitStack() as stack:
        stack.enter_context(stage.rig.fio(stage.rig.disk("ext4", size_mib=200)))
        stack.enter_context(stage.process_server())
        stage.assign()
        stack.enter_context(stage.agent())
        stage.wait_points(4)
        stack.close()
        verdicts = stage.wrong_blocks()
    assert len(verdicts) >= 4
    assert not any(verdicts.values())


def _slow_reads(direct: bool = True) -> Callable[[str], Reader]:
    """Return a reader that keeps what it read for a moment, so that a write often comes in between."""

    def pause(offset: int, length: int) -> None:
        time.sleep(0.002)

    return lambda path: Reader(path, direct=direct, after_read=pause)


@pytest.mark.parametrize(
    ("variants", "fails"),
    [
        pytest.param(lambda: Variants(reader=_slow_reads()), False, id="as it is, with slow reads"),
        pytest.param(
            lambda: Variants(reader=_slow_reads(), clear_before_read=False), True, id="mark cleared after the read"
        ),
        pytest.param(lambda: Variants(reader=_slow_reads(direct=False)), True, id="buffered reads of the device"),
    ],
)
def test_the_comparison_notices_each_fault_that_the_design_guards_against(
    stage: Stage, variants: Callable[[], Variants], fails: bool
) -> None:
    with ExitStack() as stack:
        stack.enter_context(stage.rig.fio(stage.rig.disk("ext4", size_mib=160)))
        stack.enter_context(stage.process_server())
        stage.policy = FAST.model_copy(update={"crash_consistent_interval": timedelta(seconds=1)})
        stage.assign()
        stack.enter_context(stage.agent(variants()))
        stage.wait_points(8)
        for more in (24, 48):  # a fault shows by chance: the more writes between read and clearing, the sooner
            if fails and not any(stage.wrong_blocks().values()):
                stage.wait_points(more)
    wrong = [point for point, blocks in stage.wrong_blocks().items() if blocks]
    assert bool(wrong) is fails


@pytest.mark.parametrize(
    ("events", "held", "fails"),
    [
        pytest.param(EVENTS, "after", False, id="as it is, a write has landed and is not completed"),
        pytest.param(COMPLETIONS, "after", True, id="no mark at queue, a write has landed and is not completed"),
        pytest.param(EVENTS, "before", False, id="as it is, a write lands after its block was read"),
        pytest.param((QUEUE,), "before", True, id="no mark at completion, a write lands after its block was read"),
    ],
)
def test_the_comparison_notices_a_missing_mark(
    stage: Stage, events: tuple[str, ...], held: Literal["before", "after"], fails: bool
) -> None:
    """The race lasts microseconds on a usual disk; this one holds the write as long as two points take."""
    rig, size, block = stage.rig, 64 << 20, 100 * BLOCK_SIZE
    with SlowDisk(rig.store.path / "slow.img", rig.directory / "slow", size) as disk, ExitStack() as stack:
        rig.disks.append(RealDisk(disk.backing, disk.device, ""))
        write_direct(disk.device, os.urandom(1 << 20), block)
        stack.enter_context(stage.process_server())
        stage.assign()
        scratch = stage.directory / "scratch"
        variants = Variants(tracker=lambda disks: TraceFsTracker(disks, scratch, "marks", events))
        stack.enter_context(stage.agent(variants))
        stage.wait_points(1)
        disk.hold(held)
        writer = disk.write_in_background(os.urandom(4096), block)
        stage.more_points()
        stage.more_points()
        disk.release()
        writer.join()
        if held == "before":  # the write lands now, and the next points must have it
            stage.more_points()
            stage.more_points()
        wrong = [point for point, blocks in stage.wrong_blocks().items() if blocks]
    assert bool(wrong) is fails
