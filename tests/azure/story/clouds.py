"""The two clouds of the story: an Azure Stack Hub with the machines, and Azure with nothing but a network."""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import SecretStr
from tests.azure.story.machines import DISKS, SIZE, Actor, Content
from tests.azuresim import AzureSim, seeds
from tests.azuresim.compute.state import Machine, compute

from farshore_engine.azurestack.machine import AttachedDisk
from farshore_engine.contract.assignment import Source
from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.site import CloudCredential, CloudProvider, CloudSite

HUB_GROUP, AZURE_GROUP, NETWORK = "factory", "contosoRG", "shore"
HUB_SIZE = "Standard_D2_v2"
SERVER = "ps-hub"
MACHINES, HOME_DISKS = "Microsoft.Compute/virtualMachines", "Microsoft.Compute/disks"


@contextlib.contextmanager
def own_net() -> Iterator[str]:
    """Give the first two numbers of addresses of this host that no other test has meanwhile, in whatever process."""
    while True:
        net = f"127.{100 + secrets.randbelow(100)}"
        try:
            held = socket.create_server((f"{net}.255.254", 22))
        except OSError:
            continue
        with held:
            yield net
        return


class Answering:
    """Lets machines greet at their addresses as an SSH server does, while the simulator says that they run."""

    def __init__(self) -> None:
        self._listeners: dict[str, socket.socket] = {}
        self._silent: dict[str, list[socket.socket]] = {}

    def start(self, address: str, runs: Callable[[], bool]) -> None:
        self._speak(address)
        if address in self._listeners or not address.startswith("127."):
            return
        listener = self._listeners[address] = socket.create_server((address, 22))
        threading.Thread(target=self._serve, args=(listener, runs), daemon=True).start()

    def stop(self, address: str) -> None:
        self._speak(address)
        listener = self._listeners.pop(address, None)
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()

    def silence(self, address: str) -> None:
        """Let connections to an address run into nothing, as where there is no machine: a full queue takes no more."""
        self.stop(address)
        full = socket.create_server((address, 22), backlog=0)
        self._silent[address] = [full]
        for _ in range(4):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex((address, 22))
            self._silent[address].append(waiting)

    def stop_all(self) -> None:
        for address in [*self._listeners, *self._silent]:
            self.stop(address)

    def _speak(self, address: str) -> None:
        for one in self._silent.pop(address, ()):
            one.close()

    @staticmethod
    def _serve(listener: socket.socket, runs: Callable[[], bool]) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):  # who only looked whether the port is open is gone
                    if runs():
                        connection.sendall(b"SSH-2.0-shop\r\n")


