"""The memory for the rest of a point: it grows where rounds do not help, within bounds, and is given back."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from farshore_engine.agent import rest
from farshore_engine.agent.ledger import Ledger

MIB = 1 << 20


@pytest.mark.parametrize(
    ("size", "available", "fits"),
    [
        pytest.param(MIB, 0, True, id="what it holds anyway"),
        pytest.param(6 * MIB, 64 * MIB, True, id="more"),
        pytest.param(9 * MIB, 1024 * MIB, False, id="more than it may"),
        pytest.param(6 * MIB, 40 * MIB, False, id="more than the machine can spare"),
    ],
)
def test_the_buffer_grows_within_bounds_until_it_is_given_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, available: int, fits: bool
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(f"MemTotal:  9999999 kB\nMemFree:  1 kB\nMemAvailable:  {available >> 10} kB\n")
    monkeypatch.setattr(rest, "MEMINFO", meminfo)
    with ThreadPoolExecutor(1) as workers:
        buffer = rest.Rest(Ledger({"disk": 16}), {}, workers, 2 * MIB, 8 * MIB)
        assert buffer.reserve(size) is fits
        assert (buffer.capacity >= size) is fits
        buffer.release()
        assert buffer.capacity == 2 * MIB
