"""What a site in Azure tells by reading of the points about compute, network and storage."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from azure.core.rest import HttpRequest

from farshore_cli.live.items import RARE, WRITES, Answer, Item, cannot_tell, compared, confirmed, contradicted
from farshore_engine.azure.cloud import Cloud, plain
from farshore_engine.azure.network import group_of
from farshore_engine.azure.permissions import lacking

MIB, FOOTER = 1 << 20, 512
NO_VERSION = "2999-01-01"
MOST = 50  # machines of which it is asked whether they run
CHOSEN_BY = ("vCPUs", "MemoryGB", "MaxDataDiskCount", "HyperVGenerations", "PremiumIO")
"""Capabilities of a size that every one should have."""
OFF = ("PowerState/deallocated", "PowerState/deallocating")


def versions(cloud: Cloud) -> Answer:
    """Send a version that nobody knows, and look whether those that the SDKs send are known."""
    path = f"/subscriptions/{cloud.site.subscription}/providers/Microsoft.Compute/disks?api-version={NO_VERSION}"
    answer = cloud.ask("ask with an unknown version", lambda: cloud.compute.send_request(HttpRequest("GET", path)))
    try:
        code = str(json.loads(answer.text())["error"]["code"])
    except (ValueError, KeyError, TypeError):
        code = f"status {answer.status_code}"
    unknown = [f"{kind} {sent}" for kind, sent in _sent(cloud).items() if sent not in _offered(cloud, kind)]
    if unknown:
        return contradicted(f"versions that the SDKs send and the endpoint does not list: {', '.join(unknown)}")
    if code != "InvalidApiVersionParameter":
        return contradicted(f"an unknown version of Microsoft.Compute/disks is {code}")
    return confirmed("an unknown version is InvalidApiVersionParameter; those that the SDKs send are listed")


def _sent(cloud: Cloud) -> dict[str, str]:
    """Return the API versions that the SDKs send, by resource type."""
    lists: dict[str, Callable[..., Any]] = {
        "Microsoft.Compute/disks": cloud.compute.disks.list,
        "Microsoft.Compute/virtualMachines": cloud.compute.virtual_machines.list_all,
        "Microsoft.Network/virtualNetworks": cloud.network.virtual_networks.list_all,
        "Microsoft.Storage/storageAccounts": cloud.storage.storage_accounts.list,
    }
    return {kind: _version(cloud, kind, request) for kind, request in lists.items()}


def _version(cloud: Cloud, kind: str, request: Callable[..., Any]) -> str:
    urls: list[str] = []

    def note(response: Any) -> None:
        urls.append(str(response.http_request.url))

    cloud.ask(f"list {kind}", lambda: next(iter(request(raw_response_hook=note)), None))
    return parse_qs(urlsplit(urls[0]).query).get("api-version", [""])[0]


def _offered(cloud: Cloud, kind: str) -> tuple[str, ...]:
    namespace, _, name = kind.partition("/")
    found = cloud.ask(f"look at provider {namespace}", lambda: cloud.resources.providers.get(namespace))
    for one in found.resource_types or ():
        if str(one.resource_type).lower() == name.lower():
            return tuple(str(version) for version in one.api_versions or ())
    return ()


def rights(cloud: Cloud) -> Answer:
    """Compare that the rights can be listed with whether the principal may list them."""
    needed, group = "Microsoft.Authorization/permissions/read", cloud.site.resource_group
    given = cloud.all(
        f"list the rights in {group}", lambda: cloud.authorization.permissions.list_for_resource_group(group)
    )
    if lacking(given, (needed,)):
        return contradicted(f"the rights can be listed without {needed}")
    return confirmed(f"the rights can be listed with {needed}; attaching and copying cannot be told by reading")


def quota(cloud: Cloud) -> Answer:
    """Add the cores of the region's machines up, and compare them with what the quota counts."""
    region = cloud.site.region.lower()
    usages = cloud.all("ask for quotas", lambda: cloud.compute.usage.list(cloud.site.region))
    used = {str(one.name.value).lower(): int(one.current_value) for one in usages}
    skus = cloud.all(
        "list sizes", lambda: cloud.compute.resource_skus.list(filter=f"location eq '{cloud.site.region}'")
    )
    cores = {str(one.name).lower(): _cpus(one) for one in skus if one.resource_type == "virtualMachines"}
    families = {str(one.family).lower() for one in skus if one.resource_type == "virtualMachines"}
    if "cores" not in used or not families & set(used):
        return contradicted("quotas have neither the name cores nor those of the sizes' families")
    machines = cloud.all("list machines", cloud.compute.virtual_machines.list_all)
    here = [one for one in machines if str(one.location).lower().replace(" ", "") == region]
    off = [one for one in here[:MOST] if _is_off(cloud, one)]
    if not off or len(here) > MOST:
        return cannot_tell(f"names of quotas fit; of {len(here)} machines looked at, {len(off)} are deallocated")
    total = sum(cores.get(plain(one.hardware_profile.vm_size).lower(), 0) for one in here)
    without = total - sum(cores.get(plain(one.hardware_profile.vm_size).lower(), 0) for one in off)
    seen = f"quota cores counts {used['cores']}; all machines have {total}, those not deallocated {without}"
    if used["cores"] == total:
        return confirmed(seen)
    return contradicted(seen) if used["cores"] == without else cannot_tell(seen)