@dataclass(repr=False)
class Clouds:
    """Both simulators, seeded; `trouble` collects what must never be seen while the story goes on."""

    hub: AzureSim
    azure: AzureSim
    net: str
    actors: Sequence[Actor]
    answering: Answering = field(default_factory=Answering)
    trouble: list[str] = field(default_factory=list)

    def seed(self) -> None:
        """Make what there is before Step 1."""
        for sim in (self.hub, self.azure):
            sim.reset()
            state = compute(sim)
            state.power.clear()
            state.on_start[:] = [self._started(sim)]
        self.answering.stop_all()
        self.trouble.clear()
        self.azure.group(AZURE_GROUP)
        seeds.vnet(self.azure, AZURE_GROUP, NETWORK, f"{self.net}.0.0/16", {"machines": f"{self.net}.0.0/24"})
        self.hub.group(HUB_GROUP)
        vnet = seeds.vnet(self.hub, HUB_GROUP, "vnet", f"{self.net}.0.0/16", {"default": f"{self.net}.1.0/24"})
        subnet = seeds.subnet_id(vnet)
        own = seeds.disk(self.hub, HUB_GROUP, f"{SERVER}-os", os_type="Linux")
        nic = seeds.nic(self.hub, HUB_GROUP, f"{SERVER}-nic", subnet, self.server_address)
        seeds.machine(self.hub, HUB_GROUP, SERVER, own, [nic], size=HUB_SIZE)

    def seed_machine(self, actor: Actor, content: Content) -> None:
        """Let a machine run at the Hub with these disks."""
        system, data = (
            seeds.disk(self.hub, HUB_GROUP, f"{actor.name}-{kind}", one, os_type="Linux" if kind == "os" else "")
            for kind, one in zip(DISKS, content, strict=True)
        )
        subnet = f"/subscriptions/{self.hub.subscription}/resourceGroups/{HUB_GROUP}/providers/Microsoft.Network"
        nic = seeds.nic(
            self.hub, HUB_GROUP, f"{actor.name}-nic", f"{subnet}/virtualNetworks/vnet/subnets/default", actor.home
        )
        seeds.machine(self.hub, HUB_GROUP, actor.name, system, [nic], [data], size=HUB_SIZE, tags={"shop": actor.name})

    @property
    def server_address(self) -> str:
        return f"{self.net}.1.100"

    def device(self, disk: AttachedDisk) -> Path | None:
        """The file behind what is attached to the process server's machine at a LUN."""
        state = compute(self.hub)
        found = dict(state.attached(state.machine(SERVER)))
        return state.files.path(found[disk.lun]) if disk.lun in found else None

    # where machines are

    def at_home(self, actor: Actor) -> str:
        """Power of the machine at the Hub, empty where it is not there."""
        return _power(self.hub, actor.name)

    def at_azure(self, actor: Actor) -> str:
        """Power of the recovered machine in Azure, empty where there is none."""
        return _power(self.azure, actor.at_azure)

    def home_content(self, actor: Actor) -> Content:
        return tuple(compute(self.hub).disk_bytes(f"{actor.name}-{kind}")[:SIZE] for kind in DISKS)

    def azure_content(self, actor: Actor, machine: str = "") -> Content:
        """What the disks of a machine in Azure hold, in the order of their LUNs."""
        state = compute(self.azure)
        found = sorted(state.attached(state.machine(machine or actor.at_azure)))
        return tuple(state.files.path(disk).read_bytes()[:SIZE] for _, disk in found)

    def write(self, sim: AzureSim, machine: str, at: int, data: bytes) -> None:
        """Let a machine write to each of its disks."""
        state = compute(sim)
        for _, disk in state.attached(state.machine(machine)):
            with state.files.path(disk).open("r+b") as file:
                file.seek(at)
                file.write(data)

    def power_off(self, sim: AzureSim, machine: str, address: str) -> None:
        """The machine cuts its own power: nothing of it answers any more."""
        self.answering.silence(address)
        compute(sim).guest_shuts_down(machine)

    def shutdown(self, source: Source, asked: Callable[[], None]) -> bool:
        """What a machine does that is asked over SSH to power off; there is none where it does not run."""
        for actor in self.actors:
            for sim, name, address in ((self.hub, actor.name, actor.home), (self.azure, actor.at_azure, actor.away)):
                if source.address == address and _power(sim, name) == "running":
                    asked()
                    self.power_off(sim, name, address)
                    return True
        raise WaitFault(f"{source.address} does not answer", "Look at it", reason="Unreachable")

    def answer_again(self) -> None:
        """Let those machines answer that run now, and no others."""
        self.answering.stop_all()
        for sim in (self.hub, self.azure):
            for one in sim.store.of(MACHINES):
                if compute(sim).power.get(one.id.lower()) == "running":
                    self._started(sim)(compute(sim).as_machine(one))

    def resources(self) -> list[str]:
        """What there is in Azure, with every property but the count of changes."""
        return sorted(f"{one.kind} {one.name}" for one in self.azure.store.found.values())

    def _started(self, sim: AzureSim) -> Callable[[Machine], None]:
        def started(machine: Machine) -> None:
            for actor in self.actors:
                if machine.name not in (actor.name, actor.at_azure):
                    continue
                other = self.at_home(actor) if sim is self.azure else self.at_azure(actor)
                if other == "running":
                    self.trouble.append(f"{machine.name} started while its twin of {actor.name} runs")
            key = machine.id.lower()
            for address in machine.addresses:
                self.answering.start(address, lambda: compute(sim).power.get(key) == "running")

        return started


def _power(sim: AzureSim, name: str) -> str:
    found = [one for one in sim.store.of(MACHINES) if one.name.lower() == name.lower()]
    return compute(sim).power.get(found[0].id.lower(), "unknown") if found else ""


def site_of(sim: AzureSim, provider: CloudProvider) -> CloudSite:
    """Return how the product reaches a simulator."""
    given = sim.credential()
    azure = provider is CloudProvider.AZURE
    return CloudSite(
        name="azure" if azure else "hub", provider=provider, subscription=sim.subscription, region=sim.region,
        resource_group=AZURE_GROUP if azure else HUB_GROUP, endpoint=sim.endpoint,
        authority=given.authority if azure else "", ca_bundle=sim.ca_bundle.read_text(),
        credential=CloudCredential(
            tenant_id=given.tenant_id, client_id=given.client_id, client_secret=SecretStr(given.client_secret)
        ),
    )  # fmt: skip


def disks_of(sim: AzureSim) -> Iterator[tuple[str, dict[str, str]]]:
    """Return (name, tags) of every disk."""
    for one in sim.store.of(HOME_DISKS):
        yield one.name, dict(one.tags)
