"""Reads a vault: every question that the driver asks of Site Recovery. Nothing here changes anything."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest

from farshore_operator.engines.siterecovery import planshape, translate
from farshore_operator.engines.siterecovery.client import VaultClient
from farshore_operator.engines.siterecovery.facts import (
    Appliance,
    Item,
    Job,
    PlanFacts,
    Points,
    PolicyFacts,
    Problem,
    Protectable,
    Scenario,
)
from farshore_operator.engines.siterecovery.faults import NotThere, fault_of, translated
from farshore_operator.engines.siterecovery.naming import last

SITE_VERSION = "2023-06-06"


def vault_exists(client: VaultClient) -> bool:
    """Tell whether the Recovery Services vault is there and finished."""
    try:
        with translated(f"reading vault {client.settings.vault}"):
            found = client.vaults.vaults.get(*client.at)
    except NotThere:
        return False
    state = found.properties.provisioning_state if found.properties is not None else None
    return (state or "Succeeded") == "Succeeded"


def appliances(client: VaultClient) -> tuple[Appliance, ...]:
    """Return the configuration servers and appliances that are registered with the vault."""
    with translated(f"listing the configuration servers and appliances of vault {client.settings.vault}"):
        found = []
        for listed in client.site.replication_fabrics.list(*client.at):
            details = listed.properties.custom_details
            if details is None or details.instance_type not in translate.FABRICS:
                continue
            # A list leaves the parts of an appliance out.
            fabric = client.site.replication_fabrics.get(*client.at, listed.name)
            containers = client.site.replication_protection_containers.list_by_replication_fabrics(
                *client.at, listed.name
            )
            container = next((one.name for one in containers), "")
            providers = client.site.replication_recovery_services_providers.list_by_replication_fabrics(
                *client.at, listed.name
            )
            found.append(translate.appliance(fabric, container, list(providers)))
        return tuple(found)


def items(client: VaultClient) -> tuple[Item, ...]:
    """Return the replicated items of the vault, as a list shows them."""
    with translated(f"listing the replicated items of vault {client.settings.vault}"):
        listed = [translate.item(one) for one in client.site.replication_protected_items.list(*client.at)]
    return tuple(one for one in listed if one is not None)


def item(client: VaultClient, listed: Item) -> Item | None:
    """Return one replicated item with all its parts, None if it is gone."""
    try:
        with translated(f"reading replicated item {listed.friendly}"):
            found = client.site.replication_protected_items.get(
                *client.at, listed.fabric, listed.container, listed.name
            )
    except NotThere:
        return None
    return translate.item(found)


def policies(client: VaultClient, of: Appliance) -> dict[str, PolicyFacts]:
    """Return the policies of the vault by name, and to which of them the appliance's container is mapped."""
    with translated(f"listing the policies of vault {client.settings.vault}"):
        found = list(client.site.replication_policies.list(*client.at))
        mapped = client.site.replication_protection_container_mappings.list_by_replication_protection_containers(
            *client.at, of.name, of.container
        )
        paired = {last(one.properties.policy_id or "").lower(): one.properties.state or "Paired" for one in mapped}
    return {
        one.name: PolicyFacts(
            one.id,
            one.name,
            frozenset({of.container}) if paired.get(one.name.lower()) == "Paired" else frozenset(),
            *translate.policy_minutes(one),
        )
        for one in found
    }


def plans(client: VaultClient) -> dict[str, PlanFacts]:
    """Return the recovery plans of the vault by name in lower case, as Azure compares them."""
    with translated(f"listing the recovery plans of vault {client.settings.vault}"):
        found = [planshape.facts(one) for one in client.site.replication_recovery_plans.list(*client.at)]
    return {one.name.lower(): one for one in found}


def job(client: VaultClient, name: str) -> Job | None:
    """Return a job, None if Site Recovery does not know it any more."""
    try:
        with translated(f"reading job {name}"):
            return translate.job(client.site.replication_jobs.get(*client.at, name))
    except NotThere:
        return None


def unfinished(client: VaultClient, subject: str) -> str:
    """Return the job that is at work on a policy of this name, empty if there is none: somebody has begun it."""
    with translated(f"listing the jobs of vault {client.settings.vault}"):
        for one in client.site.replication_jobs.list(*client.at):
            properties = one.properties
            if (properties.target_object_name or "") == subject and not translate.job(one).over:
                return str(one.name)
    return ""


def points(client: VaultClient, of: Item, *, epoch: int, writer: str) -> Points:
    """Return the recovery points of an item, oldest first."""
    size = sum(disk.size_bytes for disk in of.disks)
    with translated(f"listing the recovery points of {of.friendly}"):
        found = list(
            client.site.recovery_points.list_by_replication_protected_items(
                *client.at, of.fabric, of.container, of.name
            )
        )
    made = [translate.point(one, epoch=epoch, writer=writer, disk_bytes=size) for one in found]
    ids = {one.name: one.id for one in found}
    return Points(tuple(sorted(made, key=lambda one: (one.time, one.name))), ids)


def protectable(client: VaultClient, at: Appliance, address: str) -> Protectable | None:
    """Return the discovered machine with an IP address, None if it was not discovered yet."""
    if at.scenario is Scenario.MODERN:
        return _at_site(client, at, address)
    with translated(f"listing the machines that {at.friendly} knows"):
        for one in client.site.replication_protectable_items.list_by_replication_protection_containers(
            *client.at, at.name, at.container
        ):
            details = one.properties.custom_details
            if details is not None and getattr(details, "ip_address", None) == address:
                errors = one.properties.protection_readiness_errors or ()
                return Protectable(
                    one.id,
                    one.properties.friendly_name or one.name,
                    last(one.properties.replication_protected_item_id or ""),
                    tuple(Problem("NotReady", text) for text in errors),
                )
    return None


def _at_site(client: VaultClient, at: Appliance, address: str) -> Protectable | None:
    """Look a machine up at the appliance's discovery site, which another provider serves (Microsoft.OffAzure)."""
    for machine in _machines(client, f"{at.site_id}/machines?api-version={SITE_VERSION}", at):
        properties = machine.get("properties", {})
        adapters = properties.get("networkAdapters") or ()
        known = {one for adapter in adapters for one in adapter.get("ipAddressList") or ()}
        if address in known and not properties.get("isDeleted"):
            return Protectable(machine["id"], properties.get("displayName") or machine["name"])
    return None


def _machines(client: VaultClient, path: str, at: Appliance) -> Iterator[dict[str, Any]]:
    doing = f"listing the machines that appliance {at.friendly} discovered"
    while path:
        with translated(doing):
            answer = client.site.send_request(HttpRequest("GET", path))
        if answer.status_code != 200:
            raise fault_of(HttpResponseError(response=answer), doing)
        body = answer.json()
        yield from body.get("value", ())
        path = body.get("nextLink") or ""
