"""The shipped hooks against the real servers: what was acknowledged before the freeze is there after a restore."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.machine.agent_rig import Rig, RunningAgent, running_agent
from tests.machine.databases import POSTGRES, MariaDB, Postgres, Writers, as_user, ran

from farshore_engine.agent.agent import Variants
from farshore_engine.agent.hooks import SHIPPED_DIR
from farshore_engine.machines import loop
from farshore_engine.wire.messages import Consistency, PointEnd

ROW = "INSERT INTO written VALUES ({writer}, {number}, repeat('x', 500)); SELECT {number};"

ROWS = "SELECT writer, max(number), count(*) FROM written GROUP BY 1 ORDER BY 1"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that other users may enter, with a path short enough for sockets."""
    directory = Path(tempfile.mkdtemp(prefix="fsdb-"))
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def rig(place: Path) -> Iterator[Rig]:
    rig = Rig(place / "rig").open()
    rig.disk("ext4", 512)
    yield rig
    rig.close()


@pytest.fixture
def sockets(place: Path) -> Path:
    directory = place / "s"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


@pytest.fixture
def hooks_dir(place: Path) -> Path:
    directory = place / "hooks.d"
    directory.mkdir()
    return directory


@contextmanager
def restored(rig: Rig, running: RunningAgent) -> Iterator[Path]:
    """Mount the replica, which is as the last point left it."""
    image = rig.directory / "restored.img"
    shutil.copyfile(running.peer.replica(next(iter(running.ids))), image)
    mount = rig.directory / "restored"
    mount.mkdir()
    device = loop.attach(image)
    try:
        ran("mount", device, mount)
        try:
            yield mount
        finally:
            ran("umount", mount)
    finally:
        loop.detach(image)


def take(running: RunningAgent, name: str) -> PointEnd:
    end = running.peer.take_point(name, consistency=Consistency.APP, timeout=400)
    assert isinstance(end, PointEnd)
    assert running.verdicts[end.id] == []
    return end


def two_points(running: RunningAgent, load: Writers, hook: str) -> None:
    """Take two points while `load` writes; both must be application-consistent."""
    running.peer.settings = replace(running.peer.settings, hooks=(hook,), hook_timeout=90.0, hook_window=200.0)
    running.peer.wait_synced()
    for number in range(2):
        load.wait(25)
        end = take(running, f"p{number}")
        assert (end.consistency, end.notes) == (Consistency.APP, ())


def assert_acknowledged(rows: list[str], separator: str, acknowledged: list[int]) -> None:
    """Assert that what `ROWS` told of a copy is what each writer had been told at the freeze, and at most one more."""
    assert len(rows) == len(acknowledged)
    for writer, row in enumerate(rows):
        _, newest, count = map(int, row.split(separator))
        assert newest == count, "no gap"
        assert acknowledged[writer] <= newest <= acknowledged[writer] + 1


def test_postgresql_keeps_every_transaction_that_was_acknowledged(rig: Rig, sockets: Path, hooks_dir: Path) -> None:
    mount = rig.disks[0].mount
    assert mount is not None
    server = Postgres(mount / "pg", sockets)
    server.create()
    (hooks_dir / "postgresql.conf").write_text(f"SOCKETS={sockets}/.s.PGSQL.5432\n")
    seen: list[list[int]] = []
    writers: list[Writers] = []
    variants = Variants(on_frozen=lambda point: seen.append(list(writers[0].acknowledged)))
    with server.running():
        server.ask("CREATE TABLE written (writer int, number int, filler text, PRIMARY KEY (writer, number))")
        with Writers(server, ROW) as load, running_agent(rig, variants, hooks_dir=hooks_dir) as running:
            writers.append(load)
            two_points(running, load, "postgresql")
    with restored(rig, running) as copy:
        again = Postgres(copy / "pg", sockets)
        (copy / "pg/postmaster.pid").unlink()
        with again.running():
            rows = again.ask(ROWS).splitlines()
            amcheck = [POSTGRES / "pg_amcheck", "--install-missing", "--heapallindexed", "-h", sockets, "postgres"]
            ran(*as_user("postgres", *amcheck), cwd="/")
        ran(*as_user("postgres", POSTGRES / "pg_checksums", "--check", "-D", copy / "pg"), cwd="/")
    assert_acknowledged(rows, "|", seen[-1])


