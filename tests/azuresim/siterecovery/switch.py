"""From the classic experience to the modernized one: the machine moves to an appliance, its points stay."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azure.mgmt.recoveryservicessiterecovery import models
from tests.azuresim.arm.call import Call, Later
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.registry import Route
from tests.azuresim.siterecovery import show_items as show
from tests.azuresim.siterecovery.monitoring import VERSIONS
from tests.azuresim.siterecovery.refusals import bad, not_allowed, not_found
from tests.azuresim.siterecovery.rules import allowed, replication_health, switch_blockers
from tests.azuresim.siterecovery.state import (
    CLASSIC,
    MODERN,
    Fabric,
    Item,
    Mapping,
    Policy,
    Task,
    Vault,
    last,
)

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery


class Switch:
    """The call `switchProvider` [SDK; conditions: doc "Move from classic to modernized"]."""

    def __init__(self, service: SiteRecovery) -> None:
        self.service = service

    def routes(self, item: str) -> list[Route]:
        return [
            Route(
                "POST",
                item + "/switchProvider",
                self.switch,
                VERSIONS,
                models.SwitchProviderInput,
                models.ReplicationProtectedItem,
            )
        ]

    def switch(self, call: Call) -> Later:
        item, given = self.service.find_item(call), call.body.get("properties") or {}
        details = given.get("providerSpecificDetails") or {}
        if (
            item.provider != CLASSIC
            or given.get("targetInstanceType") != MODERN
            or details.get("instanceType") != CLASSIC
        ):
            raise bad("The switch goes from InMageAzureV2 to InMageRcm.", "properties.targetInstanceType")
        if item.busy:
            raise not_allowed(item, "SwitchProtection", allowed(item))
        blockers = switch_blockers(item)
        if replication_health(item, self.service.clock.now()) == "Critical":
            blockers.append("The replication health is critical.")
        if blockers:
            raise ArmError(409, "SwitchProviderBlocked", " ".join(blockers))  # [inf] code
        vault, fabric = self._goal(details)
        tasks = [
            Task("SwitchProviderPrerequisites", "Prerequisites check"),
            Task("SwitchProvider", "Switch to the modernized experience"),
        ]
        job = self.service.job(
            item.vault,
            "SwitchProvider",
            "Switch to the modernized experience",
            tasks,
            "ProtectionEntity",
            item.name,
            item.friendly,
        )
        item.job, item.busy = job, True

        def finish() -> dict[str, Any]:
            item.busy = False
            self._move(item, vault, fabric)
            return show.item(self.service, item)

        def failed(_: ArmError) -> None:
            item.busy = False

        return self.service.run(item.vault, job, item.id, finish, failed)

    def _goal(self, details: dict[str, Any]) -> tuple[Vault, Fabric]:
        vault = self.service.vaults.get(details["targetVaultID"].lower())
        if vault is None:
            raise not_found("vault", details["targetVaultID"])
        # The example names the fabric under another vault than the target's: its name counts.
        for one in vault.fabrics.values():
            if last(details["targetFabricID"]).lower() == one.name.lower():
                if one.provider != MODERN or details["targetApplianceID"].lower() != one.dra.lower():
                    raise not_found("replication appliance", details["targetApplianceID"])
                return vault, one
        raise not_found("fabric", details["targetFabricID"])

    def _move(self, item: Item, vault: Vault, fabric: Fabric) -> None:
        """The item has the same name under the new fabric, with a policy like its old one [inf]."""
        old = item.policy
        container = next(iter(fabric.containers.values()))
        item.container.items.pop(item.name.lower(), None)
        found = item.container.protectables.get(last(item.protectable_id))
        if found is not None:
            found.item_id = ""
        name = f"{old.name}-{MODERN}"
        settings = {
            "recoveryPointHistoryInMinutes": old.retention_minutes,
            "crashConsistentFrequencyInMinutes": old.crash_minutes,
            "appConsistentFrequencyInMinutes": old.app_minutes, "enableMultiVmSync": "false",
        }  # fmt: skip
        vault.policies.setdefault(name.lower(), Policy(name, MODERN, settings))
        policy_id = f"{vault.sr_id}/replicationPolicies/{name}"
        container.mappings.setdefault(name.lower(), Mapping(name, policy_id, MODERN))
        item.vault, item.fabric, item.container, item.provider, item.policy_id = (
            vault,
            fabric,
            container,
            MODERN,
            policy_id,
        )
        item.protectable_id, item.process_server, item.master_target = "", fabric.servers[0].id, ""
        container.items[item.name.lower()] = item
        if item.machine is not None:
            self.service.add_to_appliance(fabric, item.machine)
