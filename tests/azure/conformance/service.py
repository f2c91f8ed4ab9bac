"""Engine siteRecovery under the operator's own decisions: its real driver, the port to Kubernetes, the simulator."""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from tests.azure.conformance.life import Life
from tests.azure.siterecovery.scene import Crash, Everywhere, Trap
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Cloud
from tests.azuresim.compute.state import compute
from tests.azuresim.siterecovery import SourceMachine
from tests.unit.circle import NAMESPACE, PLAN, Json

from farshore_operator.api.recoveryvault import Engine
from farshore_operator.engines.siterecovery.calls import Call
from farshore_operator.engines.siterecovery.client import VaultClient
from farshore_operator.engines.siterecovery.driver import Driver
from farshore_operator.engines.siterecovery.perform import perform
from farshore_operator.engines.siterecovery.settings import VaultSettings
from farshore_operator.kube.cache import Cache
from farshore_operator.kube.leases import Heartbeats
from farshore_operator.kube.siterecovery import Wishes
from farshore_operator.observe.secrets import SecretKeys
from farshore_operator.observe.world import World
from farshore_operator.settings import Timing

TEXT = 64
"""Bytes at the beginning of each disk in which a machine writes."""


class _Secrets:
    def keys(self, namespace: str, name: str) -> SecretKeys:
        lengths = dict.fromkeys(("tenantId", "clientId", "clientSecret", "password"), 8)
        return SecretKeys({**lengths, "k": 32}, frozenset({"k"}))


class _Api:
    """What the driver's port needs of a client: the login, and status writes that go into the cache."""

    def __init__(self, service: Service) -> None:
        self._service = service

    def get(self, resource: Any, namespace: str, name: str) -> Json:
        given = self._service.cloud.sim.credential()
        login = {"tenantId": given.tenant_id, "clientId": given.client_id, "clientSecret": given.client_secret}
        return {"data": {key: base64.b64encode(text.encode()).decode() for key, text in login.items()}}

    def apply(self, resource: Any, namespace: str, body: Json, subresource: str) -> Json:
        service, name = self._service, body["metadata"]["name"]
        service.trap.passed()
        service.told.append(repr(body["status"]))
        known = copy.deepcopy(service.body(resource.kind, name))
        # What a server-side apply does: fields that its manager does not name any more go.
        owned = {"ProtectedVM": ("replication",), "Task": tuple(known.get("status") or ())}
        others = {
            key: value
            for key, value in (known.get("status") or {}).items()
            if key not in owned.get(resource.kind, ("siteRecovery",))
        }
        known["status"] = {**others, **body["status"]}
        service._write(resource.kind, known)
        service.trap.passed()
        return known


