"""Connections break, spools vanish, agents die, events get lost: points stay right, with the least work."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machine.agent_rig import Rig, configuration, make_identity, make_peer, running_agent
from tests.machine.agent_slow_disk import write_direct

from farshore_engine.agent.agent import Agent, Variants
from farshore_engine.agent.config import AgentConfig
from farshore_engine.agent.ledger import Ledger
from farshore_engine.agent.tracker.interface import Sink, TrackedDisk, Tracker
from farshore_engine.agent.tracker.tracefs import TraceFsTracker
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.wire.messages import Consistency, PointFailed, Settings, SyncMode


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[Rig]:
    rig = Rig(tmp_path / "rig").open()
    yield rig
    rig.close()


def test_a_connection_that_breaks_at_random_loses_nothing(rig: Rig) -> None:
    disk = rig.disk("ext4", 200)
    with rig.fio(disk), running_agent(rig) as running:
        running.peer.behaviour.hang_up = 0.03
        running.peer.behaviour.random = random.Random(7)
        heard = running.peer.heard
        for number in range(30):
            end = running.peer.take_point(f"p{number}", timeout=240)
            assert running.verdicts[end.id] == []
            if number >= 3 and len(heard.modes) > 3:
                break
        assert len(heard.modes) > 3, "it never broke"
        name = disk.id
        assert heard.modes[0] == {name: SyncMode.FULL}
        assert all(m == {name: SyncMode.DELTA} for m in heard.modes[1:]), "the rest needs no comparison"


def test_a_lost_spool_costs_only_what_came_after_the_last_committed_point(rig: Rig) -> None:
    disk = rig.disk("", 64)
    with running_agent(rig) as running:
        peer = running.peer
        write_direct(disk.device, os.urandom(8 << 20), 8 << 20)
        assert running.verdicts[peer.take_point("one").id] == []
        peer.commit_points = False
        write_direct(disk.device, os.urandom(1 << 20), 2 << 20)
        assert running.verdicts[peer.take_point("two").id] == []
        before = peer.heard.data_bytes  # of an agent that has nothing to send: it is back as soon as the spool is lost
        peer.lose_spool()
        peer.commit_points = True
        write_direct(disk.device, os.urandom(BLOCK_SIZE), 40 << 20)
        peer.wait_synced()
        assert running.verdicts[peer.take_point("three").id] == []
        assert peer.heard.modes[-1] == {disk.id: SyncMode.DELTA}
        assert peer.heard.data_bytes - before == (1 << 20) + BLOCK_SIZE
        assert peer.heard.digests == 0


def test_lost_events_are_reported_and_healed_by_comparing(rig: Rig) -> None:
    disk = rig.disk("", 64)

    trackers: list[TraceFsTracker] = []

    def tiny(disks: tuple[TrackedDisk, ...]) -> Tracker:
        trackers.append(TraceFsTracker(disks, rig.directory / "scratch", "tiny", kib_per_cpu=4))
        return trackers[0]

    with running_agent(rig, Variants(tracker=tiny)) as running:
        peer = running.peer
        peer.wait_synced()
        sent = peer.heard.data_bytes
        command = ["fio", "--name=x", f"--filename={disk.device}", "--rw=randwrite", "--bs=4k", "--size=4m"]
        command += ["--direct=1", "--ioengine=libaio", "--iodepth=16", "--output=/dev/null"]
        with trackers[0]._drain_lock:  # a slow disk may never be ahead of who drains
            subprocess.run([*command, "--io_size=4m"], check=True)
        subprocess.run([*command, "--io_size=32m"], check=True)
        deadline = time.monotonic() + 120
        while not peer.heard.resyncs and time.monotonic() < deadline:
            time.sleep(0.1)
        end = peer.take_point("after")
        assert running.verdicts[end.id] == []
        assert "overflowed" in peer.heard.resyncs[0].reason
        compared, rest = divmod(peer.heard.digests, 64 * 16)
        assert (compared > 0, rest) == (True, 0), "the whole disk each time"
        # Each comparison sends a block once at most, and so does the point.
        assert peer.heard.data_bytes - sent <= (compared + 1) * (4 << 20), "only what differs, however often written"


def test_a_loss_on_a_disk_of_which_nothing_is_left_to_compare_holds_up_no_point(rig: Rig) -> None:
    """As where every block was written, and so sent, between the loss and the report of it."""
    disk = rig.disk("", 16)
    ledgers: list[Ledger] = []

    class Watched(TraceFsTracker):
        def start(self, sink: Sink) -> None:
            assert isinstance(sink, Ledger)
            ledgers.append(sink)
            super().start(sink)

    variants = Variants(tracker=lambda disks: Watched(disks, rig.directory / "scratch", "lost"))
    with running_agent(rig, variants) as running:
        running.peer.wait_synced()
        ledgers[0]._lost[disk.id] = "events were dropped"
        deadline = time.monotonic() + 120
        while not running.peer.heard.resyncs:
            assert time.monotonic() < deadline, "the loss is not told"
            time.sleep(0.02)
        assert running.verdicts[running.peer.take_point("after").id] == []


def test_a_killed_agent_compares_and_sends_only_what_differs(rig: Rig) -> None:
    disk = rig.disk("", 64)
    write_direct(disk.device, os.urandom(8 << 20), 8 << 20)
    peer = make_peer(rig)
    config = rig.directory / "config.json"
    config.write_text(json.dumps(as_json(configuration(rig.directory, [peer.port], rig.disks))))
    command = [sys.executable, "-m", "farshore_engine.agent.main", "run", "--config", str(config)]
    try:
        first = subprocess.Popen(command)
        peer.take_point("one")
        first.kill()
        first.wait()
        write_direct(disk.device, os.urandom(2 * BLOCK_SIZE), 40 << 20)
        write_direct(disk.device, bytes(BLOCK_SIZE), 8 << 20)
        sent, zeros = peer.heard.data_bytes, peer.heard.zero_bytes
        second = subprocess.Popen(command)
        time.sleep(0.5)
        peer.take_point("two")
        assert peer.heard.modes[-1] == {disk.id: SyncMode.RESYNC}
        assert peer.heard.hellos[-1].unclean
        assert (peer.heard.data_bytes - sent, peer.heard.zero_bytes - zeros) == (2 * BLOCK_SIZE, BLOCK_SIZE)
        truth = subprocess.run(["cmp", peer.replica(disk.id), disk.backing], check=False)
        assert truth.returncode == 0
        status = Path(f"/proc/{second.pid}/status").read_text()
        resident = int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))
        second.send_signal(signal.SIGTERM)
        assert second.wait(120) == 0
        deadline = time.monotonic() + 60
        while not peer.heard.byes and time.monotonic() < deadline:
            time.sleep(0.02)  # what it said last may not have been read yet
        assert peer.heard.byes == ["the agent stops"]
        assert resident < 130_000, "KiB, with a buffer of 32 MiB and numpy's linear algebra, which the bundle lacks"
    finally:
        peer.close()
    assert peer.errors == []


def as_json(config: AgentConfig) -> dict[str, object]:
    return {
        "machineId": config.machine_id,
        "servers": [{"host": s.host, "port": s.port} for s in config.servers],
        "ca": str(config.ca),
        "certificate": str(config.certificate),
        "key": str(config.key),
        "stateDir": str(config.state_dir),
        "runtimeDir": str(config.runtime_dir),
        "recoveryDir": str(config.recovery_dir),
        "disks": {"include": list(config.disks.include)},
    }


def test_without_a_tracker_points_say_that_they_are_not_consistent(rig: Rig) -> None:
    disk = rig.disk("", 64)
    with running_agent(rig, tracker="compare") as running:
        running.peer.on_point = None
        write_direct(disk.device, os.urandom(1 << 20), 4 << 20)
        end = running.peer.take_point("one")
        assert end.consistency is Consistency.UNMARKED
        assert "no write tracker" in end.notes[0]
        write_direct(disk.device, os.urandom(1 << 20), 4 << 20)
        end = running.peer.take_point("two")
        assert subprocess.run(["cmp", running.peer.replica(disk.id), disk.backing], check=False).returncode == 0


def test_writers_that_cannot_be_frozen_make_an_unmarked_point(rig: Rig) -> None:
    disk = rig.disk("", 64)

    def write(point: str) -> None:
        write_direct(disk.device, os.urandom(4096), 4 << 20)

    with running_agent(rig, Variants(on_frozen=write)) as running:
        end = running.peer.take_point("one")
        assert end.consistency is Consistency.UNMARKED
        assert "written during the freeze" in end.notes[0]


def test_a_point_of_a_file_system_frozen_by_another_backup_fails_and_the_next_succeeds(rig: Rig) -> None:
    disk = rig.disk("ext4", 64)
    with running_agent(rig) as running:
        running.peer.wait_synced()
        subprocess.run(["fsfreeze", "-f", str(disk.mount)], check=True)
        failed = running.peer.take_point("busy", retry=False)
        subprocess.run(["fsfreeze", "-u", str(disk.mount)], check=True)
        assert isinstance(failed, PointFailed)
        assert failed.reason == "FilesystemBusy"
        assert running.verdicts[running.peer.take_point("free").id] == []


def test_the_bandwidth_limit_and_pause_are_obeyed(rig: Rig) -> None:
    disk = rig.disk("", 64)
    write_direct(disk.device, os.urandom(16 << 20), 0)
    peer = make_peer(rig)
    peer.settings = Settings(bandwidth_limit=8 << 20)
    try:
        started = time.monotonic()
        with running_agent(rig, peer=peer) as running:
            peer.wait_synced()
            assert time.monotonic() - started > 1.5
            assert [p.phase for p in peer.heard.progress][:1] == [SyncMode.FULL]
            assert peer.heard.progress[-1].done == peer.heard.progress[-1].total
            peer.say(Settings(paused=True))
            time.sleep(0.7)
            with pytest.raises(AssertionError, match="no point"):
                peer.take_point("paused", timeout=2)
            peer.say(Settings())
            assert running.verdicts[peer.take_point("resumed").id] == []
    finally:
        peer.close()


def test_a_server_with_another_name_or_ca_is_not_talked_to(rig: Rig, tmp_path: Path) -> None:
    rig.disk("", 64)
    good, bad = make_peer(rig), None
    make_identity(tmp_path / "foreign")
    from tests.machine.reference_peer import ReferencePeer

    directory = tmp_path / "bad-peer"
    directory.mkdir()
    bad = ReferencePeer(directory, tmp_path / "foreign")
    config = configuration(rig.directory, [bad.port, good.port], rig.disks)
    agent = Agent(config)
    import threading

    thread = threading.Thread(target=agent.run, daemon=True)
    thread.start()
    try:
        good.wait_synced()
        assert bad.heard.hellos == []
    finally:
        agent.stop()
        thread.join(120)
        good.close()
        bad.close()
