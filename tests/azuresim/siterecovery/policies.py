"""Replication policies, and their association with protection containers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azure.mgmt.recoveryservicessiterecovery import models
from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.registry import Route
from tests.azuresim.siterecovery.infrastructure import CONTAINER
from tests.azuresim.siterecovery.monitoring import VERSIONS
from tests.azuresim.siterecovery.refusals import bad, in_use, not_found
from tests.azuresim.siterecovery.state import (
    AZURE,
    CLASSIC,
    HYPERV,
    MODERN,
    Container,
    Fabric,
    Mapping,
    Policy,
    Task,
    Vault,
    container_id,
    last,
)
from tests.azuresim.siterecovery.vaults import VAULT

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery

POLICY = VAULT + "/replicationPolicies/{policy}"
MAPPINGS = CONTAINER + "/replicationProtectionContainerMappings"
MAPPING = MAPPINGS + "/{mapping}"
RETENTION_MAX = 15 * 24 * 60
"""Minutes; 15 days for managed disks [doc: support matrix of VMware VMs and physical servers]."""
APP_MAX = 12 * 60
"""Minutes; application-consistent points every 1 to 12 hours, or off [doc: support matrix of VMware VMs and physical
servers]."""


class Policies:
    """The calls on policies and mappings."""

    def __init__(self, service: SiteRecovery) -> None:
        self.service = service

    def routes(self) -> list[Route]:
        return [
            Route("GET", VAULT + "/replicationPolicies", self.all, VERSIONS, items=models.Policy),
            Route("GET", POLICY, self.get, VERSIONS, reply=models.Policy),
            Route("PUT", POLICY, self.create, VERSIONS, models.CreatePolicyInput, models.Policy),
            Route("PATCH", POLICY, self.update, VERSIONS, models.UpdatePolicyInput, models.Policy),
            Route("DELETE", POLICY, self.delete, VERSIONS),
            Route("GET", VAULT + "/replicationProtectionContainerMappings", self.all_mappings, VERSIONS,
            items=models.ProtectionContainerMapping),
            Route("GET", MAPPINGS, self.mappings, VERSIONS, items=models.ProtectionContainerMapping),
            Route("GET", MAPPING, self.mapping, VERSIONS, reply=models.ProtectionContainerMapping),
            Route(
                "PUT", MAPPING, self.map, VERSIONS, models.CreateProtectionContainerMappingInput,
                models.ProtectionContainerMapping
            ),
            Route("POST", MAPPING + "/remove", self.unmap, VERSIONS, models.RemoveProtectionContainerMappingInput),
            Route("DELETE", MAPPING, self.unmap, VERSIONS),
        ]  # fmt: skip

    # policies

    def all(self, call: Call) -> Reply:
        vault = self.service.find_vault(call)
        return Reply({"value": [render(vault, one) for one in vault.policies.values()]})

    def get(self, call: Call) -> Reply:
        vault = self.service.find_vault(call)
        return Reply(render(vault, self._policy(vault, call.args["policy"])))

    def _policy(self, vault: Vault, name: str) -> Policy:
        found = vault.policies.get(name.lower())
        if found is None:
            raise not_found("replication policy", name)
        return found

    def create(self, call: Call) -> Later:
        vault, name = self.service.find_vault(call), call.args["policy"]
        given = (call.body.get("properties") or {}).get("providerSpecificInput")
        if not given:
            raise bad("The provider's settings are missing.", "properties.providerSpecificInput")
        provider = given.get("instanceType")
        if provider not in (CLASSIC, MODERN, HYPERV):
            raise bad(f"'{provider}' is not simulated.", "properties.providerSpecificInput.instanceType")
        if provider == CLASSIC and not vault.classic:
            # New vaults are modernized-only since 2023-03-15 [doc: classic experience, deprecation]; how the service
            # words it is [inf].
            raise ArmError(400, "ClassicExperienceNotSupported", "The vault supports the modernized experience only.")
        if name.lower() in vault.policies:
            raise ArmError(409, "PolicyAlreadyExists", f"A replication policy named '{name}' exists.")  # [inf]
        policy = Policy(name, provider, _details(given))
        # Names: [doc: "Set up disaster recovery of VMware VMs to Azure with PowerShell"].
        tasks = [
            Task("AddProtectionProfilePrerequisites", "Prerequisites check for creating the replication policy"),
            Task("AddProtectionProfileTask", "Creating the replication policy"),
        ]
        job = self.service.job(
            vault, "AddProtectionProfile", "Create replication policy", tasks, "ProtectionProfile", name, name
        )

        def finish() -> dict[str, Any]:
            check(policy)
            vault.policies[name.lower()] = policy
            return render(vault, policy)

        return self.service.run(vault, job, policy_id(vault, name), finish)

    def update(self, call: Call) -> Later:
        vault = self.service.find_vault(call)
        policy = self._policy(vault, call.args["policy"])
        given = (call.body.get("properties") or {}).get("replicationProviderSettings") or {}
        if given.get("instanceType", policy.provider) != policy.provider:
            raise bad("The policy is for another provider.", "properties.replicationProviderSettings.instanceType")
        job = self.service.job(
            vault,
            "UpdateProtectionProfile",
            "Update replication policy",
            [],
            "ProtectionProfile",
            policy.name,
            policy.name,
        )

        def finish() -> dict[str, Any]:
            changed = Policy(policy.name, policy.provider, {**policy.settings, **_details(given)})
            check(changed)
            policy.settings = changed.settings
            return render(vault, policy)

        return self.service.run(vault, job, policy_id(vault, policy.name), finish)

    def delete(self, call: Call) -> Later:
        """Refused while it is associated [doc: "Manage the configuration server": items, associations, then
        policies]."""
        vault = self.service.find_vault(call)
        policy = self._policy(vault, call.args["policy"])
        for _, container in vault.containers():
            if any(last(one.policy_id).lower() == policy.name.lower() for one in container.mappings.values()):
                raise in_use(
                    f"The policy '{policy.name}' is associated with '{container.friendly}': dissociate it first."
                )
        job = self.service.job(
            vault,
            "RemoveProtectionProfile",
            "Delete replication policy",
            [],
            "ProtectionProfile",
            policy.name,
            policy.name,
        )
        return self.service.run(
            vault, job, policy_id(vault, policy.name), lambda: vault.policies.pop(policy.name.lower(), None) and None
        )

    # mappings

    def all_mappings(self, call: Call) -> Reply:
        vault = self.service.find_vault(call)
        return Reply({"value": [
            render_mapping(vault, fabric, container, one) for fabric, container in vault.containers()
            for one in container.mappings.values()
        ]})  # fmt: skip

    def mappings(self, call: Call) -> Reply:
        vault, fabric, container = self.service.find_container(call)
        return Reply({"value": [render_mapping(vault, fabric, container, one) for one in container.mappings.values()]})

    def _mapping(self, call: Call) -> tuple[Vault, Fabric, Container, Mapping]:
        vault, fabric, container = self.service.find_container(call)
        found = container.mappings.get(call.args["mapping"].lower())
        if found is None:
            raise not_found("protection container mapping", call.args["mapping"])
        return vault, fabric, container, found

    def mapping(self, call: Call) -> Reply:
        return Reply(render_mapping(*self._mapping(call)))

    def map(self, call: Call) -> Later:
        vault, fabric, container = self.service.find_container(call)
        given = call.body.get("properties") or {}
        policy = vault.policies.get(last(given.get("policyId") or "").lower())
        if policy is None:
            raise not_found("replication policy", given.get("policyId") or "")
        if policy.provider != fabric.provider:
            raise bad(
                f"The policy is for {policy.provider}, the container for {fabric.provider}.", "properties.policyId"
            )
        if given.get("targetProtectionContainerId") != AZURE:
            # To Azure the target is this word [PS; spec example _Create].
            raise bad(f"The target must be '{AZURE}'.", "properties.targetProtectionContainerId")
        name = call.args["mapping"]
        instance = (given.get("providerSpecificInput") or {}).get("instanceType", "")
        made = Mapping(name, policy_id(vault, policy.name), instance)
        job = self.service.job(
            vault,
            "AssociateProtectionProfile",
            "Associate replication policy",
            [],
            "ProtectionProfile",
            policy.name,
            policy.name,
        )
        job.affected = {"PrimaryCloudId": container.name, "PrimaryCloudName": container.friendly}

        def finish() -> dict[str, Any]:
            container.mappings[name.lower()] = made
            return render_mapping(vault, fabric, container, made)

        return self.service.run(
            vault,
            job,
            f"{container_id(vault, fabric, container)}/replicationProtectionContainerMappings/{name}",
            finish,
        )

    def unmap(self, call: Call) -> Later:
        vault, fabric, container, mapping = self._mapping(call)
        if any(last(one.policy_id).lower() == last(mapping.policy_id).lower() for one in container.items.values()):
            raise in_use(
                f"Machines are protected with the policy '{last(mapping.policy_id)}': disable their protection first."
            )
        job = self.service.job(
            vault, "DissociateProtectionProfile", "Dissociate replication policy", [], "ProtectionProfile",
            last(mapping.policy_id), last(mapping.policy_id),
        )  # fmt: skip
        return self.service.run(
            vault, job,
            f"{container_id(vault, fabric, container)}/replicationProtectionContainerMappings/{mapping.name}",
            lambda: container.mappings.pop(mapping.name.lower(), None) and None,
        )  # fmt: skip


def policy_id(vault: Vault, name: str) -> str:
    return f"{vault.sr_id}/replicationPolicies/{name}"


def _details(given: dict[str, Any]) -> dict[str, Any]:
    """The provider's input as the policy shows it: `multiVmSyncStatus` Enable becomes Enabled [RECORDED]."""
    found = {key: value for key, value in given.items() if value is not None and key != "instanceType"}
    if "multiVmSyncStatus" in found:
        found["multiVmSyncStatus"] = {"enable": "Enabled", "disable": "Disabled"}[
            str(found["multiVmSyncStatus"]).lower()
        ]
    return found