class Service(Life):
    """Manifests of a vault of engine siteRecovery. `cloud` is seeded with a vault, unless `region` has it made.

    A `bare` one applies vault and machines only when it is told to.

    Attributes:
        trap: ends the driver at a planned place.
        told: every status that the driver wrote.
        called: what it began at Azure.
    """

    engine = Engine.SITE_RECOVERY

    def __init__(
        self, cloud: Cloud, *machines: str, appliance: Any = None, bare: bool = False, region: str = "", **plan: Any
    ) -> None:
        self.cloud, self.appliance, self.bare, self.region = cloud, appliance, bare, region
        self.trap = Trap()
        self.told: list[str] = []
        self.began: list[str] = []
        self.source: dict[str, SourceMachine] = {}
        self.addresses = {name: f"10.0.0.{11 + at}" for at, name in enumerate(machines)}
        self._client: VaultClient | None = None
        for name in machines:
            self.machine(name)
        super().__init__(*machines, **plan)

    @property
    def now(self) -> datetime:
        return self.cloud.sr.clock.now()

    @now.setter
    def now(self, value: datetime) -> None:
        ahead = value - self.cloud.sr.clock.now()
        if ahead > timedelta(seconds=0.5):
            self.cloud.sr.advance(minutes=ahead.total_seconds() / 60)

    def machine(self, name: str) -> SourceMachine:
        """Let a machine run at the source site, known to the appliance if there is one."""
        made = self.source[name] = self.cloud.machine(name, self.addresses[name])
        if self.appliance is not None:
            self.cloud.sr.add_to_appliance(self.appliance, made)
        return made

    # the API

    def build(self) -> None:
        self.cache = Cache()
        self.heartbeats = Heartbeats(timedelta(seconds=20))
        self.secrets = _Secrets()
        self.world = World(self.cache, self.secrets, self.heartbeats, Timing(), lambda: self.now)  # type: ignore[arg-type]
        self._put("Site", "stack", {"provider": "local"})
        self._put("Site", "shore", self.shore_spec())
        self._put("ReplicationPolicy", "standard", {"appConsistentInterval": "1h"})
        if not self.bare:
            self._put("RecoveryVault", "vault", self.vault_spec())
            for name in self.names:
                self._put("ProtectedVM", name, self.machine_spec(name))
        self.apply_plan()
        self.restart()

    def login_spec(self) -> Json:
        given = self.cloud.sim.credential()
        return {
            "subscription": self.cloud.sim.subscription, "resourceGroup": GROUP,
            "resourceManagerEndpoint": self.cloud.sim.endpoint, "authorityHost": given.authority,
            "caBundle": Path(self.cloud.sim.ca_bundle).read_text(), "credentialsSecretRef": {"name": "asr-login"},
        }  # fmt: skip

    def vault_spec(self) -> Json:
        azure = {**self.login_spec(), "vaultName": VAULT, "cacheStorageAccount": self.cloud.storage_id}
        return {"engine": "siteRecovery", "azure": {**azure, **({"region": self.region} if self.region else {})}}

    def shore_spec(self) -> Json:
        defaults = {"network": "vnet", "subnet": "default", "size": "Standard_D2s_v3", "diskType": "Standard_LRS"}
        azure = {**self.login_spec(), "region": "westeurope"}
        return {"provider": "azure", "azure": azure, "drillNetwork": "testvnet", "defaults": defaults}

    def machine_spec(self, name: str) -> Json:
        return {
            "source": {"siteRef": {"name": "stack"}, "address": self.addresses[name]},
            "policyRef": {"name": "standard"}, "vaultRef": {"name": "vault"},
            "target": {"siteRef": {"name": "shore"}, "name": f"{name}-dr"},
        }  # fmt: skip

    # the driver

    def restart(self) -> None:
        """Begin a driver that remembers nothing."""
        wishes = Wishes(self.cache, _Api(self))  # type: ignore[arg-type]
        self.driver = Driver(wishes, lambda: self.now, self._connect, self._carry_out)

    def _connect(self, settings: VaultSettings) -> VaultClient:
        if self._client is None or self._client.settings != settings:
            self._client = VaultClient(settings)
        return self._client

    def _carry_out(self, client: VaultClient, call: Call) -> str:
        self.trap.passed()
        job = perform(client, call)
        self.began.append(f"{call.name} {call.subject}")
        self.trap.passed()
        return job

    def settle(self, rounds: int = 300) -> None:
        try:
            super().settle(rounds)
        except AssertionError as error:
            tasks = [f"{one['metadata']['name']} {one.get('status')}" for one in self._open()]
            raise AssertionError(f"{error}; open tasks: {tasks}; last told: {self.told[-2:]}") from error

    def _open(self) -> list[Json]:
        over = ("Succeeded", "Failed")
        tasks = self.cache.all("Task", NAMESPACE)
        return [one for one in tasks if (one.get("status") or {}).get("phase") not in over]

    def work(self) -> bool:
        before = self._count
        try:
            self.driver.look()
        except Crash:
            self.restart()
            return True
        return self._count != before or bool(self._open())

    def until_so(self, done: Callable[[], bool], minutes: float = 1, rounds: int = 60) -> None:
        """Let time go on until something is so."""
        for _ in range(rounds):
            if done():
                return
            self.settle()
            self.cloud.sr.advance(minutes=minutes)
        raise AssertionError("\n".join(self.said(kind, name) for kind, name in self.objects()))

    def until_protected(self) -> None:
        self.until_so(lambda: all(self.phase(name) == "Protected" for name in self.names))

    # what machines do, and what is in Azure

    def write(self, name: str, text: str) -> None:
        data = text.encode().ljust(TEXT)
        paths = [disk.path for disk in self.source[name].disks]
        if not self.source[name].powered_on:
            paths = self._disks(f"{name}-dr")
        for path in paths:
            with path.open("r+b") as file:
                file.write(data)

    def read(self, name: str) -> str:
        paths = [disk.path for disk in self.source[name].disks]
        if not self.source[name].powered_on:
            paths = self._disks(f"{name}-dr")
        (found,) = {path.read_bytes()[:TEXT] for path in paths}
        return found.decode(errors="replace").strip()

    def _disks(self, machine: str) -> list[Path]:
        state = compute(self.cloud.sim)
        return [state.files.path(disk) for _, disk in sorted(state.attached(state.machine(machine)))]

    def content(self, machine: str = "", *, home: str = "") -> list[bytes]:
        """What the disks hold of a machine in Azure, up to the size that they have at home, or of one at home."""
        size = next(iter(self.source.values())).disks[0].size
        paths = [disk.path for disk in self.source[home].disks] if home else self._disks(machine)
        return [path.read_bytes()[:size] for path in paths]

    def later(self) -> None:
        self.cloud.sr.advance(minutes=6)
        self.settle()

    def in_azure(self) -> list[str]:
        return sorted(one.name for one in self.cloud.sim.store.of("Microsoft.Compute/virtualMachines"))

    def running(self) -> dict[str, list[str]]:
        there = self.in_azure()
        return {
            name: ["home"] * machine.powered_on + ["away"] * (f"{name}-dr" in there)
            + ["drill"] * (f"{name}-dr-test" in there)
            for name, machine in self.source.items()
        }  # fmt: skip

    def resources(self) -> list[str]:
        return sorted(f"{one.kind} {one.name}" for one in self.cloud.sim.store.found.values())

    def touched(self) -> Any:
        changes = [(one.method, one.path) for one in self.cloud.sim.calls if one.method != "GET" and one.plane == "arm"]
        return self.resources(), changes, {name: one.powered_on for name, one in self.source.items()}

    def left(self, before: Any) -> bool:
        return self.resources() == before[0]

    def notes(self) -> list[str]:
        asked = [one for one in self.cloud.sim.calls if one.path.lower().endswith("testfailovercleanup")]
        return [str(json.loads(one.body)["properties"]["comments"]) for one in asked]

    def drill_network(self, name: str) -> str:
        interfaces = self.cloud.sim.store.of("Microsoft.Network/networkInterfaces")
        (found,) = [one for one in interfaces if f"{name}-dr" in one.name]
        return str(found.body["properties"]["ipConfigurations"][0]["properties"]["subnet"]["id"])

    def be_killed(self) -> None:
        self.trap = Everywhere(at=1)

    def repeated(self) -> list[str]:
        done = [one for one in self.cloud.sim.calls if one.plane == "arm" and 200 <= one.status < 300]
        told = [f"{one.method} {one.path}" for one in done if one.method != "GET" and "RecoveryPlans" not in one.path]
        return sorted({one for one in told if told.count(one) > 1})


__all__ = ["PLAN", "Service"]
