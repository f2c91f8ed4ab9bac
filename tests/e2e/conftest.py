"""The end-to-end tests play on stages of their own, and leave nothing behind."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.demo.stage import Stage
from tests.machine.traces import processes_of

from farshore_engine.machines import loop


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
    return [
        *(line for line in Path("/proc/self/mounts").read_text().splitlines() if str(directory) in line),
        *(device.device for device in loop.attached() if device.backing.startswith(str(directory))),
        *processes_of(str(directory)),
        *(line for line in command_lines() if str(directory) in line),
    ]


def command_lines() -> list[str]:
    """Return the command lines of all processes."""
    found = []
    for entry in os.listdir("/proc"):  # not glob, which fails when a process ends meanwhile
        with suppress(OSError):
            found.append(Path("/proc", entry, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found
