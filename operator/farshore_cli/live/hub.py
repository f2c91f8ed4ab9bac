"""What a site at an Azure Stack Hub tells by reading."""

from __future__ import annotations

from farshore_cli.live.items import WRITES, Answer, Item, cannot_tell, confirmed, contradicted
from farshore_engine.azurestack.metadata import discover
from farshore_engine.azurestack.profile import NAME, VERSIONS
from farshore_engine.azurestack.resourcemanager import ResourceManager
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.site import IdentitySystem

LISTS = ("virtualMachines", "disks", "availabilitySets"), ("networkInterfaces", "virtualNetworks"), ("storageAccounts",)
PROVIDERS = ("Microsoft.Compute", "Microsoft.Network", "Microsoft.Storage")


def metadata(manager: ResourceManager) -> Answer:
    """Read what the Hub says of itself."""
    try:
        found = discover(manager.site)
    except StopFault as fault:
        return contradicted(fault.message)
    how = manager.site.identity_system
    return confirmed(f"the metadata names a login for {how} at {found.authority} and an audience")


def versions(manager: ResourceManager) -> Answer:
    """List each type in the resource group, with the profile's version."""
    group = f"/subscriptions/{manager.site.subscription}/resourceGroups/{manager.site.resource_group}"
    refused, taken = [], []
    for provider, kinds in zip(PROVIDERS, LISTS, strict=True):
        for kind in kinds:
            name = f"{provider}/{kind}"
            try:
                next(iter(manager.all(f"{group}/providers/{name}")), None)
                taken.append(kind)
            except StopFault as fault:
                refused.append(f"{name} {VERSIONS[name.lower()]}: {fault.reason}")
    if refused:
        return contradicted(f"the Hub refuses {', '.join(refused)}")
    return confirmed(f"the Hub takes the versions of {NAME} for {', '.join(taken)}")


def ad_fs(manager: ResourceManager) -> Answer:
    """Log in with a secret, where the Hub's identities are those of AD FS."""
    site = manager.site
    if site.identity_system is not IdentitySystem.ADFS:
        return cannot_tell(f"the site's identity system is {site.identity_system}")
    if site.credential is None or site.credential.client_secret is None:
        return cannot_tell("the site logs in with a certificate")
    manager.find(f"/subscriptions/{site.subscription}")
    return confirmed("a confidential client of AD FS logged in with its secret")


ITEMS: tuple[Item[ResourceManager], ...] = (
    Item("Metadata", metadata),
    Item("Versions", versions),
    Item("Later properties", why=WRITES),
    Item("Power and tags", why=WRITES),
    Item("Unmanaged disks", why=WRITES),
    Item("AD FS", ad_fs),
    Item("Controllers", why="the machine itself would have to be looked into"),
)
