"""A site of provider azure in the simulator, a vault with a point of a machine, and the tasks of a process server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import SecretBytes, SecretStr
from tests.azuresim import AzureSim, seeds

from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.assignment import DirectoryAccess, Source, VaultAccess
from farshore_engine.contract.machine import BootMode, MachineDescription
from farshore_engine.contract.points import Consistency
from farshore_engine.contract.site import CloudCredential, CloudProvider, CloudSite, CloudTarget
from farshore_engine.contract.tasks import TaskAssignment, TaskInput, TaskKind, TaskResult
from farshore_engine.machines.runtime import MachineRuntime
from farshore_engine.processserver.dispatch import executor_of
from farshore_engine.processserver.installer import DataPort
from farshore_engine.processserver.tasks.context import TaskContext
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter

KEY = b"k" * 32
SECRET = "azure-secret-that-no-log-may-have"
MIB = 1 << 20
OS_SIZE, DATA_SIZE = 40 * MIB, 24 * MIB + 512 * 3
SUBNET = "127.55.0.0/24"
"""Addresses of the simulated subnet are this host's own, so that a machine's hook can listen at them."""


def boot_disk() -> np.ndarray[Any, Any]:
    """Return a disk that a BIOS boots: boot code, an active partition, and something at several places."""
    data = np.zeros(OS_SIZE, np.uint8)
    head = bytearray(512)
    head[:64] = bytes(range(1, 65))
    head[446:462] = bytes([0x80, 1, 1, 0, 0x83, 1, 1, 1]) + (2048).to_bytes(4, "little") + (4096).to_bytes(4, "little")
    head[510:512] = b"\x55\xaa"
    data[:512] = np.frombuffer(bytes(head), np.uint8)
    rng = np.random.default_rng(6)
    for at, length in ((MIB, 300_000), (9 * MIB + 4096, 7 * MIB), (OS_SIZE - 4096, 4096)):
        data[at : at + length] = rng.integers(0, 256, length, np.uint8)
    return data


def data_disk() -> np.ndarray[Any, Any]:
    """Return a disk without a boot loader, whose size is no whole number of MiB."""
    data = np.zeros(DATA_SIZE, np.uint8)
    data[5 * MIB : 6 * MIB + 700] = 7
    data[-512:] = 9
    return data


@dataclass
class Scene:
    """One machine of which there is a point, and the process server that recovers it."""

    sim: AzureSim
    directory: Path
    disks: dict[str, np.ndarray[Any, Any]] = field(
        default_factory=lambda: {"disk-os": boot_disk(), "disk-data": data_disk()}
    )
    point: str = ""
    target: CloudTarget = field(default_factory=CloudTarget)
    run: str = "failover-1"
    machine_name: str = "web-01"
    told: list[str] = field(default_factory=list)
    progress: Callable[[int | None, str], None] | None = None
    site_changes: dict[str, Any] = field(default_factory=dict)
    port: int = 0  # where the machine answers over SSH; 0: nothing is told of it
    own: Path | None = None  # where the process server has its state, if that is not beside the vault

    @property
    def site(self) -> CloudSite:
        given = self.sim.credential()
        made = CloudSite(
            name="azure",
            provider=CloudProvider.AZURE,
            subscription=self.sim.subscription,
            resource_group="rg",
            region=self.sim.region,
            endpoint=self.sim.endpoint,
            authority=given.authority,
            ca_bundle=self.sim.ca_bundle.read_text(),
            credential=CloudCredential(
                tenant_id=given.tenant_id, client_id=given.client_id, client_secret=SecretStr(given.client_secret)
            ),
        )
        return made.model_copy(update=self.site_changes)

    @property
    def vault(self) -> VaultAccess:
        return VaultAccess(name="v", storage=DirectoryAccess(path=self.directory / "vault"), key=SecretBytes(KEY))

    def take_point(self) -> str:
        """Commit the disks as a point, and return its name."""
        store = DirectoryStore(self.directory / "vault")
        opened = MachineVault.open(store, KEY, "shop.web", create=True)
        sink = PackUploader(store, opened.access.names)
        writer = PointWriter(opened, opened.claim(writer="ps", epoch=1, reason="test"), sink)
        for name, data in self.disks.items():
            padded = np.concatenate([data, np.zeros(-len(data) % BLOCK_SIZE, np.uint8)])
            used = [n for n in range(len(padded) // BLOCK_SIZE) if padded[n * BLOCK_SIZE : (n + 1) * BLOCK_SIZE].any()]
            content = b"".join(padded[n * BLOCK_SIZE : (n + 1) * BLOCK_SIZE].tobytes() for n in used)
            last = len(padded) // BLOCK_SIZE - 1
            if used and used[-1] == last:
                content = content[: len(content) - (-len(data) % BLOCK_SIZE)]
            writer.add(name, np.array(used), content)
        fields = tuple(DiskFields(name, name.removeprefix("disk-"), len(data)) for name, data in self.disks.items())
        described = MachineDescription(hostname="web", cpus=2, memory_bytes=3 << 30, boot_mode=BootMode.BIOS)
        point = writer.commit(PointFields(datetime.now(UTC), Consistency.CRASH, fields, described))
        sink.close()
        opened.close()
        return point.name

    @property
    def context(self) -> TaskContext:
        return context_of(self.own or self.directory, self._progress)

    def task(self, kind: TaskKind, **given: Any) -> TaskAssignment:
        self.point = self.point or self.take_point()
        wanted: dict[str, Any] = {"machine_id": "shop.web", "machine_name": self.machine_name}
        wanted |= {"point": self.point, "target": self.target}
        return TaskAssignment(
            name=f"{self.run}-{kind.value}",
            kind=kind,
            run=self.run,
            input=TaskInput(**{**wanted, **given}),
            vault=self.vault,
            site=self.site,
            source=Source(address="10.0.0.4", port=self.port) if self.port else None,
        )

    def do(self, kind: TaskKind, **given: Any) -> TaskResult:
        task = self.task(kind, **given)
        return executor_of(task)(task, self.context)

    def recover(self) -> TaskResult:
        """Carry out the steps that bring the machine up; returns what StartMachine said."""
        self.do(TaskKind.HYDRATE)
        self.do(TaskKind.UPLOAD_DISKS)
        return self.do(TaskKind.START_MACHINE)

    def staged(self) -> list[Path]:
        return sorted((self.directory / "state" / "machines").rglob("disk-*"))

    def lose_staged(self) -> None:
        """Be another process server, which has nothing of what this one had."""
        shutil.rmtree(self.directory / "state", ignore_errors=True)

    def bytes_of(self, disk_id: str) -> np.ndarray[Any, Any]:
        return np.frombuffer(self.sim.parts["compute"].disk_bytes(disk_id.rpartition("/")[2]), np.uint8)

    def check_disks(self, ids: tuple[str, ...]) -> None:
        """Compare the machine's disks with the point, byte by byte; what a disk is larger by is zeros."""
        assert len(ids) == len(self.disks)
        for disk_id, wanted in zip(ids, self.disks.values(), strict=True):
            found = self.bytes_of(disk_id)
            assert found.size % MIB == 0 and found.size - wanted.size < 20 * MIB
            assert np.array_equal(found[: wanted.size], wanted)
            assert not found[wanted.size :].any()

    def _progress(self, percent: int | None, sentence: str) -> None:
        self.told.append(sentence)
        if self.progress is not None:
            self.progress(percent, sentence)


def context_of(directory: Path, progress: Callable[[int | None, str], None]) -> TaskContext:
    """Return the process server whose state is in a directory, as its executors see it."""
    state = directory / "state"
    state.mkdir(exist_ok=True)
    return TaskContext(
        machines_dir=state / "machines",
        runtime=MachineRuntime(state / "run"),
        installer=cast(Any, None),
        data_port=lambda: DataPort("ps", 9443),
        take_point=cast(Any, None),
        now=lambda: datetime.now(UTC),
        progress=progress,
    )


def seed(sim: AzureSim) -> str:
    """Make the resource group and network that machines are recovered to; gives the network's id."""
    sim.group("rg")
    return seeds.vnet(sim, "rg", "shore", "127.55.0.0/16", {"machines": SUBNET})


def ours(sim: AzureSim) -> list[str]:
    """Return the names of everything that carries our tag, with its kind."""
    return sorted(
        f"{one.kind.rpartition('/')[2]} {one.name}"
        for one in sim.store.found.values()
        if one.tags.get("farshore-owner") == "farshore"
    )
