"""What a machine needs at a site in Azure before it can be recovered there: everything that is missing, at once.

Nothing is changed. What cannot be asked is told as that, with what Azure said.
"""

from __future__ import annotations

from farshore_engine.azure.cloud import PUBLIC, Cloud
from farshore_engine.azure.machinechecks import (
    Wish,
    availability_fits,
    boots,
    disk_type_offered,
    name_free,
    quota_left,
    size_there,
)
from farshore_engine.azure.networkchecks import addresses_free, network_fits
from farshore_engine.azure.paths import network_path
from farshore_engine.azure.place import Place
from farshore_engine.azure.reach import SSH, ways_in
from farshore_engine.azure.sitechecks import accounts, group_there, permitted, proxy_text, registered, states_of
from farshore_engine.checklist import Checklist
from farshore_engine.contract.replication import Check
from farshore_engine.contract.site import CloudSite
from farshore_engine.networkpath import Resolve


def check(cloud: Cloud, wish: Wish) -> tuple[Check, ...]:
    """Return the whole checklist; only errors are in the way of a recovery."""
    found = Checklist()
    if not check_subscription(found, cloud, wish.place):
        found.skip(("Network", "Size", "DiskType", "Name"), "Azure does not let us in there")
        return tuple(found.lines)
    check_wish(found, cloud, wish)
    found.ask("StorageAccounts", lambda: accounts(cloud))
    return tuple(found.lines)


def check_subscription(found: Checklist, cloud: Cloud, place: Place) -> bool:
    """Add what all machines of a resource group share; returns whether anything can be asked of the group."""
    providers: dict[str, str] = {}

    def subscription() -> str:
        providers.update(states_of(cloud))
        return f"subscription {place.site.subscription} answers at {place.site.endpoint or PUBLIC}{proxy_text()}"

    if not found.ask("Subscription", subscription):
        found.skip(("ResourceGroup", "ResourceProviders", "Permissions"), "Resource Manager does not let us in")
        return False
    if not found.ask("ResourceGroup", lambda: group_there(cloud, place)):
        found.skip(("ResourceProviders", "Permissions"), "there is no resource group")
        return False
    found.ask("ResourceProviders", lambda: registered(providers))
    found.ask("Permissions", lambda: permitted(cloud, place))
    return True


def check_wish(found: Checklist, cloud: Cloud, wish: Wish) -> None:
    """Add what one machine needs."""
    place = wish.place
    if not place.target.isolated:
        found.ask("Network", lambda: network_fits(cloud, place))
        if any(one.private_ip for one in place.target.nics()):
            found.ask("PrivateAddress", lambda: addresses_free(cloud, place))
    if found.ask("Size", lambda: size_there(cloud, wish)):
        found.ask("Quota", lambda: quota_left(cloud, wish))
    found.ask("DiskType", lambda: disk_type_offered(cloud, place))
    if place.target.availability_set or place.target.zone:
        found.ask("Availability", lambda: availability_fits(cloud, place))
    if place.machine_id:
        found.ask("BootLoader", lambda: boots(wish))
        found.ask("Name", lambda: name_free(cloud, place))


def check_ways(found: Checklist, cloud: Cloud, place: Place, port: int = SSH) -> None:
    """Add by which way people would reach the machines of a place: advice, never in the way of a recovery."""
    found.advise("PrepareToConnect", lambda: ways_in(cloud, place, port))


def check_path(found: Checklist, site: CloudSite, resolve: Resolve | None = None) -> bool:
    """Add by which way this host reaches the cloud; returns whether its names resolve."""
    return found.need("NetworkPath", lambda: network_path(site, resolve))
