"""The end-to-end tests play on stages of their own, and leave nothing behind."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.demo.stage import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    """A stage that is taken down again, and that shows its logs when the test fails."""
    stage = Stage(tmp_path / "stage", print)
    try:
        yield stage
    finally:
        print(stage.logs())
        stage.down()


def left_behind(directory: Path) -> list[str]:
    """Return the mounts, loop devices and processes that still use a directory."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(directory) in line]
    loops = subprocess.check_output(["losetup", "--list", "--noheadings", "--output", "NAME,BACK-FILE"], text=True)
    processes = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if str(directory) in command:
            processes.append(command)
    return [*mounts, *(line for line in loops.splitlines() if str(directory) in line), *processes]
