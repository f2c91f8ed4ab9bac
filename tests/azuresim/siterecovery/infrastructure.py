"""Fabrics, their providers and appliances, protection containers, discovered machines."""

from __future__ import annotations

import ipaddress
import uuid
from typing import TYPE_CHECKING, Any

from azure.mgmt.recoveryservicessiterecovery import models
from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.registry import GROUP, Route
from tests.azuresim.siterecovery import show_infrastructure as show
from tests.azuresim.siterecovery.monitoring import VERSIONS
from tests.azuresim.siterecovery.refusals import bad, check_alive, in_use, not_found
from tests.azuresim.siterecovery.state import (
    CLASSIC,
    HYPERV,
    MODERN,
    Container,
    Fabric,
    Protectable,
    Task,
    Vault,
    fabric_id,
)
from tests.azuresim.siterecovery.vaults import VAULT

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery

FABRIC = VAULT + "/replicationFabrics/{fabric}"
PROVIDERS = FABRIC + "/replicationRecoveryServicesProviders"
CONTAINERS = FABRIC + "/replicationProtectionContainers"
CONTAINER = CONTAINERS + "/{container}"
MACHINES = CONTAINER + "/replicationProtectableItems"
SITE = GROUP + "/providers/Microsoft.OffAzure/serverSites/{site}"


