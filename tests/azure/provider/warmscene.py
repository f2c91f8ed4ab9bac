"""A scene whose site keeps warm replicas: a container in Azurite that the simulated accounts serve, and the keeper."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from azure.storage.blob import ContainerClient
from pydantic import SecretStr
from tests.azure.provider.counting import Counted
from tests.azure.provider.scene import MIB, Scene, boot_disk, data_disk

from farshore_engine.azure.cloud import cloud_of
from farshore_engine.azure.keeping import Kept, keep
from farshore_engine.azure.replicas import Replicas
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.assignment import AzureBlobAccess, ReplicaAccess
from farshore_engine.contract.tasks import TaskAssignment, TaskKind
from farshore_engine.vault.pins import list_pins
from farshore_engine.vault.stores import open_machine


def small_disks() -> dict[str, np.ndarray[Any, Any]]:
    """Return the disks of a scene with less on them: requests to Azurite take time."""
    boot = boot_disk()[: 22 * MIB].copy()
    boot[11 * MIB :] = 0
    return {"disk-os": boot, "disk-data": data_disk()}


@dataclass
class WarmScene(Scene):
    """See Scene."""

    store: Counted = field(default_factory=lambda: Counted(""))
    container: str = ""
    wanted: bool = True

    @property
    def access(self) -> ReplicaAccess:
        storage = AzureBlobAccess(
            account_url="", container=self.container, connection_string=SecretStr(self.store.connection_string)
        )
        return ReplicaAccess(storage=storage, wanted=self.wanted)

    @property
    def blobs(self) -> ContainerClient:
        return ContainerClient.from_connection_string(self.store.connection_string, self.container)

    def names(self) -> list[str]:
        """Names of all blobs, with `@` behind those of snapshots."""
        found = self.blobs.list_blobs(include=["snapshots"])
        return sorted(f"{one.name}@" if one.snapshot else str(one.name) for one in found)

    def task(self, kind: TaskKind, **given: Any) -> TaskAssignment:
        return super().task(kind, **given).model_copy(update={"replica": self.access})

    def keep(self, owner: str = "ps-1") -> Kept:
        """Let the keeper of a process server do its round for the machine."""
        vault = open_machine(self.vault, "shop.web")
        try:
            return keep(Replicas.of(self.access, cloud_of(self.site), vault), vault, owner)
        finally:
            vault.close()

    def replica_bytes(self, disk: str) -> bytes:
        """What the replica of a disk holds, without its footer."""
        (name,) = [one for one in self.names() if "/replica/" in one and disk in one and not one.endswith("@")]
        data: bytes = self.blobs.download_blob(name).readall()
        return data[:-512]

    def points_held(self) -> dict[str, str]:
        """Return the points that are on record of the blobs, by their names."""
        found = self.blobs.list_blobs(include=["metadata"])
        return {str(one.name): json.loads(one.metadata["farshore"])["point"] for one in found}

    def pins(self) -> dict[int, tuple[str, ...]]:
        """Pins in the vault by slots."""
        vault = open_machine(self.vault, "shop.web")
        try:
            return list_pins(vault.access)
        finally:
            vault.close()


def change(scene: WarmScene, disk: str, block: int, value: int) -> None:
    """Write to a disk, as the machine does, and take a point."""
    scene.disks[disk] = scene.disks[disk].copy()
    scene.disks[disk][block * BLOCK_SIZE + 100 : block * BLOCK_SIZE + 300] = value


def same(scene: WarmScene) -> None:
    for name, data in scene.disks.items():
        held = np.frombuffer(scene.replica_bytes(name), np.uint8)
        assert np.array_equal(held[: data.size], data) and not held[data.size :].any()
