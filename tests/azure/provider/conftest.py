"""A simulated cloud with a resource group and a network, and a machine of which there is a recovery point."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest
from azure.storage.blob import BlobServiceClient
from tests.azure.provider.counting import Counted, counting
from tests.azure.provider.scene import Scene, seed
from tests.azure.provider.warmscene import WarmScene, small_disks
from tests.azuresim import AzureSim

from farshore_cli.dev.azurite import Azurite
from farshore_engine.azure import cloud as cloud_module


@pytest.fixture
def sim(monkeypatch: pytest.MonkeyPatch) -> Iterator[AzureSim]:
    monkeypatch.setattr(cloud_module, "POLL_SECONDS", 0)
    with AzureSim() as running:
        seed(running)
        try:
            yield running
        finally:
            cloud_module.close_clouds()


@pytest.fixture
def scene(sim: AzureSim, tmp_path: Path) -> Scene:
    return Scene(sim, tmp_path)


@pytest.fixture
def store(azurite: Azurite) -> Iterator[Counted]:
    with counting(azurite.connection_string) as counted:
        yield counted


@pytest.fixture
def warm(sim: AzureSim, store: Counted, tmp_path: Path) -> Iterator[WarmScene]:
    sim.parts["storage"].serve_with(store.connection_string)
    sim.parts["storage"].account("replicas", "rg")
    name = f"warm-{secrets.token_hex(4)}"
    with BlobServiceClient.from_connection_string(store.connection_string) as service:
        service.create_container(name)
        try:
            yield WarmScene(sim, tmp_path, disks=small_disks(), store=store, container=name)
        finally:
            store.refuse = lambda _: None
            service.delete_container(name)
