"""The site of a soak: machines, one process server for all of them, a vault; what is killed in it, what is seen."""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretBytes
from tests.machine.replication_rig import free_port
from tests.soak.machines import ROOT, SoakMachine, Truth, digests, environment

from farshore_engine.contract.assignment import VaultAccess
from farshore_engine.contract.faults import Fault
from farshore_engine.vault.machine import MachineVault, StoredPoint
from farshore_engine.vault.stores import open_machine

KEY = SecretBytes(b"k" * 32)
SHAPES: tuple[tuple[tuple[tuple[str, int], ...], float], ...] = (
    ((("ext4", 192),), 1.0),
    ((("xfs", 320),), 1.0),
    ((("ext4", 128), ("ext4", 128)), 0.6),
)


@dataclass
class Seen:
    """A point that was visible, and whether it was restored and compared."""

    name: str
    time: float
    part: str
    checked: int = 0


@dataclass
class Site:
    """`part` names what the soak does now; failures end up in `wrong`."""

    directory: Path
    count: int
    interval: float
    keep: float  # seconds
    chance: random.Random
    part: str = ""
    wrong: list[str] = field(default_factory=list)
    seen: dict[tuple[str, str], Seen] = field(default_factory=dict)
    kills: dict[str, int] = field(default_factory=dict)
    memory: dict[str, list[tuple[float, int]]] = field(default_factory=dict)  # of a process: seconds, KiB
    server: subprocess.Popen[bytes] | None = None
    hydrator: subprocess.Popen[bytes] | None = None
    drills: int = 0
    spoiled: set[tuple[str, str]] = field(default_factory=set)
    ended: threading.Event = field(default_factory=threading.Event)

    def open(self, vault: VaultAccess) -> None:
        """Make the machines; start the process server and the agents."""
        self.port = free_port()
        self.home = self.directory / "server"
        self.home.mkdir(parents=True)
        self.vault = vault
        self.machines = [
            SoakMachine(f"vm{number}", self.directory / f"vm{number}", *SHAPES[number % len(SHAPES)])
            for number in range(self.count)
        ]
        for machine in self.machines:
            machine.open(self.home / "agents" / f"demo.{machine.name}")
        self.start_server()
        for machine in self.machines:
            machine.start()

    def close(self) -> None:
        """End everything."""
        self.ended.set()
        for process in (self.server, self.hydrator):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        for machine in getattr(self, "machines", []):
            machine.close()

    # -- the process server ----------------------------------------------------------------------------------------

    def use(self, vault: VaultAccess) -> None:
        """Let the process server use another vault from now on."""
        self.vault = vault
        self.stop_server()
        self.start_server()

    def stop_server(self) -> None:
        """Stop it in good order."""
        assert self.server is not None
        self.server.terminate()
        self.server.wait(60)

    def start_server(self) -> None:
        wanted = {
            "spool_bytes": 1 << 30,
            "vault": json.loads(revealed(self.vault)),
            "policy": {
                "crashConsistentInterval": f"PT{self.interval:g}S",
                "retention": {"keepAll": f"PT{self.keep:g}S"},
            },
            "data_port": self.port,
            "machines": [machine.name for machine in self.machines],
        }
        (self.home / "wanted.json").write_text(json.dumps(wanted))
        with (self.directory / "server.log").open("ab") as log:
            self.server = subprocess.Popen(
                [sys.executable, str(ROOT / "tests/soak/server_process.py"), str(self.home)],
                env=environment(),
                stdout=log,
                stderr=log,
            )

    def kill_server(self) -> None:
        assert self.server is not None
        self.server.send_signal(signal.SIGKILL)
        self.server.wait()

    def spooled(self) -> int:
        """Return the bytes of packs that wait in the spool."""
        packs = (self.home / "ps" / "spool").glob("*/*")
        return sum(path.stat().st_size for path in packs if not path.name.startswith("journal-"))

    # -- what is in the vault --------------------------------------------------------------------------------------

    def points(self, machine: SoakMachine) -> list[StoredPoint]:
        """Return the visible points, none while the vault cannot be read."""
        try:
            vault = self.vault_of(machine)
        except Fault:
            return []
        try:
            points = list(vault.catalogue().points)
        except Fault:
            return []
        finally:
            vault.close()
        for point in points:
            key = (machine.name, point.manifest.name)
            if key not in self.seen:
                self.seen[key] = Seen(point.manifest.name, point.manifest.time.timestamp(), self.part)
        return points

    def vault_of(self, machine: SoakMachine) -> MachineVault:
        """Open a machine in the vault; raises Fault."""
        return open_machine(self.vault.model_copy(update={"key": KEY}), f"demo.{machine.name}")

    def compare(self, machine: SoakMachine, point: StoredPoint, images: dict[str, Path]) -> None:
        """Compare restored disks with the truth."""
        key = (machine.name, point.manifest.name)
        truth = self.truth(machine, point)
        if truth is None:
            self.wrong.append(f"{key}: there was no freeze at {point.manifest.time}")
            return
        for disk, image in images.items():
            found = digests(image)
            if found.size != truth[disk].size or (found != truth[disk]).any():
                blocks = [] if found.size != truth[disk].size else (found != truth[disk]).nonzero()[0][:8].tolist()
                self.wrong.append(f"{key}: disk {disk} differs from the freeze at blocks {blocks}")
        self.seen[key].checked += 1

    def truth(self, machine: SoakMachine, point: StoredPoint) -> dict[str, Truth] | None:
        """Return a point's truth, waiting until the clone was read."""
        deadline = time.monotonic() + 60
        ids = [disk.id for disk in point.manifest.disks]
        while (truth := machine.truth_of(point.manifest.time.timestamp(), ids)) is None and time.monotonic() < deadline:
            time.sleep(0.3)
        return truth

    # -- drills ----------------------------------------------------------------------------------------------------

    def drill(self, machine: SoakMachine) -> None:
        """Hydrate a random point in a process that may be killed, held by a pin, and compare."""
        points = self.points(machine)
        if not points:
            return
        fresh = [p for p in points if not self.seen[machine.name, p.manifest.name].checked]
        point = self.chance.choice(fresh or points)
        try:
            vault = self.vault_of(machine)
            vault.pin(point, "drill")
        except Fault:
            return
        place = self.directory / "drill"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        try:
            code = self._hydrated(machine, point, place)
            if code == 0:
                images = {disk.id: place / f"{n}.raw" for n, disk in enumerate(point.manifest.disks)}
                self.compare(machine, point, images)
                self.drills += 1
            elif code == 3 and "azurite" in self.part:
                self.spoiled.add((machine.name, point.manifest.name))
            elif "azurite" not in self.part and not self.ended.is_set():
                self.wrong.append(f"{machine.name} {point.manifest.name}: hydration ends with {code}")
        finally:
            with contextlib.suppress(Fault):
                vault.unpin(point.slot, "drill")
            vault.close()

    def _hydrated(self, machine: SoakMachine, point: StoredPoint, place: Path) -> int:
        for _ in range(10):
            with (self.directory / "hydrator.log").open("ab") as log:
                self.hydrator = subprocess.Popen(
                    [
                        sys.executable,
                        str(ROOT / "tests/soak/hydrator_process.py"),
                        revealed(self.vault),
                        f"demo.{machine.name}",
                        point.manifest.name,
                        str(place),
                    ],
                    env=environment(),
                    stdout=log,
                    stderr=log,
                )
            code = self.hydrator.wait()
            if code != -signal.SIGKILL:
                return code
            if self.ended.is_set():
                return code
        return code

    def spoiled_of(self, machine: SoakMachine) -> set[str]:
        """Return the visible points of a machine that did not restore."""
        there = {point.manifest.name for point in self.points(machine)}
        return {name for of, name in self.spoiled if of == machine.name} & there

    # -- what is measured ------------------------------------------------------------------------------------------

    def note_memory(self) -> None:
        """Note the resident memory of the process server and the agents, while nobody kills them."""
        if self.part != "undisturbed":
            return
        named = {"server": self.server, **{f"agent {m.name}": m.process for m in self.machines}}
        for name, process in named.items():
            if process is None or process.poll() is not None:
                continue
            try:
                text = Path(f"/proc/{process.pid}/status").read_text()
            except OSError:
                continue
            found = re.search(r"VmRSS:\s+(\d+)", text)
            if found:
                self.memory.setdefault(f"{name} {process.pid}", []).append((time.monotonic(), int(found[1])))


def revealed(vault: VaultAccess) -> str:
    """Return a vault as JSON with its storage credential, for a child process of this test."""
    document: dict[str, Any] = json.loads(vault.model_dump_json(by_alias=True))
    storage: Any = vault.storage
    secret = getattr(storage, "connection_string", None)
    if secret is not None:
        document["storage"]["connectionString"] = secret.get_secret_value()
    document["key"] = ""
    return json.dumps(document)
