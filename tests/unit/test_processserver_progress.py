"""What the status says of a copy: bytes, percent, rate and the time that is left."""

from __future__ import annotations

import pytest

from farshore_engine.processserver.progress import ProgressMeter

MIB = 1 << 20


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        pytest.param([(0.0, 0)], (0, 0, None), id="just begun: nothing can be told"),
        pytest.param([(0.0, 0), (10.0, 400 * MIB)], (40, 40 * MIB, 15), id="steady"),
        pytest.param([(0.0, 0), (10.0, 400 * MIB), (11.0, 400 * MIB)], (40, 38130036, 17), id="it hesitates"),
        pytest.param([(0.0, 0), (5.0, 1000 * MIB)], (100, 200 * MIB, 0), id="done"),
        pytest.param([(0.0, 900 * MIB), (1.0, 100 * MIB)], (10, 0, None), id="a new pass began"),
        pytest.param(
            [(0.0, 0), (100.0, 100 * MIB), (110.0, 600 * MIB)], (60, 50 * MIB, 8), id="the rate is that of late"
        ),
    ],
)
def test_progress(samples: list[tuple[float, int]], expected: tuple[int, int, int | None]) -> None:
    meter = ProgressMeter()
    for now, done in samples:
        meter.note(now, 1000 * MIB, done)
    report = meter.report()
    assert report is not None
    assert (report.percent, report.rate, report.eta_seconds) == expected
    assert (report.bytes_total, report.bytes_done) == (1000 * MIB, samples[-1][1])