class Infrastructure:
    """The calls on what stands in the source site."""

    def __init__(self, service: SiteRecovery) -> None:
        self.service = service

    def routes(self) -> list[Route]:
        off = ("2020-07-07", "2023-06-06")
        return [
            Route("GET", VAULT + "/replicationFabrics", self.fabrics, VERSIONS, items=models.Fabric),
            Route("GET", FABRIC, self.fabric, VERSIONS, reply=models.Fabric),
            Route("PUT", FABRIC, self.create_fabric, VERSIONS, models.FabricCreationInput, models.Fabric),
            Route("POST", FABRIC + "/remove", self.remove_fabric, VERSIONS),
            Route("DELETE", FABRIC, self.remove_fabric, VERSIONS),
            Route("POST", FABRIC + "/checkConsistency", self.check, VERSIONS, reply=models.Fabric),
            Route("GET", PROVIDERS, self.providers, VERSIONS, items=models.RecoveryServicesProvider),
            Route("GET", PROVIDERS + "/{provider}", self.provider, VERSIONS, reply=models.RecoveryServicesProvider),
            Route("POST", PROVIDERS + "/{provider}/refreshProvider", self.refresh, VERSIONS,
            reply=models.RecoveryServicesProvider),
            Route("GET", VAULT + "/replicationAppliances", self.appliances, VERSIONS,
            items=models.ReplicationAppliance),
            Route("GET", VAULT + "/replicationProtectionContainers", self.all_containers, VERSIONS,
            items=models.ProtectionContainer),
            Route("GET", CONTAINERS, self.containers, VERSIONS, items=models.ProtectionContainer),
            Route("GET", CONTAINER, self.container, VERSIONS, reply=models.ProtectionContainer),
            Route(
                "POST", CONTAINER + "/discoverProtectableItem", self.discover, VERSIONS,
                models.DiscoverProtectableItemRequest,
                models.ProtectionContainer,
            ),
            Route("GET", MACHINES, self.protectables, VERSIONS, items=models.ProtectableItem),
            Route("GET", MACHINES + "/{machine}", self.protectable, VERSIONS, reply=models.ProtectableItem),
            Route("GET", SITE + "/machines", self.site_machines, off),
            Route("GET", SITE + "/machines/{machine}", self.site_machine, off),
            Route("GET", SITE + "/runasaccounts", self.site_accounts, off),
        ]  # fmt: skip

    # fabrics

    def fabrics(self, call: Call) -> Reply:
        vault = self.service.find_vault(call)
        return Reply({"value": [show.listed(show.fabric(self.service, vault, one)) for one in vault.fabrics.values()]})

    def fabric(self, call: Call) -> Reply:
        vault, fabric = self.service.find_fabric(call)
        return Reply(show.fabric(self.service, vault, fabric))

    def create_fabric(self, call: Call) -> Later:
        """A fabric of the modernized experience, or (without details) a Hyper-V site [spec example]. A configuration
        server has no creation input: it registers itself [SDK]."""
        vault = self.service.find_vault(call)
        details = (call.body.get("properties") or {}).get("customDetails") or {}
        instance = details.get("instanceType", "FabricSpecificCreationInput")
        provider = {"InMageRcm": MODERN, "FabricSpecificCreationInput": HYPERV}.get(instance)
        if provider is None:
            raise bad(f"A fabric of type '{instance}' cannot be created here.", "properties.customDetails.instanceType")
        name = call.args["fabric"]
        made = Fabric(name, name, provider, str(uuid.uuid4()), str(uuid.uuid4()))
        made.site_id = details.get("physicalSiteId") or ""

        def finish() -> dict[str, Any]:
            container = Container(f"cloud_{made.guid}", name)
            made.containers[container.name.lower()] = container
            vault.fabrics[name.lower()] = made
            if made.site_id:
                self.service.offazure.setdefault(made.site_id.lower(), {})
            return show.fabric(self.service, vault, made)

        job = self.service.job(vault, "CreateSite", "Create a site", [], "Server", made.guid, name)
        return self.service.run(vault, job, fabric_id(vault, made), finish)

    def remove_fabric(self, call: Call) -> Later:
        """After its items, mappings and policies are gone [doc: "Manage the configuration server"]."""
        vault, fabric = self.service.find_fabric(call)
        if any(one.items for one in fabric.containers.values()):
            raise in_use(f"Machines of '{fabric.friendly}' are protected: disable their protection first.")
        if any(one.mappings for one in fabric.containers.values()):
            raise in_use(f"Policies are associated with '{fabric.friendly}': dissociate them first.")
        job = self.service.job(vault, "DeleteSite", "Delete the server", [], "Server", fabric.guid, fabric.friendly)
        return self.service.run(
            vault, job, fabric_id(vault, fabric), lambda: vault.fabrics.pop(fabric.name.lower(), None) and None
        )

    def check(self, call: Call) -> Later:
        vault, fabric = self.service.find_fabric(call)
        job = self.service.job(
            vault, "FabricCheckConsistency", "Check the fabric", [], "Server", fabric.guid, fabric.friendly
        )
        return self.service.run(vault, job, fabric_id(vault, fabric), lambda: show.fabric(self.service, vault, fabric))

    def appliances(self, call: Call) -> Reply:
        """[SDK: ReplicationAppliance of provider InMageRcm]; empty in a vault without an appliance [inf]."""
        vault = self.service.find_vault(call)
        found = [one for one in vault.fabrics.values() if one.provider == MODERN]
        return Reply({"value": [show.appliances(self.service, vault, found)] if found else []})

    # providers

    def providers(self, call: Call) -> Reply:
        vault, fabric = self.service.find_fabric(call)
        return Reply({"value": [show.provider(self.service, vault, fabric)]})

    def provider(self, call: Call) -> Reply:
        vault, fabric = self._provider(call)
        return Reply(show.provider(self.service, vault, fabric))

    def _provider(self, call: Call) -> tuple[Vault, Fabric]:
        vault, fabric = self.service.find_fabric(call)
        if call.args["provider"].lower() != fabric.dra.lower():
            raise not_found("recovery services provider", call.args["provider"])
        return vault, fabric

    def refresh(self, call: Call) -> Later:
        """What the configuration server knows comes at once (tutorial: instead of after 15 minutes); without a
        heartbeat the job fails [inf]."""
        vault, fabric = self._provider(call)

        def finish() -> dict[str, Any]:
            if fabric.heartbeat is not None:
                raise ArmError(400, "25012", f"'{fabric.friendly}' cannot be reached.")
            for account in fabric.accounts:
                account.visible_from = None
            return show.provider(self.service, vault, fabric)

        tasks = [Task("RefreshServerTask", "Refresh the server")]
        job = self.service.job(
            vault, "RefreshServer", "Refresh the server", tasks, "Server", fabric.guid, fabric.friendly
        )
        return self.service.run(
            vault, job, f"{fabric_id(vault, fabric)}/replicationRecoveryServicesProviders/{fabric.dra}", finish
        )

    # containers

    def all_containers(self, call: Call) -> Reply:
        vault = self.service.find_vault(call)
        kind = {"type": "Microsoft.RecoveryServices/vaults/replicationProtectionContainers"}  # [spec example _List]
        return Reply({"value": [{**show.container(vault, fabric, one), **kind} for fabric, one in vault.containers()]})

    def containers(self, call: Call) -> Reply:
        vault, fabric = self.service.find_fabric(call)
        return Reply({"value": [show.container(vault, fabric, one) for one in fabric.containers.values()]})

    def container(self, call: Call) -> Reply:
        vault, fabric, container = self.service.find_container(call)
        return Reply(show.container(vault, fabric, container))

    def discover(self, call: Call) -> Later:
        """Add a physical machine by its IP (tutorial Step 5, 9). Answers the container; the machine is in its list when
        the job is done. Nothing is asked of the machine itself: the Mobility service is pushed when it is protected."""
        vault, fabric, container = self.service.find_container(call)
        check_alive(vault, fabric.provider)
        if fabric.provider != CLASSIC:
            raise bad("Machines are added by address to a configuration server only.")
        given = call.body.get("properties") or {}
        name, ip, os_type = given.get("friendlyName"), given.get("ipAddress"), given.get("osType")
        for key, value in (("friendlyName", name), ("ipAddress", ip), ("osType", os_type)):
            if not value:
                raise bad(f"'{key}' is missing.", f"properties.{key}")
        if str(os_type).lower() not in ("windows", "linux"):
            raise bad(f"'{os_type}' is no operating system type: Windows or Linux.", "properties.osType")
        try:
            ipaddress.IPv4Address(
                str(ip)
            )  # IPv6 is not supported [doc: support matrix of VMware VMs and physical servers]
        except ValueError as error:
            raise bad(f"'{ip}' is no IPv4 address.", "properties.ipAddress") from error
        if any(one.ip == ip for one in container.protectables.values()):
            raise ArmError(
                409, "ProtectableItemAlreadyExists", f"A machine with the address {ip} is discovered already."
            )  # [inf]

        def finish() -> dict[str, Any]:
            if fabric.heartbeat is not None:
                raise ArmError(400, "25012", f"'{fabric.friendly}' cannot be reached.")
            made = Protectable(
                str(uuid.uuid4()), str(name), str(ip), str(os_type).upper(), self.service.world.at(str(ip))
            )
            container.protectables[made.name] = made
            return show.container(vault, fabric, container)

        tasks = [Task("DiscoverPhysicalMachineTask", "Add the physical server")]
        job = self.service.job(
            vault, "DiscoverPhysicalMachine", "Add physical server", tasks, "ProtectionEntity", str(ip), str(name)
        )
        return self.service.run(vault, job, show.container_path(vault, fabric, container), finish)

    def protectables(self, call: Call) -> Reply:
        vault, fabric, container = self.service.find_container(call)
        wanted = call.query.get("$filter", "").lower()
        found = [one for one in container.protectables.values() if "unprotected" not in wanted or not one.item_id]
        return Reply({"value": [show.protectable(vault, fabric, container, one) for one in found]})

    def protectable(self, call: Call) -> Reply:
        vault, fabric, container = self.service.find_container(call)
        found = container.protectables.get(call.args["machine"])
        if found is None:
            raise not_found("protectable item", call.args["machine"])
        return Reply(show.protectable(vault, fabric, container, found))

    # the appliance's site: no SDK, read by a plain request

    def site_machines(self, call: Call) -> Reply:
        """[spec Microsoft.OffAzure 2023-06-06, ServersController_ListByServerSiteResource]"""
        fabric, machines = self._site(call)
        return Reply({"value": [show.off_azure(fabric, one) for one in machines.values()]})

    def site_machine(self, call: Call) -> Reply:
        fabric, machines = self._site(call)
        if call.args["machine"] not in machines:
            raise not_found("server", call.args["machine"])
        return Reply(show.off_azure(fabric, machines[call.args["machine"]]))

    def site_accounts(self, call: Call) -> Reply:
        fabric, _ = self._site(call)
        return Reply({"value": [show.run_as(fabric, number) for number in range(len(fabric.accounts))]})

    def _site(self, call: Call) -> tuple[Fabric, dict[str, Any]]:
        site = f"{call.group_id}/providers/Microsoft.OffAzure/ServerSites/{call.args['site']}".lower()
        fabrics = [one for vault in self.service.vaults.values() for one in vault.fabrics.values()]
        for fabric in fabrics:
            if fabric.site_id.lower() == site:
                return fabric, self.service.offazure.get(site, {})
        raise not_found("server site", call.args["site"])
