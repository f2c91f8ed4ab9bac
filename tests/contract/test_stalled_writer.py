"""Invariant 4 on the real stores: a writer is stopped between its last check and its put, replaced, and continued."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient
from tests.unit.vault.rig import Rig

from farshore_engine.contract.assignment import AzureBlobAccess, DirectoryAccess
from farshore_engine.vault.chain import list_slots, live_slots, read_base, read_slots
from farshore_engine.vault.retention import RetentionRules
from farshore_engine.vault.stores import open_store

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["directory", "Azurite"])
def place(request: pytest.FixtureRequest, tmp_path: Path, container_name: str) -> Iterator[dict[str, Any]]:
    """A store as a child process opens it."""
    if request.param == "directory":
        (tmp_path / "vault").mkdir()
        yield {"path": str(tmp_path / "vault")}
        return
    azurite = request.getfixturevalue("azurite")
    with BlobServiceClient.from_connection_string(azurite.connection_string) as service:
        service.create_container(container_name)
        yield {
            "accountUrl": azurite.account_url,
            "container": container_name,
            "connectionString": azurite.connection_string,
        }
        service.delete_container(container_name)


@contextmanager
def stopped_writer(place: dict[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """Run a writer until it has stopped itself."""
    child = subprocess.Popen(
        [sys.executable, str(ROOT / "tests/contract/stalled_writer_process.py"), json.dumps(place)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None and child.stderr is not None
        line = child.stdout.readline()
        assert line == "put\n", line + child.stderr.read()
        assert os.WIFSTOPPED(os.waitpid(child.pid, os.WUNTRACED)[1])
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGCONT)
            child.kill()
            child.wait()


@pytest.mark.parametrize(
    ("points", "pruned"),
    [
        pytest.param(0, False, id="the new writer has only claimed the chain"),
        pytest.param(3, False, id="the new writer has put points"),
        pytest.param(3, True, id="the fence that it must meet was pruned away meanwhile"),
    ],
)
def test_the_put_of_a_writer_that_was_stopped_fails_or_does_not_count(
    place: dict[str, Any], points: int, pruned: bool
) -> None:
    access = DirectoryAccess.model_validate(place) if "path" in place else AzureBlobAccess.model_validate(place)
    with stopped_writer(place) as child:
        second = Rig(open_store(access), writer_name="ps-2", epoch=2)
        first_point = second.restored(second.names()[0])
        second.disks = {disk: bytearray(content) for disk, content in first_point.items()}
        second.points[second.names()[0]] = first_point
        for value in range(points):
            second.point("sda", {10: value + 1})
        if pruned:
            second.prune(RetentionRules(keep_all=timedelta(0)))
            assert list_slots(second.vault.access)[0] > 3  # the fence was in slot 3
        before = second.names()
        child.send_signal(signal.SIGCONT)
        output, errors = child.communicate(timeout=400)
    assert output == "Fenced\n", output + errors
    assert second.names() == before
    numbers = live_slots(list_slots(second.vault.access), read_base(second.vault.access))
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    slots = [slot.record for slot in read_slots(second.vault.access, numbers)]
    assert all(record is not None for record in slots)
    assert {record.header.writer for record in slots[-(points + 1) :] if record is not None} == {"ps-2"}
    second.point("sda", {11: 1})
    second.check_every_visible_point()
