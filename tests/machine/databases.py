"""Real database servers of Debian on a disk that is protected, and again on the disk that was restored from it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=Path("/usr/lib/postgresql/bin"))
STARTING = 180.0  # seconds


def as_user(user: str, *command: str | Path) -> list[str]:
    return ["setpriv", "--reuid", user, "--regid", user, "--clear-groups", *map(str, command)]


def ran(*command: str | Path, **options: object) -> str:
    done = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return str(done.stdout)


@dataclass
class Server:
    """A database server; `sockets` is a directory that its clients find it by."""

    data: Path
    sockets: Path

    @contextmanager
    def running(self) -> Iterator[None]:
        log = (self.sockets / f"log-{os.getpid()}-{time.monotonic_ns()}").open("wb")
        with log, subprocess.Popen(self.command, stdout=log, stderr=log, cwd="/", start_new_session=True) as process:
            try:
                deadline = time.monotonic() + STARTING
                while not self.answers():
                    assert process.poll() is None, Path(log.name).read_text()
                    assert time.monotonic() < deadline, Path(log.name).read_text()
                    time.sleep(0.1)
                yield
            finally:
                process.send_signal(self.stop_signal)
                try:
                    process.wait(120)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)

    @property
    def command(self) -> list[str]:
        raise NotImplementedError

    @property
    def client(self) -> list[str]:
        raise NotImplementedError

    stop_signal = signal.SIGTERM

    def answers(self) -> bool:
        return subprocess.run([*self.client, "SELECT 1"], check=False, capture_output=True).returncode == 0

    def ask(self, sql: str) -> str:
        return ran(*self.client, sql).strip()


class Postgres(Server):
    """PostgreSQL with data checksums."""

    stop_signal = signal.SIGINT  # fast shutdown

    def create(self) -> None:
        self.data.mkdir(parents=True)
        shutil.chown(self.data, "postgres", "postgres")
        ran(
            *as_user("postgres", POSTGRES / "initdb", "--data-checksums", "-D", self.data, "-A", "trust", "-N"), cwd="/"
        )
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write("listen_addresses = ''\nshared_buffers = 16MB\nmax_wal_size = 64MB\nmin_wal_size = 32MB\n")

    @property
    def command(self) -> list[str]:
        return as_user("postgres", POSTGRES / "postgres", "-D", self.data, "-k", self.sockets)

    @property
    def client(self) -> list[str]:
        return as_user("postgres", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", self.sockets, "-d", "postgres", "-c")

    @property
    def session(self) -> list[str]:
        """A client that reads statements from its standard input."""
        return self.client[:-1]


class MariaDB(Server):
    """MariaDB with socket login for root."""

    def create(self) -> None:
        self.data.mkdir(parents=True)
        shutil.chown(self.data, "mysql", "mysql")
        install = ["mariadb-install-db", "--no-defaults", f"--datadir={self.data}", "--user=mysql", "--skip-test-db"]
        ran(*install, *self._small)

    _small = (
        "--innodb-log-file-size=8M",
        "--innodb-buffer-pool-size=16M",
        "--innodb-data-file-path=ibdata1:12M:autoextend",
    )

    @property
    def socket(self) -> Path:
        return self.sockets / "mysqld.sock"

    @property
    def command(self) -> list[str]:
        own = ["--skip-networking", f"--pid-file={self.sockets}/mysqld.pid", f"--socket={self.socket}", "--user=mysql"]
        return ["mariadbd", "--no-defaults", f"--datadir={self.data}", *own, *self._small]

    @property
    def client(self) -> list[str]:
        return [*self.session, "-e"]

    @property
    def session(self) -> list[str]:
        """A client that reads statements from its standard input."""
        return [
            "mariadb",
            "--no-defaults",
            f"--socket={self.socket}",
            "-u",
            "root",
            "-N",
            "-B",
            "--unbuffered",
            "mysql",
        ]


class Writers:
    """Clients that insert one row after another and remember which were acknowledged.

    Args:
        statement: with {writer} and {number}; it answers with the number.
    """

    def __init__(self, server: Postgres | MariaDB, statement: str, count: int = 3) -> None:
        self.acknowledged = [0] * count
        self._stop = threading.Event()
        self._statement = statement
        self._threads = [threading.Thread(target=self._write, args=(server.session, n)) for n in range(count)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def wait(self, rows: int) -> None:
        """Wait until each client has had so many more rows acknowledged."""
        wanted = [number + rows for number in self.acknowledged]
        deadline = time.monotonic() + 240
        while any(a < w for a, w in zip(self.acknowledged, wanted, strict=True)):
            assert time.monotonic() < deadline, "the server takes no writes"
            time.sleep(0.05)

    def _write(self, session: list[str], writer: int) -> None:
        with subprocess.Popen(session, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/") as client:
            assert client.stdin is not None
            assert client.stdout is not None
            number = 0
            while not self._stop.is_set():
                number += 1
                client.stdin.write(self._statement.format(writer=writer, number=number) + "\n")
                client.stdin.flush()
                if client.stdout.readline().strip() != str(number):
                    return
                self.acknowledged[writer] = number
            client.stdin.close()
