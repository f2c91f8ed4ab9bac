"""The vault's store is killed with -9 and forgets what it acknowledged last (Azurite: some five seconds).

A point restores exactly, or restore and `vault check` name it as spoiled; and replication heals by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient
from tests.machine.reference_peer import mismatches
from tests.machine.replication_rig import Stage, azure_vault, open_stage
from tests.machine.test_replication_crashes import parsed

from farshore_cli.dev.azurite import Azurite
from farshore_engine.contract.faults import StopFault
from farshore_engine.vault.check import check_machine
from farshore_engine.vault.machine import StoredPoint

ROOT = Path(__file__).parents[2]
CONTAINER = "vault"


class Server:
    """The process server as a process. `points` counts what its life reported."""

    def __init__(self, stage: Stage, azurite: Azurite) -> None:
        self.stage, self.azurite = stage, azurite
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        directory = self.stage.directory
        storage = {
            "accountUrl": self.azurite.account_url,
            "container": CONTAINER,
            "connectionString": self.azurite.connection_string,
        }
        wanted = {
            "spool_bytes": 1 << 30,
            "access": {"name": "vault", "storage": storage, "key": "k" * 32},
            "policy": {"crashConsistentInterval": "PT2S"},
            "data_port": self.stage.data_port,
        }
        (directory / "wanted.json").write_text(json.dumps(wanted))
        with (directory / "ps.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "tests/machine/processserver_process.py"), str(directory)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stderr=log,
                stdout=log,
            )

    def kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def events(self, name: str) -> list[dict[str, Any]]:
        path = self.stage.directory / "ps.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [event for event in parsed(lines) if event["event"] == name]

    def wait_events(self, name: str, count: int, timeout: float = 300) -> None:
        deadline = time.monotonic() + timeout
        while len(self.events(name)) < count:
            assert time.monotonic() < deadline, (self.stage.directory / "ps.log").read_text()[-4000:]
            time.sleep(0.1)


@pytest.fixture
def azurite(tmp_path: Path) -> Iterator[Azurite]:
    """One of this test's own: it is killed."""
    with Azurite(tmp_path / "azurite") as running:
        with BlobServiceClient(running.account_url, credential=running.key) as service:
            service.create_container(CONTAINER)
        deadline = time.monotonic() + 60
        while not any(f'"{CONTAINER}"' in file.read_text() for file in (tmp_path / "azurite").rglob("*.json")):
            assert time.monotonic() < deadline, "the store does not write its index"
            time.sleep(0.2)  # the test is about what comes later
        yield running


def exact(stage: Stage, point: StoredPoint) -> bool:
    """Whether a point restores to what was in the freeze; False if restoring it says that it is damaged."""
    (disk,) = stage.rig.disks
    frozen = point.manifest.time.timestamp()
    clone = min((c for c in stage.clones if c[0] >= frozen), key=lambda c: c[0])[1]
    try:
        image = stage.restored(point, disk.id)
    except StopFault as fault:
        assert fault.reason == "PointDamaged", fault
        return False
    wrong = mismatches(image, stage.rig.store.path / f"{clone}.{disk.backing.name}")
    image.unlink()
    assert not wrong, f"{point.manifest.name} was restored wrongly: {wrong}"
    return True


def kill_store(server: Server) -> None:
    server.azurite.kill()


def kill_both(server: Server) -> None:
    server.azurite.kill()
    server.kill()


@pytest.mark.timeout(1800)  # two minutes, and six on a host under load
def test_a_store_that_forgets_is_noticed_named_and_healed(tmp_path: Path, azurite: Azurite) -> None:
    vault = azure_vault(azurite.connection_string, azurite.account_url, CONTAINER)
    deaths: tuple[Callable[[Server], None], ...] = (kill_store, kill_both, kill_store)
    with open_stage(tmp_path / "stage", vault) as stage, ExitStack() as stack:
        stage.rig.disk("ext4", size_mib=128)
        server = Server(stage, azurite)
        stack.callback(server.kill)
        server.start()
        stack.enter_context(stage.rig.fio(stage.rig.disks[0]))
        stack.enter_context(stage.agent())
        for number, death in enumerate(deaths):
            server.wait_events("point committed", len(server.events("point committed")) + 2)
            time.sleep(0.7 * number)
            death(server)
            time.sleep(1)
            azurite.start()
            if server.process is not None and server.process.poll() is not None:
                server.start()
        server.wait_events("point committed", len(server.events("point committed")) + 3)
        time.sleep(6)
        last = server.events("point committed")[-1]["point"]
        server.kill()
        machine = stage.open_vault()
        report = check_machine(machine, read_data=True)
        machine.close()
        verdicts = {point.manifest.name: exact(stage, point) for point in stage.points()}
    assert {name for name, good in verdicts.items() if not good} == set(report.spoiled) & set(verdicts)
    assert verdicts[last]
    assert len(verdicts) >= 3
