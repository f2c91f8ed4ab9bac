"""What is typed wrong is refused with the words that are known, before anything is done."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from farshore_cli.main import build


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(["status", "-o", "yaml"], id="status"),
        pytest.param(["points", "web-01", "-o", "yaml"], id="points"),
        pytest.param(["doctor", "web-01", "-o", "yaml"], id="doctor"),
        pytest.param(["operator", "--log-level", "loud"], id="operator"),
        pytest.param(["processserver", "--state", "state", "--log-level", "loud"], id="process server"),
        pytest.param(["operator", "--log-format", "xml"], id="log format"),
    ],
)
def test_an_unknown_word_is_refused_with_the_known_ones(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(build(), words, env={"COLUMNS": "200"})
    assert answer.exit_code == 2
    assert "is not one of" in answer.output
    assert not list(tmp_path.iterdir())
