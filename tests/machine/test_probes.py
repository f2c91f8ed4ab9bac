"""Probes against the real things: sshd and a web server of a recovered machine, PostgreSQL and MariaDB of Debian."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import asyncssh
import pytest
from pydantic import SecretStr
from tests.machine.databases import MariaDB, Postgres, Server
from tests.machine.traces import traces
from tests.machines.backing import stopped

from farshore_cli.dev.processes import free_ports
from farshore_engine.contract.assignment import DatabaseLogin, Source, SSHCredentials
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.machine import FileSystem, MachineDescription, MachineDisk, RecoveryScript
from farshore_engine.contract.tasks import ProbeKind, ProbeSpec, TaskAssignment, TaskFailed, TaskInput, TaskKind
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.machines.spec import DiskFile, MachineSpec
from farshore_engine.processserver.installer import DataPort
from farshore_engine.processserver.probes.question import Logins, Place
from farshore_engine.processserver.probes.sql import ask_sql
from farshore_engine.processserver.tasks.context import TaskContext, note_start
from farshore_engine.processserver.tasks.probemachine import probe_machine

NAME = "shop-web"
PASSWORD = "a-word-that-nobody-may-see"
SERVE = "#!/bin/sh\nmkdir /data/site && echo welcome > /data/site/index.html\nsetsid -f python3 -m http.server 8080 -d /data/site >/dev/null 2>&1\n"  # noqa: E501


def described(*scripts: RecoveryScript) -> MachineDescription:
    system = FileSystem(kind="ext4", uuid="", mount_point="/data", mount_options="")
    disk = MachineDisk(id="d0", name="sda", size_bytes=64 << 20, file_system=system)
    return MachineDescription(hostname="web", disks=(disk,), recovery_scripts=scripts)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[TaskContext, SSHCredentials]]:
    """A recovered machine that serves a page, and the key that opens it."""
    directory = tmp_path_factory.mktemp("probes")
    disk = directory / "d0.raw"
    disk.touch()
    os.truncate(disk, 64 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True)
    key = asyncssh.generate_private_key("ssh-ed25519")
    public = key.export_public_key("openssh").decode().strip()
    runtime = MachineRuntime(directory / "run")
    context = TaskContext(
        machines_dir=directory / "machines",
        runtime=runtime,
        installer=cast(Any, None),
        data_port=lambda: DataPort("ps", 9443),
        take_point=cast(Any, None),
        now=lambda: datetime.now(UTC),
        progress=lambda percent, sentence: None,
    )
    made = context.machines_dir / NAME
    made.mkdir(parents=True)
    note_start(asked(), made)
    script = RecoveryScript(name="10-serve", content=SERVE)
    try:
        runtime.start(MachineSpec(NAME, "run", (DiskFile(disk, "d0"),), described(script), authorized_keys=(public,)))
        yield context, SSHCredentials(private_key=SecretStr(key.export_private_key("openssh").decode()))
    finally:
        stopped(lambda: runtime.stop(NAME))
    assert traces(runtime.run_dir, [NAME], ["default"]) == []


def asked(*probes: ProbeSpec, credentials: SSHCredentials | None = None) -> TaskAssignment:
    source = Source(address="10.0.0.1", credentials=credentials)
    given = TaskInput(machine_id="demo.web", machine_name=NAME, probes=probes)
    return TaskAssignment(name="run-web-probe", kind=TaskKind.PROBE_MACHINE, run="run", input=given, source=source)


def probe(kind: ProbeKind, port: int, name: str = "", seconds: int = 120, **more: Any) -> ProbeSpec:
    return ProbeSpec(name=name or kind.value.lower(), kind=kind, port=port, timeout_seconds=seconds, **more)


def test_everything_that_is_asked_is_answered_side_by_side(machine: tuple[TaskContext, SSHCredentials]) -> None:
    context, login = machine
    probes = (
        probe(ProbeKind.TCP, 8080),
        probe(ProbeKind.HTTP, 8080),
        probe(ProbeKind.SSH, 22, "greeting"),
        probe(ProbeKind.SSH, 22, "page", command=("cat", "/data/site/index.html")),
    )
    result = probe_machine(asked(*probes, credentials=login), context)
    answers = {one.name: one.answer for one in result.probes}
    assert [one.passed for one in result.probes] == [True] * 4, answers
    assert answers["tcp"] == "port 8080 accepts connections"
    assert answers["http"] == "/ answered 200 OK"
    assert answers["greeting"].startswith("SSH-2.0-OpenSSH")
    assert answers["page"] == "the command ended with 0 and said: welcome"
    assert all(one.seconds is not None and one.seconds < 600 for one in result.probes)
    assert "page: the command ended with 0" in result.evidence


def test_a_probe_that_fails_fails_the_task_with_every_answer(machine: tuple[TaskContext, SSHCredentials]) -> None:
    context, login = machine
    closed = ("sh", "-c", "echo the shop is closed >&2; exit 3")
    for seconds in (6, 60):  # within the first a busy machine may not even have let us log in
        probes = (
            probe(ProbeKind.TCP, 9, seconds=seconds),
            probe(ProbeKind.HTTP, 8080, path="/orders", seconds=seconds),
            probe(ProbeKind.SSH, 22, "service", command=closed, seconds=seconds),
            probe(ProbeKind.HTTP, 8080, "home"),
        )
        with pytest.raises(TaskFailed, match=f"3 of 4 probes of {NAME} failed") as caught:
            probe_machine(asked(*probes, credentials=login), context)
        found = {one.name: one for one in caught.value.result.probes}
        if "ended with 3" in found["service"].answer and "404" in found["http"].answer:
            break
    assert "Connection refused" in found["tcp"].answer
    assert "/orders answered 404 File not found, not 200" in found["http"].answer
    assert "ended with 3 and said: the shop is closed" in found["service"].answer
    assert found["home"].passed
    assert str(caught.value).count("the shop is closed") == 1


def test_a_command_without_the_machines_credentials_says_so(machine: tuple[TaskContext, SSHCredentials]) -> None:
    context, _ = machine
    with pytest.raises(TaskFailed, match="credentials are not known"):
        probe_machine(asked(probe(ProbeKind.SSH, 22, command=("true",))), context)


def test_a_refused_login_is_not_tried_until_the_account_is_locked(machine: tuple[TaskContext, SSHCredentials]) -> None:
    context, _ = machine
    wrong = SSHCredentials(password=SecretStr(PASSWORD))
    begun = time.monotonic()
    with pytest.raises(TaskFailed) as caught:
        probe_machine(asked(probe(ProbeKind.SSH, 22, command=("true",), seconds=300), credentials=wrong), context)
    assert time.monotonic() - begun < 250
    assert PASSWORD not in str(caught.value) + caught.value.result.model_dump_json()


def test_no_probe_at_all_asks_for_the_greeting(machine: tuple[TaskContext, SSHCredentials]) -> None:
    context, _ = machine
    result = probe_machine(asked(), context)
    assert result.evidence.startswith("SSH-2.0-OpenSSH")
    assert [(one.name, one.passed) for one in result.probes] == [("greeting", True)]


# -- databases ---------------------------------------------------------------------------------------------------------


class ReachablePostgres(Postgres):
    """PostgreSQL that asks for a password over TCP."""

    port = 0
    engine, database = "postgresql", "postgres"

    def create(self) -> None:
        super().create()
        self.port = free_ports(1)[0]
        (self.data / "pg_hba.conf").write_text("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        with (self.data / "postgresql.conf").open("a") as settings:
            settings.write(f"listen_addresses = '127.0.0.1'\nport = {self.port}\n")

    @property
    def client(self) -> list[str]:
        return [*super().client[:-1], "-p", str(self.port), "-c"]

    def prepare(self) -> None:
        self.ask(f"CREATE ROLE probe LOGIN PASSWORD '{PASSWORD}'")
        self.ask("CREATE TABLE orders (id int)")
        self.ask("INSERT INTO orders VALUES (42)")
        self.ask("GRANT SELECT, DELETE ON orders TO probe")


class ReachableMariaDB(MariaDB):
    """MariaDB that asks for a password over TCP."""

    port = 0
    engine, database = "mysql", "mysql"

    def create(self) -> None:
        super().create()
        self.port = free_ports(1)[0]

    @property
    def command(self) -> list[str]:
        given = [word for word in super().command if word != "--skip-networking"]
        return [*given, "--bind-address=127.0.0.1", f"--port={self.port}"]

    def prepare(self) -> None:
        self.ask(f"CREATE USER probe@'%' IDENTIFIED BY '{PASSWORD}'")
        self.ask("CREATE TABLE orders (id int)")
        self.ask("INSERT INTO orders VALUES (42)")
        self.ask("GRANT SELECT, DELETE ON mysql.orders TO probe@'%'")


Reachable = ReachablePostgres | ReachableMariaDB


@pytest.fixture(scope="module", params=[ReachablePostgres, ReachableMariaDB], ids=["PostgreSQL", "MariaDB"])
def database(request: pytest.FixtureRequest) -> Iterator[Reachable]:
    place = Path(tempfile.mkdtemp(prefix="fspr-"))
    place.chmod(0o755)
    sockets = place / "s"
    sockets.mkdir()
    sockets.chmod(0o777)
    server = request.param(place / "data", sockets)
    assert isinstance(server, Server)
    try:
        server.create()
        with server.running():
            server.prepare()
            yield server
    finally:
        shutil.rmtree(place)


def ask(server: Reachable, query: str, password: str = PASSWORD, **more: Any) -> str:
    spec = ProbeSpec(
        name="sql",
        kind=ProbeKind.SQL,
        port=server.port,
        engine=server.engine,
        database=server.database,
        query=query,
        credentials_secret="db",
        **more,
    )
    logins = Logins(None, {"db": DatabaseLogin(username="probe", password=SecretStr(password))})
    return ask_sql(spec, Place("127.0.0.1", server.port), logins, 120)


def test_a_query_is_answered_by_its_first_row(database: Reachable) -> None:
    assert ask(database, "SELECT id, 'shipped' FROM orders") == "the query returned 42, shipped"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        pytest.param("SELECT id FROM orders WHERE id = 1", "returned no row", id="no row"),
        pytest.param("SELECT nothing FROM nowhere", "nowhere", id="no such table"),
        pytest.param("DELETE FROM orders", "returned no row", id="not a question"),
    ],
)
def test_what_is_no_answer_is_said(database: Reachable, query: str, message: str) -> None:
    with pytest.raises(WaitFault, match=message):
        ask(database, query)
    assert database.ask("SELECT count(*) FROM orders") == "1", "a probe changes nothing"


def test_a_wrong_password_is_a_refusal_that_tells_no_secret(database: Reachable) -> None:
    with pytest.raises(StopFault, match="refused the login") as caught:
        ask(database, "SELECT 1", password="wrong-" + PASSWORD)
    assert PASSWORD not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


def test_a_server_that_speaks_no_tls_is_no_answer_when_tls_is_asked_for(database: Reachable) -> None:
    with pytest.raises(Fault):
        ask(database, "SELECT 1", tls=True)
