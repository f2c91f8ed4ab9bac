"""The cache of tools: complete entries only, made once, however many runs want them."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from farshore_cli.dev.cache import Pace, cache_root, cached, fingerprint


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FARSHORE_CACHE", str(tmp_path))


def test_an_entry_is_made_once_by_runs_that_want_it_together() -> None:
    made, waited = [], []
    began, finish = threading.Event(), threading.Event()

    def make(to: Path) -> None:
        made.append(to)
        began.set()
        assert finish.wait(60)
        (to / "tool").write_text("works")

    def waiting(line: str) -> None:
        waited.append(line)
        finish.set()

    first = threading.Thread(target=cached, args=("tool", "key", make))
    first.start()
    assert began.wait(60)
    entry = cached("tool", "key", make, waiting)
    first.join()
    assert (entry / "tool").read_text() == "works"
    assert len(made) == 1
    assert waited == ["waiting for another run that makes tool"]


def test_a_failed_attempt_leaves_nothing_and_the_next_one_succeeds() -> None:
    def fail(to: Path) -> None:
        (to / "half").write_text("")
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        cached("tool", "key", fail)
    entry = cached("tool", "key", lambda to: (to / "whole").touch())
    assert [file.name for file in entry.iterdir()] == ["whole"]
    assert [file for file in (cache_root() / "tool").iterdir() if file.is_dir()] == [entry]


def test_what_a_killed_run_left_is_removed() -> None:
    left_over = cache_root() / "tool" / ".key.scratch-abc"
    left_over.mkdir(parents=True)
    cached("tool", "key", lambda to: (to / "whole").touch())
    assert not left_over.exists()


def test_a_fingerprint_tells_parts_apart_that_join_to_the_same_text() -> None:
    assert fingerprint("ab", "c") != fingerprint("a", "bc")
    assert fingerprint("ab", "c") == fingerprint(b"ab", b"c")


def test_long_work_reports_at_most_once_an_interval() -> None:
    now = iter([0.0, 4.0, 10.0, 11.0, 21.0, 21.5])
    pace = Pace(10.0, clock=lambda: next(now))
    assert [pace.due() for _ in range(4)] == [False, True, False, True]
    assert pace.elapsed == 21.5
