"""A machine that is cut together with others never stays frozen for them, whatever becomes of its process server."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from tests.machine.agent_rig import RealDisk, Rig, make_identity, running_agent
from tests.machine.reference_peer import ReferencePeer

from farshore_engine.agent import agent as agent_module
from farshore_engine.wire.frames import Frame, PeerClosed
from farshore_engine.wire.messages import (
    Consistency,
    Cut,
    FreezeNow,
    Frozen,
    PointEnd,
    PointFailed,
    PointReady,
    Settings,
    TakePoint,
)

BOUND, SHORT = 60.0, 8.0  # of a freeze, in seconds


class Barrier(ReferencePeer):
    """A process server with one member; `dies_at` is the message of the agent after which it is gone, once."""

    dies_at = ""
    silent_after = ""
    calls_off_at = ""
    said: list[str]

    def _handle(self, frame: Frame) -> None:
        message = self._next(frame)
        name = type(message).__name__
        if isinstance(message, PointReady | Frozen | PointEnd):
            self.said.append(name)
            if name == self.dies_at:
                self.dies_at = ""
                raise PeerClosed("killed")
            if name == self.silent_after:
                return
            if name == self.calls_off_at:
                self.calls_off_at = ""
                self.say(PointFailed(message.id, "GroupCalledOff", "another machine failed"))
                return
        if isinstance(message, PointReady):
            self.say(FreezeNow(message.id))
        elif isinstance(message, Frozen):
            self.say(Cut(message.id))
        else:
            super()._handle(frame)

    def take_together(self, point: str, timeout: float = 240.0) -> PointEnd | PointFailed | None:
        """Ask for a point; None if the connection ended before it did."""
        self.wait_synced(timeout)
        while not self.points.empty():
            self.points.get()
        hellos = len(self.heard.hellos)
        self.say(TakePoint(point, Consistency.CRASH, True))
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            with suppress(queue.Empty):
                end = self.points.get(timeout=0.1)
                if end.id == point:  # not the end of an earlier one, which was told late
                    return end
            if len(self.heard.hellos) > hellos:
                return None
        raise AssertionError(f"nothing became of {point}: {self.said} {self.errors}")


@pytest.fixture
def rig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    monkeypatch.setattr(agent_module._Backoff, "next", lambda self: 0.05)
    rig = Rig(tmp_path / "rig").open()
    yield rig
    rig.close()


def peer_of(rig: Rig) -> Barrier:
    make_identity(rig.directory / "identity")
    directory = rig.directory / "peer"
    directory.mkdir()
    peer = Barrier(directory, rig.directory / "identity")
    peer.said = []
    peer.settings = Settings(freeze_bound=BOUND)
    return peer


def write_on(disk: RealDisk, over: threading.Event) -> None:
    """Write without a pause: one write hangs for as long as the machine is frozen."""
    assert disk.mount is not None
    file = os.open(disk.mount / "writes", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while not over.wait(0.002):
            os.pwrite(file, b"x" * 4096, 0)
            os.fdatasync(file)
    finally:
        os.close(file)


def test_no_stage_of_a_common_cut_leaves_a_machine_frozen(rig: Rig) -> None:
    disk = rig.disk("ext4", 48)
    peer = peer_of(rig)
    over = threading.Event()
    writer = threading.Thread(target=write_on, args=(disk, over), daemon=True)
    try:
        with running_agent(rig, peer=peer) as running:
            writer.start()
            good = peer.take_together("whole")
            assert isinstance(good, PointEnd)
            assert running.verdicts["whole"] == []
            for stage in ("PointReady", "Frozen", "PointEnd"):
                peer.dies_at = stage
                assert peer.take_together(f"dies-{stage}") is None
                again = peer.take_together(f"after-{stage}")
                assert isinstance(again, PointEnd), again
                assert running.verdicts[again.id] == []
            for stage in ("PointReady", "Frozen"):
                peer.calls_off_at = stage
                off = peer.take_together(f"off-{stage}")
                assert isinstance(off, PointFailed)
                assert off.reason == "Cancelled"
            peer.silent_after = "Frozen"
            peer.say(Settings(freeze_bound=SHORT))
            for number in range(5):
                late = peer.take_together(f"late-{number}")
                assert isinstance(late, PointFailed)
                if late.reason != "FreezeOverran":  # else the host was too busy to thaw it before the watchdog did
                    break
            assert late.reason == "GroupLate"
            peer.silent_after = ""
            peer.say(Settings(freeze_bound=BOUND))
            last = peer.take_together("last")
            assert isinstance(last, PointEnd)
            assert running.verdicts["last"] == []
            over.set()
            writer.join(120)
            assert not writer.is_alive(), "it is frozen for ever"
    finally:
        over.set()
        peer.close()
