"""A simulated cloud with a resource group and a network, and a machine of which there is a recovery point."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.azure.provider.scene import Scene, seed
from tests.azuresim import AzureSim

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
