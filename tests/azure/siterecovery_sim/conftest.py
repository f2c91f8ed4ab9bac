"""A cloud with a classic vault, a configuration server, a target with network and storage, and a source machine."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.recoveryservices import RecoveryServicesClient
from azure.mgmt.recoveryservicessiterecovery import SiteRecoveryManagementClient, models
from tests.azuresim import AzureSim
from tests.azuresim.seeds import vnet
from tests.azuresim.siterecovery import SiteRecovery, SourceMachine, siterecovery
from tests.azuresim.siterecovery.state import Fabric, Vault

GROUP, VAULT = "contosoRG", "ContosoVMVault"


@dataclass
class Cloud:
    """What the tests hold: the simulator, its clients, and the ids of the target."""

    sim: AzureSim
    sr: SiteRecovery
    folder: Path
    credential: Any
    group_id: str
    network_id: str = ""
    storage_id: str = ""

    def client(self, kind: Any) -> Any:
        return kind(self.credential, self.sim.subscription, **self.sim.client_options())

    @cached_property
    def vaults(self) -> RecoveryServicesClient:
        found: RecoveryServicesClient = self.client(RecoveryServicesClient)
        return found

    @cached_property
    def site(self) -> SiteRecoveryManagementClient:
        found: SiteRecoveryManagementClient = self.client(SiteRecoveryManagementClient)
        return found

    def machine(self, name: str = "web1", ip: str = "10.0.0.11", disks: int = 2, **more: Any) -> SourceMachine:
        """A source machine whose disks are random files."""
        made = []
        for number in range(disks):
            path = self.folder / f"{name}-{number}.img"
            path.write_bytes(random.Random(f"{name}{number}").randbytes(300_000) + bytes(1_700_000))
            made.append(path)
        return self.sr.world.machine(name, ip, made, **more)

    def vm_bytes(self, name: str, disk: int, length: int) -> bytes:
        """The first bytes of a disk of a recovered virtual machine; disk 0 is the operating system's."""
        from tests.azuresim.compute.state import compute

        found = compute(self.sim)
        path = found.files.path(found.attached(found.machine(name))[disk][1])
        with path.open("rb") as file:
            return file.read(length)

    def vm_names(self) -> list[str]:
        return [one.name for one in self.client(ComputeManagementClient).virtual_machines.list(GROUP)]


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with cloud_in(tmp_path) as made:
        yield made


@contextmanager
def cloud_in(folder: Path) -> Iterator[Cloud]:
    """A simulator with a target; the disks of machines are files in `folder`."""
    with AzureSim() as sim:
        sr = siterecovery(sim)
        given = sim.credential()
        credential = ClientSecretCredential(
            given.tenant_id, given.client_id, given.client_secret, authority=given.authority,
            disable_instance_discovery=True, connection_verify=str(sim.ca_bundle),
        )  # fmt: skip
        made = Cloud(sim, sr, folder, credential, sim.group(GROUP))
        subnets = {"default": "10.9.0.0/24"}
        made.network_id = vnet(sim, GROUP, "vnet", "10.9.0.0/16", subnets)
        vnet(sim, GROUP, "testvnet", "10.9.0.0/16", subnets)
        made.storage_id = sim.parts["storage"].account("contosologs", GROUP)
        yield made


@dataclass
class Classic:
    """A classic vault with its configuration server; ids that every call needs."""

    cloud: Cloud
    vault: Vault
    server: Fabric
    container: str

    @property
    def at(self) -> tuple[str, str, str, str]:
        return (GROUP, VAULT, self.server.name, self.container)

    def policy(self, **more: Any) -> str:
        settings = {"recovery_point_threshold_in_minutes": 15, "recovery_point_history": 1440,
                    "crash_consistent_frequency_in_minutes": 5, "app_consistent_frequency_in_minutes": 60,
                    "multi_vm_sync_status": "Disable", **more}  # fmt: skip
        given = models.CreatePolicyInput(
            properties=models.CreatePolicyInputProperties(
                provider_specific_input=models.InMageAzureV2PolicyInput(**settings)
            )
        )
        made = self.cloud.site.replication_policies.begin_create(GROUP, VAULT, "gold", given).result()
        found: str = made.id
        return found

    def map(self, policy_id: str) -> None:
        given = models.CreateProtectionContainerMappingInput(
            properties=models.CreateProtectionContainerMappingInputProperties(
                policy_id=policy_id, target_protection_container_id="Microsoft Azure",
                provider_specific_input=models.ReplicationProviderSpecificContainerMappingInput(
                    instance_type="ReplicationProviderSpecificContainerMappingInput"
                ),
            )
        )  # fmt: skip
        self.cloud.site.replication_protection_container_mappings.begin_create(*self.at, "goldmap", given).result()

    def discover(self, name: str, ip: str, os_type: str = "Linux") -> Any:
        site = self.cloud.site
        request = models.DiscoverProtectableItemRequest(
            properties=models.DiscoverProtectableItemRequestProperties(
                friendly_name=name, ip_address=ip, os_type=os_type
            )
        )
        site.replication_protection_containers.begin_discover_protectable_item(*self.at, request).result()
        listed = site.replication_protectable_items.list_by_replication_protection_containers(*self.at)
        return next(one for one in listed if one.properties.custom_details.ip_address == ip)

    def enable_input(self, policy_id: str, found: Any, **more: Any) -> models.EnableProtectionInput:
        settings = {
            "process_server_id": self.server.servers[0].id, "master_target_id": self.server.servers[0].id,
            "run_as_account_id": self.server.accounts[0].id, "disk_type": "Standard_LRS",
            "log_storage_account_id": self.cloud.storage_id, "target_azure_v2_resource_group_id": self.cloud.group_id,
            "target_azure_network_id": self.cloud.network_id, "target_azure_subnet_id": "default",
            "target_azure_vm_name": f"{found.properties.friendly_name}-dr", "target_vm_size": "Standard_D2s_v3", **more,
        }  # fmt: skip
        return models.EnableProtectionInput(
            properties=models.EnableProtectionInputProperties(
                policy_id=policy_id, protectable_item_id=found.id,
                provider_specific_details=models.InMageAzureV2EnableProtectionInput(**settings),
            )
        )  # fmt: skip

    def protect(self, machine: SourceMachine, name: str = "item-web1") -> Any:
        """Steps 5 of the tutorial up to a protected machine."""
        policy_id = (
            self.cloud.site.replication_policies.get(GROUP, VAULT, "gold").id if self.vault.policies else self.policy()
        )
        self.map(policy_id)
        found = self.discover(machine.name, machine.ip)
        items = self.cloud.site.replication_protected_items
        items.begin_create(*self.at, name, self.enable_input(policy_id, found)).result()
        return items.get(*self.at, name)


@pytest.fixture
def classic(cloud: Cloud) -> Classic:
    vault = cloud.sr.vault(GROUP, VAULT, classic=True)
    server = cloud.sr.unified_setup(vault, "cs1")
    return Classic(cloud, vault, server, next(iter(server.containers.values())).name)
