"""The hydrator is killed at random moments, repeatedly; the run that ends leaves exactly the point's bytes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient
from tests.unit.vault.rig import MACHINE, Rig

from farshore_cli.dev.azurite import Azurite
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.hydrate.pageblob import PageBlobContainer, hydrate_page_blob
from farshore_engine.hydrate.progress import read_state
from farshore_engine.hydrate.raw import hydrate, update
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.reader import PointReader

REPOSITORY = Path(__file__).parents[2]
SIZE = 300 * BLOCK_SIZE + 4096
MIB = 1 << 20
KILLS = 6


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    rig = Rig(store=DirectoryStore(tmp_path_factory.mktemp("vault"), durable=False), pack_target=1 << 18)
    rig.point("sda", {i: i + 1 for i in range(0, 300, 2)} | {300: 7}, size=SIZE)
    rig.point("sda", {i: (i % 5) * 1000 + i for i in range(0, 300, 3)} | dict.fromkeys(range(100, 140), 0))
    yield rig
    rig.sink.close()
    rig.vault.close()


def reader(rig: Rig, number: int) -> PointReader:
    return PointReader(rig.vault, rig.vault.find(rig.names()[number]))


def content_of(rig: Rig, number: int) -> bytes:
    return rig.points[rig.names()[number]]["sda"]


def run(rig: Rig, kind: str, image: Path, *, base: int | None, seed: int, **more: str) -> int:
    """Hydrate the second point with kills in between, and return how many there were."""
    names = rig.names()
    assert isinstance(rig.store, DirectoryStore)
    job = {
        "kind": kind,
        "store": str(rig.store._root),
        "machine": MACHINE,
        "base": "" if base is None else names[base],
        "point": names[1],
        "image": str(image),
        "kills": KILLS,
        "seed": seed,
        **more,
    }
    words = [sys.executable, "-m", "tests.contract.killed_hydrations", json.dumps(job)]
    done = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def as_raw(image: Path, kind: str) -> bytes:
    raw = image.with_name("converted.raw")
    form = {"vhd": "vpc", "qcow2": "qcow2"}[kind]
    subprocess.run(["qemu-img", "convert", "-f", form, "-O", "raw", image, raw], check=True)
    return raw.read_bytes()


@pytest.mark.parametrize("case", ["raw", "over another image", "update", "vhd", "qcow2"])
def test_a_killed_hydration_is_repeated_to_the_exact_bytes(rig: Rig, tmp_path: Path, case: str) -> None:
    image = tmp_path / "image"
    content = content_of(rig, 1)
    if case in ("update", "over another image"):
        hydrate(reader(rig, 0), "sda", image)
    kind = case if case in ("vhd", "qcow2") else "raw"
    killed = run(rig, kind, image, base=0 if case == "update" else None, seed=len(case))
    assert killed > 0
    if kind == "raw":
        assert image.read_bytes() == content
        assert image.stat().st_blocks * 512 < len(content), "sparse"
        state = read_state(image)
        assert state is not None and state.complete
        update(reader(rig, 1), reader(rig, 0), "sda", image)
        assert image.read_bytes() == content_of(rig, 0), "and it can be moved on from there"
    else:
        assert as_raw(image, kind).ljust(-(-len(content) // MIB) * MIB, b"\0") == content.ljust(
            -(-len(content) // MIB) * MIB, b"\0"
        )


@pytest.mark.parametrize("base", [None, 0], ids=["anew", "moved from another point"])
def test_a_killed_upload_is_repeated_to_the_exact_bytes(
    rig: Rig, azurite: Azurite, container_name: str, tmp_path: Path, base: int | None
) -> None:
    account = {"account_url": azurite.account_url, "container": container_name, "account_key": azurite.key}
    with BlobServiceClient(azurite.account_url, credential=azurite.key) as service:
        container = service.create_container(container_name)
        if base is not None:
            blob = PageBlobContainer.connect(azurite.account_url, container_name, azurite.key)
            hydrate_page_blob(reader(rig, base), "sda", blob.disk("disk.vhd", "ps-1"))
        assert run(rig, "page blob", tmp_path / "none", base=base, seed=3, **account) > 0
        vhd = tmp_path / "downloaded.vhd"
        vhd.write_bytes(container.download_blob("disk.vhd").readall())
        container.delete_container()
    assert as_raw(vhd, "vhd") == content_of(rig, 1).ljust(-(-SIZE // MIB) * MIB, b"\0")
