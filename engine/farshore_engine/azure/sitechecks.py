"""What a subscription must have before anything is recovered to it: login, group, providers, rights, accounts."""

from __future__ import annotations

import os

from farshore_engine.azure.cloud import Cloud
from farshore_engine.azure.permissions import DRILLS, NEEDED, lacking
from farshore_engine.azure.place import Place
from farshore_engine.contract.faults import StopFault

PROVIDERS = ("Microsoft.Compute", "Microsoft.Network", "Microsoft.Storage")


def states_of(cloud: Cloud) -> dict[str, str]:
    """Return how far each resource provider is registered, by its name in lower case."""
    found = cloud.all("list resource providers", cloud.resources.providers.list)
    return {str(one.namespace).lower(): str(one.registration_state) for one in found}


def proxy_text() -> str:
    """Tell whether the SDKs go through a proxy; nothing where they do not."""
    proxy = os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy")
    return " through the HTTPS proxy of this host" if proxy else ""


def registered(states: dict[str, str]) -> str:
    """Say that all providers are registered; raises StopFault."""
    missing = [name for name in PROVIDERS if states.get(name.lower()) not in ("Registered", "Registering")]
    if missing:
        raise StopFault(
            f"the subscription has not registered {', '.join(missing)}",
            f"Register them: {'; '.join(f'az provider register --namespace {name}' for name in missing)}",
            reason="ProviderNotRegistered",
        )
    return f"{', '.join(PROVIDERS)} are registered"


def group_there(cloud: Cloud, place: Place) -> str:
    """Say where the resource group is; raises StopFault."""
    found = cloud.find(
        f"look for resource group {place.group}", lambda: cloud.resources.resource_groups.get(place.group)
    )
    if found is None:
        raise StopFault(
            f"there is no resource group {place.group} in the subscription",
            "Create it, or correct resourceGroup of the site or of the target",
            reason="ResourceGroupNotFound",
        )
    return f"{place.group} is there, in {found.location}"


def permitted(cloud: Cloud, place: Place) -> str:
    """Say that the principal may do all that recovery does there; raises StopFault with what it may not."""
    given = cloud.all(
        f"ask for the rights in {place.group}",
        lambda: cloud.authorization.permissions.list_for_resource_group(place.group),
    )
    needed = (*NEEDED, *DRILLS) if place.target.isolated else NEEDED
    missing = lacking(given, needed)
    if missing:
        raise StopFault(
            f"the principal may not, in resource group {place.group}: {', '.join(missing)}",
            "Give it a role with these actions there, such as Contributor, or a custom role",
            reason="AccessRefused",
        )
    return f"the principal may do everything that is needed in {place.group}"


def accounts(cloud: Cloud) -> str:
    """Name storage accounts of the region."""
    found = cloud.all("list storage accounts", cloud.storage.storage_accounts.list)
    here = [str(one.name) for one in found if str(one.location).lower() == cloud.site.region.lower()]
    return f"of the region: {', '.join(sorted(here)[:10])}" if here else "none in the region; disks need none"
