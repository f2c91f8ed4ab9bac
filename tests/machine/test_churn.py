"""A machine that writes faster than the policy lets it send: a freeze takes what it can, and figures tell the rest."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from tests.machine.agent_slow_disk import write_direct
from tests.machine.memory_controlplane import assignment
from tests.machine.replication_rig import FAST, MACHINE, open_stage

MIB = 1 << 20


@contextmanager
def rewriting(device: str, size: int) -> Iterator[None]:
    """Write one area of a disk over and over, as fast as it goes."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            write_direct(device, os.urandom(MIB) * (size // MIB), 0)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(120)


def test_churn_that_outruns_the_link_is_reported_with_figures_and_points_come_again(tmp_path: Path) -> None:
    slow = FAST.model_copy(update={"bandwidth_limit": 2 * MIB, "crash_consistent_interval": timedelta(seconds=1)})
    with open_stage(tmp_path) as stage:
        disk = stage.rig.disk("", 32)
        stage.policy = slow
        stage.assign()
        with stage.process_server(), stage.agent(frozen_buffer=MIB, frozen_buffer_most=MIB):
            stage.wait_points(1)
            with rewriting(disk.device, 4 * MIB):
                # A round that is looked at late tells of less churn than there was; those that follow do not.
                report = stage.control.wait_report(
                    MACHINE,
                    lambda r: r.churn and r.churn.outruns_link and r.churn.written_rate > r.churn.sent_rate * 0.9,
                )
                assert "churn outruns the link" in report.message
                assert "raise the bandwidth or lengthen the interval" in report.message
                assert 0 < report.churn.sent_rate < 4 * MIB, "the limit of the policy; a busy machine sends less"
            count = report.point_count
            stage.control.assign(assignment(MACHINE, stage.vault, FAST))
            report = stage.control.wait_report(
                MACHINE, lambda r: r.point_count > count + 1 and r.churn and not r.churn.outruns_link
            )


def test_an_area_rewritten_for_ever_is_read_within_the_freeze_by_a_buffer_that_grows(tmp_path: Path) -> None:
    """Rounds of copying never leave less than the area, however long one waits: no point was ever made of it."""
    slow = FAST.model_copy(update={"bandwidth_limit": 2 * MIB, "crash_consistent_interval": timedelta(seconds=1)})
    with open_stage(tmp_path) as stage:
        disk = stage.rig.disk("", 32)
        stage.policy = slow
        stage.assign()
        with stage.process_server(), stage.agent(frozen_buffer=MIB):
            stage.wait_points(1)
            with rewriting(disk.device, 4 * MIB):
                stage.wait_points(4)
