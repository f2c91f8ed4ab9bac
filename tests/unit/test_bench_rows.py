"""What the bench makes of its measurements: quantiles, ratios, what counts as met, and the form of its file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.bench import freezes, replication, vault_rates
from tests.bench.peers.programs import Borg, Copy, Kopia, Peer, Restic, Rsync
from tests.bench.replication import HALF, SPARSE, First, Shape
from tests.bench.rows import Row, figure, write
from tests.bench.vault_rates import Measured

MIB = 1 << 20


def copies(directory: Path, **rates: float) -> dict[str, Copy]:
    """Peers whose first copy of 100 MiB ran at these MiB/s."""
    kinds: dict[str, type[Peer]] = {"restic": Restic, "kopia": Kopia, "borg": Borg, "rsync": Rsync}
    return {
        kinds[name].family: Copy(kinds[name](directory / name, directory / "disk"), 100 / rate, 1.0)
        for name, rate in rates.items()
    }


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        pytest.param("p50", [3.0, 1.0, 2.0], 2.0, id="the middle one"),
        pytest.param("p99", [float(n) for n in range(1, 301)], 297.0, id="three of 300 may be longer"),
        pytest.param("p99", [1.0, 9.0], 9.0, id="of few it is the longest"),
        pytest.param("max", [1.0, 9.0, 4.0], 9.0, id="the longest"),
    ],
)
def test_quantiles_are_values_that_were_measured(name: str, values: list[float], expected: float) -> None:
    assert freezes._quantile(values, name) == expected


@pytest.mark.parametrize(
    ("shape", "rate", "rates", "met"),
    [
        pytest.param(HALF, 300, {"restic": 100, "kopia": 100, "borg": 200}, [True, True, True], id="all reached"),
        pytest.param(HALF, 290, {"restic": 100, "kopia": 90, "borg": 200}, [False, True, False], id="some missed"),
        pytest.param(HALF, 300, {"restic": 100, "borg": 200}, [True, True], id="a peer that cannot be had has no row"),
        pytest.param(HALF, 300, {"restic": 100, "rsync": 900}, [True], id="no target beside one that only copies"),
        pytest.param(SPARSE, 10, {"restic": 100, "borg": 200}, [None, None], id="no target for this content"),
    ],
)
def test_each_peer_has_its_own_factor(
    tmp_path: Path, shape: Shape, rate: float, rates: dict[str, float], met: list[bool | None]
) -> None:
    made = First(100 / rate, 0.5, 79.0, 200.0)
    first, cost, *ratios = replication._peer_rows("copy", shape, 100 * MIB, made, copies(tmp_path, **rates))
    assert first.value == pytest.approx(rate)
    assert cost.value == pytest.approx(0.5 * 1024 / 100)
    assert list(cost.peers.values()) == pytest.approx([1024 / 100] * len(rates))
    assert sorted(first.peers.values()) == pytest.approx(sorted(rates.values()))
    assert [row.met for row in ratios] == met
    assert ratios[0].value == pytest.approx(rate / rates["restic"])


def test_how_many_points_were_made_is_a_row_of_its_own() -> None:
    rows = freezes._rows([0.05] * 7, [0.02] * 7, 80.0, (8, 1))
    made = next(row for row in rows if row.name.endswith("points made"))
    assert (made.value, made.target, made.met) == (7, "8", False)
    assert freezes._rows([], [], 80.0, (8, 1))[0].met is False


def test_the_lower_of_device_and_processor_is_the_limit() -> None:
    slow = Measured("read", 1024 * MIB, seconds=2.0, cpu=0.5)
    costly = Measured("compress", 1024 * MIB, seconds=1.0, cpu=1.0)
    cores = os.cpu_count() or 1
    assert vault_rates.limit([slow, costly]) == pytest.approx(cores * 1024 / 1.5)
    assert vault_rates.slowest([slow, costly]) is slow
    rows = {
        row.name.partition("copy")[2]: row
        for row in replication._limit_rows("copy", HALF, 1024 * MIB, First(2.5, 2.0, 79.0, 200.0), [slow, costly])
    }
    assert rows[" / the lower limit"].value == pytest.approx(min(0.8, 0.8))  # the device gives 512 MiB/s
    assert rows[" / the lower limit"].met
    assert rows[": agent and watchdog, locked"].met


def test_the_file_has_the_promised_form(tmp_path: Path) -> None:
    write([Row("copy", 2, "MiB/s", "at least 1", True, {"borg": 1}), Row("plain", 1.0, "s")], tmp_path / "b.json")
    assert json.loads((tmp_path / "b.json").read_text()) == {
        "rows": [
            {"name": "copy", "value": 2, "unit": "MiB/s", "target": "at least 1", "met": True, "peers": {"borg": 1}},
            {"name": "plain", "value": 1.0, "unit": "s", "target": "", "met": None, "peers": {}},
        ]
    }  # fmt: skip
    assert [figure(v) for v in (0, 0.123, 12.34, 1234.5)] == ["0", "0.12", "12.3", "1234"]
