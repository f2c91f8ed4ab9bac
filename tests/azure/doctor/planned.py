"""A plan of machines that would be recovered to Azure: objects of a namespace, and a vault with a point of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from tests.azure.doctor.played import NAMESPACE, PlayedCluster
from tests.azuresim import AzureSim, seeds
from tests.unit.decide_world import NOW, point, report

from farshore_cli.doctoring.plan import checks_of
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.machine import MachineDescription, MachineDisk
from farshore_engine.contract.points import Consistency
from farshore_engine.contract.replication import Check
from farshore_engine.vault.directory_store import DirectoryStore
from farshore_engine.vault.machine import MachineVault
from farshore_engine.vault.upload import PackUploader
from farshore_engine.vault.writer import DiskFields, PointFields, PointWriter

KEY = b"k" * 32
READY = [{"type": "Ready", "status": "True", "reason": "Connected", "lastTransitionTime": NOW.isoformat()}]


@dataclass
class Planned:
    """The namespace of a plan."""

    sim: AzureSim
    folder: Path
    cluster: PlayedCluster = field(default_factory=PlayedCluster)

    def __post_init__(self) -> None:
        given, sim = self.sim.credential(), self.sim
        self.cluster.secret(
            "azure", tenantId=given.tenant_id, clientId=given.client_id, clientSecret=given.client_secret
        )
        self.cluster.secret("vault-key", key=KEY)
        self.cluster.secret("ssh", password="x")
        azure = {
            "subscription": sim.subscription, "resourceGroup": "rg", "region": sim.region,
            "credentialsSecretRef": {"name": "azure"}, "resourceManagerEndpoint": sim.endpoint,
            "authorityHost": sim.authority, "caBundle": sim.ca_bundle.read_text(),
        }  # fmt: skip
        self.cluster.add("Site", "shore", {"provider": "azure", "azure": azure})
        self.cluster.add("Site", "stack", {"provider": "local"})
        self.cluster.add("ReplicationPolicy", "standard", {})
        storage = {"directory": {"path": str(self.folder / "vault")}}
        key = {"keySecretRef": {"name": "vault-key", "key": "key"}}
        self.cluster.add("RecoveryVault", "vault", {"storage": storage, "encryption": key})
        vnet = next(iter(sim.store.of("Microsoft.Network/virtualNetworks"))).id
        way_in = {"properties": {"addressPrefix": "127.55.251.0/26"}}
        sim.seed("PUT", seeds.subnet_id(vnet, "AzureBastionSubnet"), way_in)
        seeds.bastion(sim, "rg", "jump", vnet)
        self.server("ps-stack", "stack")
        self.server("ps-shore", "shore", recovery={"diskFreeBytes": 1 << 40})

    def server(self, name: str, site: str, ready: bool = True, **appliance: Any) -> None:
        told = {
            "version": "1", "address": "10.0.0.1", "dataPort": 9443, "lastContact": NOW.isoformat(),
            "clockSkewSeconds": 0, "spool": {"usedBytes": 0, "sizeBytes": 1}, "canRunMachines": True, **appliance,
        }  # fmt: skip
        status = {"conditions": READY if ready else [], "registration": {"phase": "Registered"}, "appliance": told}
        kept = self.cluster.objects.setdefault("ProcessServer", [])
        kept[:] = [one for one in kept if one["metadata"]["name"] != name]
        self.cluster.add("ProcessServer", name, {"siteRef": {"name": site}}, status=status)

    def machine(self, vm: str, cpus: int = 2, with_point: bool = True, **target: Any) -> None:
        """A protected machine, and its point in the vault."""
        spec = {
            "source": {"siteRef": {"name": "stack"}, "address": "10.0.0.4", "credentialsSecretRef": {"name": "ssh"}},
            "policyRef": {"name": "standard"}, "vaultRef": {"name": "vault"},
            "target": {"siteRef": {"name": "shore"}, **target},
        }  # fmt: skip
        last = point().model_copy(update={"disk_bytes": 100 << 30})
        told = report(last_point=last, recent_points=(last,)).model_dump(mode="json", by_alias=True)
        status = {
            "activeSite": "source", "assignment": {"processServer": "ps-stack", "epoch": 1}, "replication": told,
        }  # fmt: skip
        self.cluster.add("ProtectedVM", vm, spec, status=status, metadata={"labels": {"app": "shop"}})
        if with_point:
            self.take_point(vm, cpus)

    def take_point(self, name: str, cpus: int) -> None:
        store = DirectoryStore(self.folder / "vault")
        opened = MachineVault.open(store, KEY, f"{NAMESPACE}.{name}", create=True)
        sink = PackUploader(store, opened.access.names)
        writer = PointWriter(opened, opened.claim(writer="ps", epoch=1, reason="test"), sink)
        writer.add("os", np.array([0]), bytes([7]) * BLOCK_SIZE)
        disk = MachineDisk(id="os", name="/dev/sda", size_bytes=BLOCK_SIZE, bootable=True)
        described = MachineDescription(hostname=name, cpus=cpus, memory_bytes=3 << 30, disks=(disk,))
        writer.commit(PointFields(NOW - timedelta(minutes=1), Consistency.CRASH,
                                  (DiskFields("os", "sda", BLOCK_SIZE),), described))  # fmt: skip
        sink.close()
        opened.close()

    def plan(self, names: Iterable[str], **spec: Any) -> None:
        members = [{"name": one} for one in names]
        status = spec.pop("status", {})
        body = {"groups": [{"name": "all", "members": members, **spec.pop("hooks", {})}], **spec}
        self.cluster.add("FailoverPlan", "shop", body, status=status)

    def checks(self) -> tuple[Check, ...]:
        objects = [
            {"apiVersion": "farshore.dev/v1alpha1", "kind": kind, **body}
            for kind, bodies in self.cluster.objects.items()
            if kind not in ("Secret", "ServiceAccount")
            for body in bodies
        ]
        return checks_of("shop", self.cluster.where, objects, lambda: NOW)