def sizes(cloud: Cloud) -> Answer:
    """Look which sizes of the region say of themselves what a size is chosen by."""
    skus = cloud.all(
        "list sizes", lambda: cloud.compute.resource_skus.list(filter=f"location eq '{cloud.site.region}'")
    )
    machines = [one for one in skus if one.resource_type == "virtualMachines"]
    lacking: Counter[str] = Counter()
    for one in machines:
        has = {str(capability.name) for capability in one.capabilities or ()}
        lacking.update(name for name in CHOSEN_BY if name not in has)
    seen = f"{len(machines)} sizes"
    if not machines:
        return cannot_tell("the region lists no size")
    if any(count == len(machines) for count in lacking.values()):
        names = ", ".join(name for name, count in lacking.items() if count == len(machines))
        return contradicted(f"none of {seen} says {names}")
    rest = ", ".join(f"{name} lacks at {count}" for name, count in sorted(lacking.items()))
    return confirmed(f"{seen} say {', '.join(CHOSEN_BY)}{f'; {rest}' if rest else ''}")


def _cpus(sku: Any) -> int:
    return next((int(one.value) for one in sku.capabilities or () if one.name == "vCPUs"), 0)


def _is_off(cloud: Cloud, machine: Any) -> bool:
    view = cloud.ask(
        f"look at machine {machine.name}",
        lambda: cloud.compute.virtual_machines.instance_view(group_of(str(machine.id)), machine.name),
    )
    return any(str(one.code) in OFF for one in view.statuses or ())


def uploads(cloud: Cloud) -> Answer:
    """Look at the size with which existing disks were uploaded."""
    good, bad = Counter[str](), Counter[str]()
    for disk in cloud.all("list disks", cloud.compute.disks.list):
        size = disk.creation_data.upload_size_bytes if disk.creation_data is not None else None
        if plain(disk.creation_data.create_option if disk.creation_data else "") == "Upload" and size:
            whole = (int(size) - FOOTER) % MIB == 0
            (good if whole else bad)["whole MiB and a footer" if whole else f"{size} bytes"] += 1
    return compared("sizes of uploads", good, bad)


def imports(cloud: Cloud) -> Answer:
    """Look whether an imported disk names no storage account."""
    named = 0
    for disk in cloud.all("list disks", cloud.compute.disks.list):
        if plain(disk.creation_data.create_option if disk.creation_data else "") != "Import":
            continue
        if not disk.creation_data.storage_account_id:
            return confirmed(f"disk {disk.name} was imported without storageAccountId")
        named += 1
    return cannot_tell(f"{named} imported disks all name their storage account")


def failed_creations(cloud: Cloud) -> Answer:
    """Look whether the disks of machines whose creation failed belong to them."""
    good, bad = Counter[str](), Counter[str]()
    disks = {str(one.id).lower(): one for one in cloud.all("list disks", cloud.compute.disks.list)}
    for machine in cloud.all("list machines", cloud.compute.virtual_machines.list_all):
        managed = machine.storage_profile.os_disk.managed_disk if machine.storage_profile is not None else None
        disk = disks.get(str(managed.id).lower()) if managed is not None else None
        if plain(machine.provisioning_state) != "Failed" or disk is None:
            continue
        owned = str(disk.managed_by or "").lower() == str(machine.id).lower()
        (good if owned else bad)["owns its disk" if owned else "does not own its disk"] += 1
    return compared("a machine with provisioningState Failed", good, bad)


def ways_in(cloud: Cloud) -> Answer:
    """Look at the subnets of Bastions and gateways."""
    good, bad = Counter[str](), Counter[str]()
    for vnet in cloud.all("list virtual networks", cloud.network.virtual_networks.list_all):
        for subnet in vnet.subnets or ():
            if str(subnet.name).lower() != "azurebastionsubnet" or not subnet.ip_configurations:
                continue
            fits = any("/bastionhosts/" in str(one.id).lower() for one in subnet.ip_configurations)
            (good if fits else bad)["a Bastion's" if fits else "something else's"] += 1
    return compared("IP configurations of AzureBastionSubnet", good, bad)


ITEMS: tuple[Item[Cloud], ...] = (
    Item("Words of refusals", why=WRITES),
    Item("Uploads", uploads),
    Item("Imports", imports),
    Item("One thing at a time", why=WRITES),
    Item("A creation that failed", failed_creations),
    Item("OS disk swap", why=WRITES),
    Item("Availability sets", why=WRITES),
    Item("Quota", quota),
    Item("Rights", rights),
    Item("Versions", versions),
    Item("Operations", why=RARE),
    Item("Sizes", sizes),
    Item("Ways in", ways_in),
    Item("Warm replicas", why=WRITES),
)