def check(policy: Policy) -> None:
    """Refuse numbers that the service refuses at the end of the job: 150261 "Replication policy creation failed."
    [issue 7479 of hashicorp/terraform-provider-azurerm, for retention beyond the limit]."""
    wrong = policy.retention_minutes < 0 or policy.retention_minutes > RETENTION_MAX
    app = policy.app_minutes
    if app and (app > APP_MAX or app < 60 or app > policy.retention_minutes):
        wrong = True
    if wrong:
        raise ArmError(400, "150261", "Replication policy creation failed.")


def render(vault: Vault, policy: Policy) -> dict[str, Any]:
    """A Policy of the SDK [spec example ReplicationPolicies_Get]."""
    return {
        "id": policy_id(vault, policy.name), "name": policy.name,
        "type": "Microsoft.RecoveryServices/vaults/replicationPolicies",
        "properties": {
            "friendlyName": policy.name, "providerSpecificDetails": {"instanceType": policy.provider,
            **policy.settings},
        },
    }  # fmt: skip


def render_mapping(vault: Vault, fabric: Fabric, container: Container, mapping: Mapping) -> dict[str, Any]:
    """[spec example ReplicationProtectionContainerMappings_Create]; agents of the modernized provider are upgraded by
    default [inf]."""
    kind = "replicationProtectionContainerMappings"
    properties: dict[str, Any] = {
        "health": "Normal", "healthErrorDetails": [], "policyFriendlyName": last(mapping.policy_id),
        "policyId": mapping.policy_id, "sourceFabricFriendlyName": fabric.friendly, "state": "Paired",
        "sourceProtectionContainerFriendlyName": container.friendly, "targetFabricFriendlyName": AZURE,
        "targetProtectionContainerFriendlyName": AZURE, "targetProtectionContainerId": AZURE,
    }  # fmt: skip
    if fabric.provider == MODERN:
        properties["providerSpecificDetails"] = {"instanceType": MODERN, "enableAgentAutoUpgrade": "true"}
    return {
        "id": f"{container_id(vault, fabric, container)}/{kind}/{mapping.name}", "name": mapping.name,
        "type": f"Microsoft.RecoveryServices/vaults/replicationFabrics/replicationProtectionContainers/{kind}",
        "properties": properties,
    }  # fmt: skip
