"""A machine that comes home to a Hub: its old disks there, a point in a vault, a process server beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
from pydantic import SecretBytes
from tests.azure.hub.conftest import FAST, GROUP, SIZE, site_of
from tests.azuresim import AzureSim, seeds
from tests.azuresim.compute.state import compute

from farshore_engine.azurestack.machine import AttachedDisk
from farshore_engine.azurestack.mastertarget import Host
from farshore_engine.azurestack.resourcemanager import ResourceManager
from farshore_engine.azurestack.setting import HubSetting
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.assignment import DirectoryAccess, Source, VaultAccess
from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.machine import MachineDescription, MachineDisk, NetworkInterface
from farshore_engine.contract.points import Consistency, RecoveryPoint
from farshore_engine.contract.tasks import TaskAssignment, TaskInput, TaskKind, TaskResult
from farshore_engine.processserver.dispatch import executor_of
from farshore_engine.processserver.installer import DataPort
from farshore_engine.processserver.tasks.context import TaskContext
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter

KEY = b"k" * 32
DISK = 1 << 20
BLOCKS = DISK // BLOCK_SIZE
ADDRESS, OWN = "10.1.0.4", "10.1.0.100"
CHANGED = {"system": (0, 7), "data": (3,)}
"""Blocks that were written since the failover, by disk."""
TAGS = {"department": "sales", "farshore": "mine"}


class Killed(BaseException):
    """The process server died."""


class Connection(ResourceManager):
    """Stays open between steps, and dies where a test says."""

    die: Callable[[str, str, bool], None] = staticmethod(lambda method, path, done: None)

    def __exit__(self, *_: object) -> None:
        """The next step goes on with it."""

    def _send(self, method: str, path: str, *rest: Any) -> Any:
        self.die(method, path, False)
        answer = super()._send(method, path, *rest)
        self.die(method, path, True)
        return answer


@dataclass
class Vault:
    access: VaultAccess
    point: RecoveryPoint
    content: dict[str, bytes]
    before: dict[str, bytes]


def make_vault(directory: Path, interfaces: tuple[tuple[str, str], ...] = (("eth0", ADDRESS),)) -> Vault:
    """Two points of two disks; what is at the Hub is the first, what comes home the second."""
    store = DirectoryStore(directory)
    opened = MachineVault.open(store, KEY, "demo.shop", create=True)
    sink = PackUploader(store, opened.access.names)
    writer = PointWriter(opened, opened.claim(writer="ps", epoch=1, reason="test"), sink)
    content = {name: bytearray(DISK) for name in CHANGED}
    described = MachineDescription(
        hostname="shop", cpus=2, memory_bytes=4 << 30,
        disks=tuple(MachineDisk(id=name, name=name, size_bytes=DISK, bootable=name == "system") for name in CHANGED),
        interfaces=tuple(NetworkInterface(name=name, addresses=(f"{one}/24",)) for name, one in interfaces),
    )  # fmt: skip
    before, point = {}, None
    for number in range(2):
        for name, blocks in CHANGED.items():
            for block in blocks if number else range(0, BLOCKS, 3):
                data = bytes([1 + number * 100 + block % 100]) * BLOCK_SIZE
                writer.add(name, np.array([block]), data)
                content[name][block * BLOCK_SIZE : (block + 1) * BLOCK_SIZE] = data
        fields = tuple(DiskFields(name, name, DISK) for name in CHANGED)
        point = writer.commit(
            PointFields(datetime(2030, 1, 1, 0, number, tzinfo=UTC), Consistency.CRASH, fields, described)
        )
        before = before or {name: bytes(one) for name, one in content.items()}
    sink.close()
    opened.close()
    assert point is not None
    access = VaultAccess(name="v", storage=DirectoryAccess(path=directory), key=SecretBytes(KEY))
    return Vault(access, point, {name: bytes(one) for name, one in content.items()}, before)


@dataclass
class World:
    """What a test acts in."""

    sim: AzureSim
    vault: Vault
    state: Path
    connection: Connection
    said: list[str] = field(default_factory=list)
    run: str = "failback-1"

    @classmethod
    def made(cls, sim: AzureSim, vault: Vault, state: Path) -> World:
        return cls(sim, vault, state, Connection(site_of(sim), **FAST))

    def seed(self, *, machine: bool = True) -> None:
        """The cloud: the process server's machine, and the one that comes home, stopped."""
        sim = self.sim
        sim.group(GROUP)
        subnet = seeds.subnet_id(seeds.vnet(sim, GROUP))
        own = seeds.disk(sim, GROUP, "ps-os", os_type="Linux"), seeds.disk(sim, GROUP, "ps-spool")
        nic = seeds.nic(sim, GROUP, "ps-nic", subnet, OWN)
        seeds.machine(sim, GROUP, "ps", own[0], [nic], [own[1]], size="Standard_DS1_v2")
        if machine:
            names = {one: self._disk(one) for one in CHANGED}
            nic = seeds.nic(sim, GROUP, "shop-nic", subnet, ADDRESS, tags={"cost": "7"})
            seeds.machine(sim, GROUP, "shop", names["system"], [nic], [names["data"]], size=SIZE, tags=TAGS)
            compute(sim).guest_shuts_down("shop")

    def _disk(self, name: str) -> str:
        """A disk that holds what the machine had before; what lies behind that is not looked at here."""
        made = seeds.disk(self.sim, GROUP, f"shop-{name}")
        compute(self.sim).files.path(made).write_bytes(self.vault.before[name])
        return made

    def device(self, disk: AttachedDisk) -> Path | None:
        """The file behind what is attached to the process server's machine at a LUN."""
        state = compute(self.sim)
        found = dict(state.attached(state.machine("ps")))
        return state.files.path(found[disk.lun]) if disk.lun in found else None

    def context(self) -> TaskContext:
        return TaskContext(
            machines_dir=self.state / "machines", runtime=cast(Any, None), installer=cast(Any, None),
            data_port=lambda: DataPort("ps", 9443), take_point=cast(Any, None), now=lambda: datetime.now(UTC),
            progress=lambda percent, sentence: self.said.append(sentence),
            hub=HubSetting(Host(addresses=lambda: (OWN,), device=self.device, appears=0), lambda site: self.connection),
        )  # fmt: skip

    def step(self, kind: TaskKind, **given: Any) -> TaskResult:
        """Do a step once; raises Fault or Killed."""
        wanted = TaskInput(
            machine_id="demo.shop", source_machine="shop", machine_name="shop", point=self.vault.point.name, **given
        )
        task = TaskAssignment(
            name=f"{self.run}-shop-{kind.value.lower()}", kind=kind, run=self.run, input=wanted,
            vault=self.vault.access, source=Source(address=ADDRESS), site=site_of(self.sim),
        )  # fmt: skip
        return executor_of(task)(task, self.context())

    def patiently(self, kind: TaskKind, tries: int = 6, **given: Any) -> TaskResult:
        """Do a step as the process server does: again after each WaitFault and each death."""
        for _ in range(tries - 1):
            try:
                return self.step(kind, **given)
            except (WaitFault, Killed):
                self.sim.settle()
        return self.step(kind, **given)

    def other_server(self, state: Path) -> World:
        """The same world behind another process server that knows nothing."""
        return replace(self, state=state)

    def check_home(self, *, fresh: bool = False) -> None:
        """There is one machine, it runs on disks that hold the point, and nothing else is left of the way."""
        state = compute(self.sim)
        machines = [one.name for one in self.sim.store.of("Microsoft.Compute/virtualMachines")]
        assert sorted(machines) == ["ps", "shop"]
        machine = state.machine("shop")
        assert state.power_of("shop") == "running"
        disks = [disk for _, disk in state.attached(machine)]
        assert {self.sim.store.need(disk).body["managedBy"] for disk in disks} == {machine.id}
        wanted = list(self.vault.content.values())
        assert [state.files.path(disk).read_bytes()[:DISK] == one for disk, one in zip(disks, wanted, strict=True)] == [
            True, True,
        ]  # fmt: skip
        own = [disk.rsplit("/", 1)[1] for _, disk in state.attached(state.machine("ps"))]
        assert own == ["ps-os", "ps-spool"]
        every = {one.name for one in self.sim.store.of("Microsoft.Compute/disks")}
        assert len(every) == 4, "no disk without an owner is left"
        assert state.as_machine(machine).addresses == (ADDRESS,)
        nics = list(self.sim.store.of("Microsoft.Network/networkInterfaces"))
        assert len(nics) == 2
        assert not any("farshore-machine" in one.tags for one in nics)
        assert not list((self.state / "hub").glob("*.json"))
        if not fresh:
            assert dict(machine.tags) == TAGS
            assert machine.properties["hardwareProfile"]["vmSize"] == SIZE
            assert next(one for one in nics if one.name == "shop-nic").tags == {"cost": "7"}
