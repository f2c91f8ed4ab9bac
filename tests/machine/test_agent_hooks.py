"""Application-consistent points: hooks run before and after the freeze, and whatever they do, nothing stays held."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.machine.agent_rig import Rig, running_agent
from tests.machine.test_agent_freeze import is_frozen

from farshore_engine.agent.hooks import HookOrder, Hooks, Quiet
from farshore_engine.wire.messages import Consistency, PointEnd


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(tmp_path_factory.mktemp("rig")).open()
    rig.disk("ext4", 64)
    yield rig
    rig.close()


class HookDirectory:
    """A machine's hooks directory; each hook notes its calls, and whether the file system was frozen, in `log`."""

    def __init__(self, directory: Path, mount: Path) -> None:
        self.path = directory / "hooks.d"
        self.path.mkdir(mode=0o755)
        self.log = directory / "log"
        self.log.touch()
        self.mount = mount

    def add(self, name: str, pre: str = "", post: str = "", mode: int = 0o755) -> Path:
        """Add a hook; `pre` and `post` are shell commands."""
        hook = self.path / name
        # A write that is held up for ten seconds was sent while the file system was frozen.
        probe = f"timeout 10 sh -c ': >{self.mount}/probe' && echo {name} $1 >>{self.log} || echo FROZEN >>{self.log}"
        hook.write_text(f"#!/bin/sh\n{probe}\ncase $1 in pre) {pre or ':'};; post) {post or ':'};; esac\n")
        hook.chmod(mode)
        return hook

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().split("\n")[:-1]


@pytest.fixture
def hooks(rig: Rig, tmp_path: Path) -> HookDirectory:
    mount = rig.disks[0].mount
    assert mount is not None
    return HookDirectory(tmp_path, mount)


def app_point(rig: Rig, hooks: HookDirectory) -> PointEnd:
    """Take an application-consistent point with these hooks; its content is judged too."""
    with running_agent(rig, hooks_dir=hooks.path) as running:
        running.peer.settings = replace(running.peer.settings, hook_timeout=20.0, hook_window=40.0)
        running.peer.wait_synced()
        end = running.peer.take_point("p", consistency=Consistency.APP, timeout=240)
        assert isinstance(end, PointEnd)
        assert running.verdicts[end.id] == []
    assert not is_frozen(hooks.mount)
    assert not (running.config.runtime_dir / "hooks.json").exists(), "nothing is owed"
    return end


def test_all_hooks_succeed_and_run_around_the_freeze_not_in_it(rig: Rig, hooks: HookDirectory) -> None:
    hooks.add("10-first", pre='[ -d "$FARSHORE_STATE" ] && [ "$FARSHORE_TIMEOUT" = 20 ]')
    hooks.add("20-second", pre=f'[ "$FARSHORE_MOUNTS" = {hooks.mount} ] && [ -n "$FARSHORE_POINT" ]')
    hooks.add("30-switched-off", mode=0o644)
    end = app_point(rig, hooks)
    assert (end.consistency, end.notes) == (Consistency.APP, ())
    assert hooks.calls == ["10-first pre", "20-second pre", "20-second post", "10-first post"]


def test_a_failing_hook_makes_a_crash_consistent_point_that_says_so(rig: Rig, hooks: HookDirectory) -> None:
    hooks.add("a", pre="echo no room; exit 3")
    end = app_point(rig, hooks)
    assert end.consistency is Consistency.CRASH
    assert end.notes == ("the point is only crash-consistent: the pre hook a failed with status 3: no room",)
    assert hooks.calls == ["a pre", "a post"]


def test_without_any_hook_the_note_says_where_to_put_one(rig: Rig, hooks: HookDirectory) -> None:
    end = app_point(rig, hooks)
    assert end.consistency is Consistency.CRASH
    assert len(end.notes) == 1
    assert str(hooks.path) in end.notes[0]
    assert "spec.source.applicationHooks" in end.notes[0]


def at_rest(hooks: HookDirectory, order: HookOrder) -> Quiet:
    """Go through an attempt's use of the hooks; nothing is frozen."""
    found = Hooks(hooks.path.parent / "run", hooks.path)
    quiet = found.begin("p", order, [])
    quiet.rest(lambda until: None)
    quiet.post()
    assert found.run_owed() == [], "nothing is owed"
    return quiet


