"""When a disk is missing, and what the process server makes of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.unit.test_processserver_steps import wanted

from farshore_engine.contract.assignment import Source
from farshore_engine.contract.replication import Disk, State
from farshore_engine.processserver.missing import explain, missing_disks
from farshore_engine.processserver.steps import LocalState, Step, next_step
from farshore_engine.vault.records import PointDisk

SYSTEM, DATA = ("wwn-1", "sda"), ("wwn-2", "sdb")


def had(*disks: tuple[str, str]) -> list[PointDisk]:
    return [PointDisk(id=id, name=name, size_bytes=10 << 30) for id, name in disks]


def has(*disks: tuple[str, str]) -> list[Disk]:
    return [Disk(id=id, name=name, size_bytes=10 << 30) for id, name in disks]


def source(include: tuple[str, ...] = (), exclude: tuple[str, ...] = ()) -> Source:
    return Source(address="10.0.0.1", include_disks=include, exclude_disks=exclude)


GONE = "disk sdb (wwn-2, 10.0 GiB) of the last recovery point"


@pytest.mark.parametrize(
    ("before", "now", "listed", "expected"),
    [
        pytest.param(had(SYSTEM, DATA), has(SYSTEM, DATA), source(), (), id="all are there"),
        pytest.param(had(SYSTEM, DATA), has(SYSTEM), source(), (GONE,), id="one is gone"),
        pytest.param([], has(SYSTEM), source(), (), id="there is no point yet"),
        pytest.param(had(SYSTEM), has(SYSTEM, DATA), source(), (), id="one came"),
        pytest.param(had(SYSTEM, DATA), has(SYSTEM), source(exclude=("wwn-2",)), (), id="gone and excluded by id"),
        pytest.param(had(SYSTEM, DATA), has(SYSTEM), source(exclude=("/dev/sdb",)), (), id="gone and excluded by path"),
        pytest.param(had(SYSTEM, DATA), has(SYSTEM), source(include=("sda",)), (), id="gone and not included"),
        pytest.param(had(SYSTEM, DATA), has(SYSTEM), source(include=("sda", "sdb")), (GONE,), id="gone and included"),
        pytest.param(
            had(SYSTEM, ("name-sdb", "sdb")), has(SYSTEM, ("fs-77", "sdb")), source(), (), id="a file system was made"
        ),
        pytest.param(had(SYSTEM, DATA), has(SYSTEM, ("wwn-2", "sdc")), source(), (), id="it has another name now"),
        pytest.param(
            [], has(SYSTEM), source(include=("sda", "sdz")),
            ("disk sdz, which spec.source.disks.include lists,",), id="it was never there",
        ),
    ],
)  # fmt: skip
def test_a_disk_is_missing(before: list[PointDisk], now: list[Disk], listed: Source, expected: tuple[str, ...]) -> None:
    assert missing_disks(before, now, listed) == expected


def test_a_missing_disk_needs_a_person() -> None:
    local = LocalState(opened=True, certified=True, installed=True, synced=True, missing=(GONE,))
    decision = next_step(wanted(), local, datetime(2026, 1, 1, tzinfo=UTC))
    assert (decision.step, decision.state, decision.reason) == (Step.NONE, State.BLOCKED, "DiskMissing")
    assert decision.message == f"no recovery point is taken: {GONE} is not in the machine" == explain((GONE,))
    assert "Attach it again" in decision.remedy
    assert "spec.source.disks.exclude" in decision.remedy
