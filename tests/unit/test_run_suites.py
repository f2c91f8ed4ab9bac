"""The total that `make test` ends with: nothing that did not pass may be missing from it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests import run_suites

PASSES = "def test_fine(): pass\n"
FAILS = "def test_wrong(): assert 1 == 2\n"
BROKEN_FIXTURE = "import pytest\n@pytest.fixture\ndef broken(): raise OSError\ndef test_never_runs(broken): pass\n"
BROKEN_TEARDOWN = (
    "import pytest\n@pytest.fixture\ndef leaky():\n    yield\n    raise OSError\ndef test_leaks(leaky): pass\n"
)
SKIPS = "import pytest\ndef test_later(): pytest.skip('no')\n"
DIES = PASSES + "def test_dies():\n    import os; os._exit(9)\n"


@pytest.mark.parametrize(
    ("suites", "total", "code"),
    [
        pytest.param({"unit": PASSES + SKIPS}, "1 passed, 0 failed", 0, id="a skipped test is neither"),
        pytest.param({"unit": SKIPS}, "0 passed, 0 failed", 1, id="nothing but skipped tests is no success"),
        pytest.param(
            {"unit": FAILS + BROKEN_FIXTURE + BROKEN_TEARDOWN, "e2e": PASSES},
            "1 passed, 3 failed",
            1,
            id="failures, broken fixtures and clean-ups count and stop no later suite",
        ),
        pytest.param({"contract": PASSES, "e2e": DIES}, "1 passed, 1 failed", 1, id="a pytest that dies is a failure"),
        pytest.param({}, "0 passed, 0 failed", 1, id="no tests at all are no success"),
    ],
)
def test_the_last_line_is_the_total(
    suites: dict[str, str],
    total: str,
    code: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for suite, body in suites.items():
        (tmp_path / "tests" / suite).mkdir(parents=True)
        (tmp_path / "tests" / suite / "test_it.py").write_text(body)
    monkeypatch.setattr(run_suites, "ROOT", tmp_path)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # a dozen pytests: each must start fast
    assert run_suites.main([]) == code
    assert capsys.readouterr().out.splitlines()[-1] == total


def test_an_unknown_suite_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_suites.main(["unti"]) == 2
    assert "unknown suite unti; there are unit, contract, azure, machine, cluster, e2e" in capsys.readouterr().err


def test_what_needs_root_is_said_at_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert run_suites.main([]) == 2
    assert "run them as root" in capsys.readouterr().err