@pytest.mark.parametrize(
    ("trouble", "note"),
    [
        pytest.param("not replicated", "lies on a file system that is not replicated", id="data elsewhere"),
        pytest.param("stopped", "does not answer", id="a server that is down"),
    ],
)
def test_a_point_that_postgresql_could_not_be_asked_about_is_not_called_application_consistent(
    rig: Rig, place: Path, sockets: Path, hooks_dir: Path, trouble: str, note: str
) -> None:
    server = Postgres(place / "elsewhere", sockets)
    server.create()
    (hooks_dir / "postgresql.conf").write_text(f"SOCKETS={sockets}/.s.PGSQL.5432\n")
    with server.running(), running_agent(rig, hooks_dir=hooks_dir) as running:
        running.peer.settings = replace(running.peer.settings, hooks=("postgresql",))
        running.peer.wait_synced()
        if trouble == "stopped":
            (hooks_dir / "postgresql.conf").write_text(f"SOCKETS={sockets}/.s.PGSQL.9999\n")
        end = take(running, "p")
    assert end.consistency is Consistency.CRASH
    assert note in end.notes[0]


def test_mariadb_is_locked_across_the_freeze_and_released_after_it(rig: Rig, sockets: Path, hooks_dir: Path) -> None:
    mount = rig.disks[0].mount
    assert mount is not None
    server = MariaDB(mount / "my", sockets)
    server.create()
    (hooks_dir / "mysql.conf").write_text(f"OPTIONS='--no-defaults --socket={server.socket}'\n")
    seen: list[list[int]] = []
    writers: list[Writers] = []
    variants = Variants(on_frozen=lambda point: seen.append(list(writers[0].acknowledged)))
    key = "writer int, number int, filler text, PRIMARY KEY (writer, number)"
    with server.running():
        server.ask(f"CREATE TABLE written ({key}) ENGINE=InnoDB; CREATE TABLE plain ({key}) ENGINE=MyISAM")
        row = "INSERT INTO plain VALUES ({writer}, {number}, 'x'); " + ROW
        with Writers(server, row) as load, running_agent(rig, variants, hooks_dir=hooks_dir) as running:
            writers.append(load)
            two_points(running, load, "mysql")
            load.wait(5)  # released
        assert server.ask("SELECT COUNT(*) FROM information_schema.processlist WHERE state LIKE '%lock%'") == "0"
    with restored(rig, running) as copy:
        again = MariaDB(copy / "my", sockets)
        with again.running():
            assert "warning" not in again.ask("CHECK TABLE plain, written").lower(), "closed properly, by the lock"
            rows = again.ask(ROWS).splitlines()
    assert_acknowledged(rows, "\t", seen[-1])


def test_the_lock_in_mariadb_ends_by_itself_when_nobody_releases_it(
    rig: Rig, sockets: Path, hooks_dir: Path, tmp_path: Path
) -> None:
    """As when the agent and every hook are killed, and no agent comes back."""
    mount = rig.disks[0].mount
    assert mount is not None
    server = MariaDB(mount / "my", sockets)
    server.create()
    (hooks_dir / "mysql.conf").write_text(f"OPTIONS='--no-defaults --socket={server.socket}'\n")
    state = tmp_path / "state"
    state.mkdir()
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "FARSHORE_STATE": str(state), "FARSHORE_MOUNTS": str(mount),
        "FARSHORE_HOOKS": str(hooks_dir), "FARSHORE_TIMEOUT": "20", "FARSHORE_WINDOW": "3",
    }  # fmt: skip
    with server.running():
        server.ask("CREATE TABLE written (writer int, number int, filler text)")
        subprocess.run(["/bin/sh", str(SHIPPED_DIR / "mysql"), "pre"], env=environment, check=True)
        server.ask("INSERT INTO written VALUES (1, 1, 'waits for the lock, and gets through')")
        assert server.ask("SELECT COUNT(*) FROM written") == "1"
        done = subprocess.run(["/bin/sh", str(SHIPPED_DIR / "mysql"), "post"], env=environment, check=False)
        assert done.returncode == 1, "post says that the lock was lost"
