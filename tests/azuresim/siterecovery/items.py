"""Protected machines: read, change, repair, disable, purge, recovery points. Enabling is in enable, failover in
failover."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azure.mgmt.recoveryservicessiterecovery import models
from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.registry import Route
from tests.azuresim.siterecovery import show_items as show
from tests.azuresim.siterecovery.change import apply_update
from tests.azuresim.siterecovery.enable import Enable
from tests.azuresim.siterecovery.failover import Failover
from tests.azuresim.siterecovery.infrastructure import CONTAINER
from tests.azuresim.siterecovery.landing import Landing
from tests.azuresim.siterecovery.monitoring import VERSIONS
from tests.azuresim.siterecovery.refusals import bad, not_allowed, not_found
from tests.azuresim.siterecovery.rules import allowed
from tests.azuresim.siterecovery.state import CLASSIC, Item, Phase, Task
from tests.azuresim.siterecovery.switch import Switch
from tests.azuresim.siterecovery.vaults import VAULT

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery

ITEMS = CONTAINER + "/replicationProtectedItems"
ITEM = ITEMS + "/{item}"
NO_INPUT = "DisableProtectionProviderSpecificInput"
"""The base class's name as instanceType [spec example ReplicationProtectedItems_Delete]."""


class Items:
    """The calls on replication protected items."""

    def __init__(self, service: SiteRecovery) -> None:
        self.service = service
        self.failover = Failover(service, Landing(service.sim))
        self.parts: tuple[Any, ...] = (
            Enable(service),
            self.failover,
            Switch(service),
        )

    def routes(self) -> list[Route]:
        item = models.ReplicationProtectedItem
        update = models.UpdateReplicationProtectedItemInput
        own = [
            Route("GET", VAULT + "/replicationProtectedItems", self.of_vault, VERSIONS,
            items=models.ReplicationProtectedItem),
            Route("GET", ITEMS, self.of_container, VERSIONS, items=models.ReplicationProtectedItem),
            Route("GET", ITEM, self.get, VERSIONS, reply=item),
            Route("PATCH", ITEM, self.update, VERSIONS, update, item),
            Route("POST", ITEM + "/remove", self.disable, VERSIONS, models.DisableProtectionInput),
            Route("DELETE", ITEM, self.purge, VERSIONS),
            Route("POST", ITEM + "/repairReplication", self.repair, VERSIONS, reply=item),
            Route("POST", ITEM + "/resolveHealthErrors", self.resolve, VERSIONS, models.ResolveHealthInput, item),
            Route("POST", ITEM + "/updateMobilityService", self.update_agent, VERSIONS,
            models.UpdateMobilityServiceRequest, item),
            Route("GET", ITEM + "/recoveryPoints", self.points, VERSIONS, items=models.RecoveryPoint),
            Route("GET", ITEM + "/recoveryPoints/{point}", self.point, VERSIONS, reply=models.RecoveryPoint),
            Route("GET", ITEM + "/targetComputeSizes", self.sizes, VERSIONS, items=models.TargetComputeSize),
            Route("GET", VAULT + "/replicationSupportedOperatingSystems", self.systems, VERSIONS,
            reply=models.SupportedOperatingSystems),
        ]  # fmt: skip
        return [*own, *(route for part in self.parts for route in part.routes(ITEM))]

    # reading

    def _seen(self, item: Item) -> dict[str, Any]:
        self.service.look(item)
        return show.item(self.service, item)

    def of_vault(self, call: Call) -> Reply:
        vault = self.service.find_vault(call)
        return Reply({"value": [show.listed(self._seen(one)) for one in vault.items()]})

    def of_container(self, call: Call) -> Reply:
        _, _, container = self.service.find_container(call)
        return Reply({"value": [show.listed(self._seen(one)) for one in list(container.items.values())]})

    def get(self, call: Call) -> Reply:
        return Reply(self._seen(self.service.find_item(call)))

    def points(self, call: Call) -> Reply:
        item = self.service.find_item(call)
        self.service.grow(item)
        return Reply({"value": [show.point(item, one) for one in item.points]})

    def point(self, call: Call) -> Reply:
        item = self.service.find_item(call)
        for one in item.points:
            if one.id == call.args["point"]:
                return Reply(show.point(item, one))
        raise not_found("recovery point", call.args["point"])

    def sizes(self, call: Call) -> Reply:
        """Sizes that the machine fits in [SDK: TargetComputeSize]; the list of the region is [inf]."""
        item = self.service.find_item(call)
        return Reply({"value": [show.size(item, self.service.sim.region, one) for one in show.SIZES]})

    def systems(self, call: Call) -> Reply:
        self.service.find_vault(call)
        return Reply(show.systems(call.path, call.query.get("instanceType") or CLASSIC))

    # changing

    def check(self, item: Item, operation: str) -> None:
        found = allowed(item)
        if operation not in found:
            raise not_allowed(item, operation, found)

    def update(self, call: Call) -> Later:
        """Compute and network settings of the target (tutorial: Verify machine properties)."""
        item = self.service.find_item(call)
        if item.busy:
            self.check(item, "Update")
        change = apply_update(self.service, item, call.body.get("properties") or {})
        tasks = [Task("UpdateVmPropertiesTask", "Update the virtual machine properties")]
        job = self._job(item, "UpdateVmProperties", "Update the virtual machine", tasks)

        def finish() -> dict[str, Any]:
            change()
            return show.item(self.service, item)

        return self.service.run(item.vault, job, item.id, finish)

    def _job(self, item: Item, scenario: str, friendly: str, tasks: list[Task]) -> Any:
        job = self.service.job(item.vault, scenario, friendly, tasks, "ProtectionEntity", item.name, item.friendly)
        job.affected = show.affected(item)
        return job

    def repair(self, call: Call) -> Later:
        """Resynchronise. Whether it is listed in allowedOperations of InMage providers is not known: taken in every
        state that replicates [inf]."""
        item = self.service.find_item(call)
        if item.busy or item.phase is not Phase.PROTECTED:
            self.check(item, "RepairReplication")
        job = self._job(item, "RepairReplication", "Resynchronize the virtual machine", [])

        def finish() -> dict[str, Any]:
            item.resync = True
            self.service.begin_sync(item)
            return show.item(self.service, item)

        return self.service.run(item.vault, job, item.id, finish)

    def resolve(self, call: Call) -> Later:
        """The customer says that errors are resolved; they come back while their cause is there [inf]."""
        item = self.service.find_item(call)
        wanted = [
            one.get("healthErrorId") or "" for one in (call.body.get("properties") or {}).get("healthErrors") or []
        ]
        if not wanted:
            raise bad("No health errors are named.", "properties.healthErrors")
        job = self._job(item, "ResolveHealthErrors", "Resolve health errors", [])
        return self.service.run(item.vault, job, item.id, lambda: show.item(self.service, item))

    def update_agent(self, call: Call) -> Later:
        item = self.service.find_item(call)
        account = (call.body.get("properties") or {}).get("runAsAccountId")
        if item.provider == CLASSIC and account not in [one.id for one in item.fabric.accounts]:
            raise bad(f"There is no run-as account '{account}'.", "properties.runAsAccountId")
        job = self._job(item, "UpdateMobilityService", "Update Mobility Service", [])
        return self.service.run(item.vault, job, item.id, lambda: show.item(self.service, item))

    def disable(self, call: Call) -> Later:
        """Disable protection: the machine is forgotten, its points go, recovered VMs stay [doc: "Remove servers and
        disable protection"]; a test failover must be cleaned up before."""
        item = self.service.find_item(call)
        given = (call.body.get("properties") or {}).get("replicationProviderInput") or {}
        if given.get("instanceType", NO_INPUT) not in (NO_INPUT, item.provider, "InMage"):
            raise bad("The input is for another provider.", "properties.replicationProviderInput.instanceType")
        self.check(item, "DisableProtection")
        before, item.phase, item.busy = item.phase, Phase.DISABLING, True
        tasks = [
            Task("DisableProtectionOnPrimary", "Disable protection on the server"),
            Task("RemoveReplica", "Remove replication data"),
        ]
        job = item.job = self._job(item, "DisableDr", "Disable protection", tasks)

        def failed(_: Exception) -> None:
            item.phase, item.busy = before, False

        return self.service.run(item.vault, job, item.id, lambda: self.service.forget(item), failed)

    def purge(self, call: Call) -> Later:
        """Forget it by force, also while something is under way; nothing is cleaned up [doc: "Remove servers and
        disable protection"]."""
        item = self.service.find_item(call)
        job = self._job(item, "PurgeVm", "Force delete the virtual machine", [])

        def finish() -> None:
            running, item.job = item.job, None
            if running is not None and running.state == "InProgress":
                running.state = "Cancelling"
                self.service.abandon(item.vault, running)
            self.service.forget(item)

        return self.service.run(item.vault, job, item.id, finish)
