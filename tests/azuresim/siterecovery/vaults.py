"""Recovery Services vaults: create, read, list, delete (azure-mgmt-recoveryservices)."""

from __future__ import annotations

import re
import uuid
from typing import TYPE_CHECKING, Any

from azure.mgmt.recoveryservices import models
from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.registry import GROUP, SUBSCRIPTION, Route
from tests.azuresim.arm.store import Resource
from tests.azuresim.siterecovery.refusals import in_use
from tests.azuresim.siterecovery.state import Vault

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery

VERSIONS = ("2023-08-01", "2024-04-01", "2025-02-01", "2026-11-01")
KIND = "Microsoft.RecoveryServices/vaults"
NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]{1,49}")
"""2-50 alphanumerics and hyphens, starts with a letter [learn.microsoft.com/azure/azure-resource-manager/management/
resource-name-rules, Microsoft.RecoveryServices]."""
TENANT = "72f988bf-0000-4000-8000-2d7cd011db47"
VAULT = GROUP + "/providers/Microsoft.RecoveryServices/vaults/{vault}"


class Vaults:
    """The calls on vaults themselves."""

    def __init__(self, service: SiteRecovery) -> None:
        self.service = service

    def routes(self) -> list[Route]:
        return [
            Route("PUT", VAULT, self.put, VERSIONS, models.Vault, models.Vault),
            Route("GET", VAULT, self.get, VERSIONS, reply=models.Vault),
            Route("DELETE", VAULT, self.delete, VERSIONS),
            Route(
                "GET",
                GROUP + "/providers/Microsoft.RecoveryServices/vaults",
                self.list_group,
                VERSIONS,
                items=models.Vault,
            ),
            Route(
                "GET",
                SUBSCRIPTION + "/providers/Microsoft.RecoveryServices/vaults",
                self.list_all,
                VERSIONS,
                items=models.Vault,
            ),
        ]

    def put(self, call: Call) -> Reply | Later:
        name, body = call.args["vault"], call.body
        if not NAME.fullmatch(name):
            raise ArmError(400, "InvalidResourceName",
            f"Resource name '{name}' is invalid. It must have 2 to 50 letters, digits "
                           "or hyphens and begin with a letter.")  # fmt: skip
        if not body.get("sku"):
            # The SDK marks it optional; the service does not [inf].
            raise ArmError(400, "InvalidParameter", "Required parameter 'sku' is missing (null).", target="sku")
        known = self.service.vaults.get(call.path.lower())
        if known is not None:
            if known.body["location"].lower() != body["location"].lower().replace(" ", ""):
                raise ArmError(
                    409, "InvalidResourceLocation",
                    f"The resource '{name}' already exists in location '{known.body['location']}' in "
                    f"resource group '{call.args['group']}'. A resource with the same name cannot be created in "
                    f"location '{body['location']}'. Please select a new resource name.",
                )  # fmt: skip
            self._take(known, {**body, "location": known.body["location"]})
            return Reply(render(known), 200)
        made = Vault(call.args["subscription"], call.args["group"], name, {})
        self._take(made, {**body, "location": call.sim.check_location(body["location"], KIND)})

        def finish() -> dict[str, Any]:
            made.body["properties"]["provisioningState"] = "Succeeded"
            return render(made)

        made.body["properties"]["provisioningState"] = "Provisioning"
        remember(self.service, made)
        return Later(finish, made.id, body=render(made), status=201, result_path="")

    def get(self, call: Call) -> Reply:
        return Reply(render(self.service.find_vault(call)))

    def delete(self, call: Call) -> Later:
        """Refused while something is registered or protected in it [doc: "Delete an Azure Recovery Services vault";
        code by that page]."""
        vault = self.service.find_vault(call)
        if vault.items() or vault.fabrics:
            raise ArmError(
                400, "ServiceResourceNotEmptyWithContainerDetails",
                "Recovery Services vault cannot be deleted as there are "
                f"existing resources within the vault: {', '.join(one.friendly for one in vault.fabrics.values())}.",
            )  # fmt: skip
        if vault.policies or vault.plans:
            raise in_use("The vault still has replication policies or recovery plans.")

        def finish() -> None:
            self.service.vaults.pop(vault.id.lower(), None)
            call.sim.store.remove(vault.id)

        return Later(finish, vault.id)

    def list_group(self, call: Call) -> Reply:
        return Reply(
            {"value": [render(one) for one in self._mine(call) if one.group.lower() == call.args["group"].lower()]}
        )

    def list_all(self, call: Call) -> Reply:
        return Reply({"value": [render(one) for one in self._mine(call)]})

    def _mine(self, call: Call) -> list[Vault]:
        return [one for one in self.service.vaults.values() if one.subscription == call.args["subscription"]]

    @staticmethod
    def _take(vault: Vault, body: dict[str, Any]) -> None:
        """Take what a request sets. Sku "Standard" is shown as RS0, tier Standard; a system-assigned identity gets its
        ids [spec example PUTVault_WithMonitoringSettings]."""
        known = ("location", "tags", "identity", "properties")
        vault.body.update({key: body[key] for key in known if body.get(key) is not None})
        vault.body["sku"] = {"name": "RS0", "tier": "Standard"}
        vault.body.setdefault("properties", {})
        if "systemassigned" in str((vault.body.get("identity") or {}).get("type", "")).lower():
            vault.body["identity"] |= {"tenantId": TENANT, "principalId": str(uuid.uuid5(uuid.NAMESPACE_OID, vault.id))}


def remember(service: SiteRecovery, vault: Vault) -> None:
    """Make the vault known, to its own calls and to lists of resources."""
    service.vaults[vault.id.lower()] = vault
    service.sim.store.put(Resource(vault.id, KIND, render(vault)))


def render(vault: Vault) -> dict[str, Any]:
    """A Vault of the SDK. `backupStorageVersion` and others that Site Recovery does not use are left out."""
    properties = {"provisioningState": "Succeeded", "publicNetworkAccess": "Enabled", **vault.body["properties"]}
    return {
        "id": vault.id, "name": vault.name, "type": KIND, "etag": f'W/"datetime-{vault.name}"', **vault.body,
        "properties": properties,
    }  # fmt: skip
