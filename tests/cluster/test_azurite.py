"""The blob service of tests and demo keeps what a clean stop leaves, and ends with its run."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from azure.storage.blob import BlobServiceClient, ContainerClient

from farshore_cli.dev.azurite import Azurite


def container(store: Azurite, name: str) -> ContainerClient:
    return BlobServiceClient(store.account_url, credential=store.key, retry_total=0).get_container_client(name)


def test_uploads_survive_a_clean_stop(azurite: Azurite, container_name: str, tmp_path: Path) -> None:
    with Azurite(tmp_path) as own:
        with container(own, container_name) as blobs:
            blobs.create_container()
            blobs.upload_blob("point", b"bytes")
        asked = time.monotonic()
        own.stop()
        assert time.monotonic() - asked < 60, "it did not end by itself"
        assert not own.alive
        own.start()
        with container(own, container_name) as blobs:
            assert blobs.download_blob("point").readall() == b"bytes"
        with container(azurite, container_name) as elsewhere:
            assert not elsewhere.exists()


def test_it_ends_with_the_run_that_started_it(tmp_path: Path) -> None:
    script = (
        "import sys, time; from pathlib import Path; from farshore_cli.dev.azurite import Azurite\n"
        "Azurite(Path(sys.argv[1])).start(); print('up', flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", script, tmp_path], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "up\n"
        started = Azurite(tmp_path).process
        assert started is not None
        assert started.alive
        run.kill()
    deadline = time.monotonic() + 120
    while started.alive:
        assert time.monotonic() < deadline
        time.sleep(0.1)
