"""From the classic experience to the modernized one: an appliance takes the machine over, its points stay behind."""

from __future__ import annotations

from dataclasses import replace
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
    Drill,
    Fabric,
    Item,
    Mapping,
    Phase,
    Policy,
    Task,
    Vault,
    fabric_id,
    last,
)  # fmt: skip

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
        vault, fabric = self._goal(details)
        blockers = [*switch_blockers(item), *_appliance_blockers(item, vault, fabric)]
        if replication_health(item, self.service.clock.now()) == "Critical":
            blockers.append("The replication health is critical.")
        if blockers:
            raise ArmError(409, "SwitchProviderBlocked", " ".join(blockers))  # [inf] code
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
        """A new item on the appliance, with a policy like the old one and a first point of its own; the old item
        stays with
        its points until they expire [doc: "Move from classic to modernized"]. That the new one has the old one's
        name, and
        the policy's name, are [inf]."""
        old, container = item.policy, next(iter(fabric.containers.values()))
        name = f"{old.name}-{MODERN}"
        settings = {
            "recoveryPointHistoryInMinutes": old.retention_minutes,
            "crashConsistentFrequencyInMinutes": old.crash_minutes,
            "appConsistentFrequencyInMinutes": old.app_minutes, "enableMultiVmSync": "false",
        }  # fmt: skip
        vault.policies.setdefault(name.lower(), Policy(name, MODERN, settings))
        policy_id = f"{vault.sr_id}/replicationPolicies/{name}"
        container.mappings.setdefault(name.lower(), Mapping(name, policy_id, MODERN))
        made = replace(
            item, provider=MODERN, policy_id=policy_id, protectable_id="", vault=vault, fabric=fabric,
            container=container,
            phase=Phase.SYNCING, drill=Drill.NONE, disk_ids=list(item.disk_ids), process_server=fabric.servers[0].id,
            master_target="", account="", points=[], job=None, made=[], drill_made=[], drill_comments=[],
            target=replace(item.target), last_data=self.service.clock.now(), failover_point="", last_drill=None,
            switched={},
        )  # fmt: skip
        container.items[made.name.lower()] = made
        if made.machine is not None:
            self.service.add_to_appliance(fabric, made.machine)
        item.switched = {
            "targetVaultId": vault.id, "targetFabricId": fabric_id(vault, fabric), "targetApplianceId": fabric.dra,
            "targetResourceId": made.id,
        }  # fmt: skip
        self.service.synced(made)
        self.service.grow(made)


def _appliance_blockers(item: Item, vault: Vault, fabric: Fabric) -> list[str]:
    """[doc: "Move from classic to modernized", "Prepare modernized Recovery Services vault"]"""
    here, there = str(item.vault.body.get("location", "")).lower(), str(vault.body.get("location", "")).lower()
    found = []
    if vault.classic:
        found.append("The target vault has the classic experience.")
    if here != there:
        found.append("The target vault is in another region.")
    if fabric.heartbeat is not None or any(one.errors for one in fabric.servers):
        found.append("The appliance is not healthy.")
    return found