@pytest.mark.parametrize(
    ("bad", "mode", "note", "called"),
    [
        pytest.param({"pre": "kill -9 $$"}, 0o755, "pre hook b failed by signal 9", True, id="dies"),
        pytest.param({"pre": "sleep 100"}, 0o755, "pre hook b did not end within 4 s and was killed", True, id="hangs"),
        pytest.param({"pre": "yes; :"}, 0o755, "pre hook b did not end within 4 s", True, id="never stops talking"),
        pytest.param({"post": "exit 1"}, 0o755, "post hook b failed with status 1", True, id="its post fails"),
        pytest.param({"post": "sleep 100"}, 0o755, "post hook b did not end within 4 s", True, id="its post hangs"),
        pytest.param({}, 0o757, "hook b was refused: others than root may write to", False, id="anyone may change it"),
    ],
)
def test_whatever_a_hook_does_the_others_are_released(
    hooks: HookDirectory, bad: dict[str, str], mode: int, note: str, called: bool
) -> None:
    hooks.add("a")
    hooks.add("b", mode=mode, **bad)
    hooks.add("c")
    patience = 4.0 if "within 4 s" in note else 60.0  # short only where a hook has to be too late
    quiet = at_rest(hooks, HookOrder((), patience, 240.0))
    assert not quiet.held
    assert len(quiet.notes) == 1, quiet.notes
    assert note in quiet.notes[0]
    assert [c for c in hooks.calls if c.startswith("b")] == (["b pre", "b post"] if called else [])
    assert hooks.calls[0] == "a pre"
    assert hooks.calls[-1] == "a post"


def test_a_hook_of_somebody_else_is_refused(hooks: HookDirectory) -> None:
    os.chown(hooks.add("a"), 1, 1)
    quiet = at_rest(hooks, HookOrder())
    assert "belongs to user 1, not to root" in quiet.notes[0]
    assert hooks.calls == []


def lives(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_hook_is_killed_whole(hooks: HookDirectory, tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    hooks.add("a", pre=f"trap '' TERM; sleep 1000 & echo $! >{pid}; wait; wait")
    assert not at_rest(hooks, HookOrder((), 4.0, 120.0)).held
    child = int(pid.read_text())
    deadline = time.monotonic() + 60
    while lives(child):
        assert time.monotonic() < deadline, "a child of the hook lives on"
        time.sleep(0.05)  # who was killed dies when the kernel comes to it


def test_a_window_that_ends_before_the_freeze_releases_the_applications(hooks: HookDirectory) -> None:
    hooks.add("a")
    hooks.add("b")
    now = [0.0]
    quiet = Hooks(hooks.path.parent / "run", hooks.path, clock=lambda: now[0]).begin("p", HookOrder((), 30.0, 60.0), [])

    def slow_copy(until: Callable[[], bool] | None) -> None:
        if until is not None:
            assert not until()
            now[0] += 61.0
            assert until()
        else:
            assert hooks.calls[-1] == "a post", "the rest is sent with the applications released"

    quiet.rest(slow_copy)
    assert not quiet.held
    assert quiet.notes == [
        "the point is only crash-consistent: the hooks' window of 60 s ended before the freeze could begin"
    ]
    assert hooks.calls == ["a pre", "b pre", "b post", "a post"]


def test_a_shipped_hook_that_is_not_there_is_said(hooks: HookDirectory) -> None:
    hooks.add("a")
    quiet = at_rest(hooks, HookOrder(("oracle",)))
    assert "oracle is not among the shipped ones" in quiet.notes[0]


AGENT = """
import sys, time
from pathlib import Path
from farshore_engine.agent.hooks import HookOrder, Hooks, Quiet
quiet = Hooks(Path(sys.argv[1]), Path(sys.argv[2])).begin("p", HookOrder((), 20.0, 40.0), [])
assert quiet.pre()
print("held", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("how", ["next agent", "service manager"])
def test_posts_that_a_killed_agent_owes_are_run(hooks: HookDirectory, tmp_path: Path, how: str) -> None:
    hooks.add("a")
    hooks.add("b", post='[ "$FARSHORE_ABANDONED" = 1 ]')
    runtime = tmp_path / "run"
    arguments = [sys.executable, "-c", AGENT, str(runtime), str(hooks.path)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "held\n"
        os.kill(agent.pid, signal.SIGKILL)
    if how == "next agent":
        assert Hooks(runtime, hooks.path).run_owed() == ["a", "b"]
    else:
        config = tmp_path / "config.json"
        config.write_text(
            '{"machineId": "m", "servers": [{"host": "127.0.0.1"}], "ca": "/x", "certificate": "/x", "key": "/x", '
            f'"runtimeDir": "{runtime}", "hooksDir": "{hooks.path}"}}'
        )
        command = [sys.executable, "-m", "farshore_engine.agent.main", "thaw", "--config", str(config)]
        subprocess.run(command, check=True)
    assert hooks.calls == ["a pre", "b pre", "b post", "a post"]
    assert Hooks(runtime, hooks.path).run_owed() == [], "once"


def test_a_hook_does_not_inherit_the_agents_exemption_from_the_oom_killer(hooks: HookDirectory) -> None:
    hooks.add("a", pre="[ $(cat /proc/self/oom_score_adj) = 0 ]")
    score = Path("/proc/self/oom_score_adj")
    before = score.read_text()
    score.write_text("500")
    try:
        quiet = at_rest(hooks, HookOrder())
        assert quiet.held, quiet.notes
    finally:
        score.write_text(before)
