"""What tests of the modernized experience hold: a vault with an appliance, and the inputs of its provider."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from azure.mgmt.recoveryservicessiterecovery import models
from tests.azure.siterecovery_sim.conftest import GROUP, Cloud
from tests.azuresim.siterecovery import SourceMachine
from tests.azuresim.siterecovery.state import Fabric, Vault

VAULT = "NewVault"


@dataclass
class Modern:
    """A vault of today with a replication appliance."""

    cloud: Cloud
    vault: Vault
    appliance: Fabric
    container: str

    @property
    def at(self) -> tuple[str, str, str, str]:
        return (GROUP, VAULT, self.appliance.name, self.container)

    def policy(self, **more: Any) -> str:
        settings = {"recovery_point_history_in_minutes": 1440, "crash_consistent_frequency_in_minutes": 5,
                    "app_consistent_frequency_in_minutes": 0, "enable_multi_vm_sync": "false", **more}  # fmt: skip
        properties = models.CreatePolicyInputProperties(
            provider_specific_input=models.InMageRcmPolicyCreationInput(**settings)
        )
        made = self.cloud.site.replication_policies.begin_create(
            GROUP, VAULT, "day", models.CreatePolicyInput(properties=properties)
        )
        policy_id: str = made.result().id
        instance = models.ReplicationProviderSpecificContainerMappingInput(instance_type="InMageRcm")
        mapping = models.CreateProtectionContainerMappingInput(
            properties=models.CreateProtectionContainerMappingInputProperties(
                policy_id=policy_id, target_protection_container_id="Microsoft Azure", provider_specific_input=instance
            )
        )
        self.cloud.site.replication_protection_container_mappings.begin_create(*self.at, "daymap", mapping).result()
        return policy_id

    def enable_input(self, policy_id: str, discovered: str, **more: Any) -> models.EnableProtectionInput:
        settings = {
            "fabric_discovery_machine_id": discovered, "process_server_id": self.appliance.servers[0].id,
            "target_resource_group_id": self.cloud.group_id, "target_network_id": self.cloud.network_id,
            "target_subnet_name": "default", "target_vm_name": "web1-dr", "target_vm_size": "Standard_D2s_v3",
            "disks_default": models.InMageRcmDisksDefaultInput(disk_type="Standard_LRS",
            log_storage_account_id=self.cloud.storage_id),
            **more,
        }  # fmt: skip
        return models.EnableProtectionInput(
            properties=models.EnableProtectionInputProperties(
                policy_id=policy_id,
                protectable_item_id="",
                provider_specific_details=models.InMageRcmEnableProtectionInput(**settings),
            )
        )

    def protect(self, machine: SourceMachine, name: str = "item-web1") -> Any:
        discovered = self.cloud.sr.add_to_appliance(self.appliance, machine)
        items = self.cloud.site.replication_protected_items
        items.begin_create(*self.at, name, self.enable_input(self.policy(), discovered)).result()
        return items.get(*self.at, name)


def modern(cloud: Cloud) -> Modern:
    vault = cloud.sr.vault(GROUP, VAULT)
    appliance = cloud.sr.appliance(vault, "appliance1")
    return Modern(cloud, vault, appliance, next(iter(appliance.containers.values())).name)
