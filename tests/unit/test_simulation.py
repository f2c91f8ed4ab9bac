"""Simulated schedules of the whole replication protocol, and proof that the simulation finds what it should.

`make soak` runs thousands; a failure here prints the seed, and `python -m tests.simulation --seed N` replays it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = 25  # after which no schedule begins: a slow host runs fewer
CHOSEN = (
    "acknowledge-first",
    "any-vaults-spool",
    "clear-after-read",
    "manifest-first",
    "no-fence",
    "no-fsync",
    "no-mark-at-queue",
    "one-bitmap",
    "sweep-as-first-decided",
)


def simulation(*arguments: str) -> str:
    ran = subprocess.run(
        [sys.executable, "-m", "tests.simulation", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout[-12000:] + ran.stderr[-4000:]
    return ran.stdout


@pytest.mark.timeout(600)
def test_no_schedule_breaks_an_invariant() -> None:
    output = simulation("--seeds", "0-299", "--seconds", str(SECONDS), "--lines", "80")
    assert "no violation" in output


@pytest.mark.timeout(900)
def test_a_schedule_is_the_same_whenever_it_is_replayed() -> None:
    assert (
        simulation("--seed", "7", "--lines", "4000").rpartition(" in ")[0]
        == (simulation("--seed", "7", "--lines", "4000").rpartition(" in ")[0])
    )


@pytest.mark.timeout(900)
@pytest.mark.parametrize("guard", CHOSEN)
def test_a_guard_that_is_taken_away_is_missed(guard: str) -> None:
    assert f"{guard}: found" in simulation("--teeth", guard)
