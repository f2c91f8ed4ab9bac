"""Makes the cloud that an example of the REST specification takes for granted: groups, and whatever it refers to."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.azuresim import AzureSim, seeds
from tests.azuresim.arm.store import Resource, parse
from tests.azuresim.compute import compute
from tests.azuresim.compute.diskfiles import FOOTER, footer

FOLDER = Path(__file__).parents[2] / "azuresim" / "examples"
RESOURCE_ID = re.compile(r"/?subscriptions/[^/]+/resourceGroups/[^/]+/providers/.+", re.IGNORECASE)


STORED = {
    "compute.availability_sets.get": "Microsoft.Compute/availabilitySets",
    "compute.availability_sets.list": "Microsoft.Compute/availabilitySets",
    "compute.disks.get": "Microsoft.Compute/disks",
    "compute.disks.list": "Microsoft.Compute/disks",
    "compute.disks.list_by_resource_group": "Microsoft.Compute/disks",
    "compute.virtual_machines.get": "Microsoft.Compute/virtualMachines",
    "compute.virtual_machines.list": "Microsoft.Compute/virtualMachines",
    "compute.virtual_machines.list_all": "Microsoft.Compute/virtualMachines",
    "network.network_interfaces.get": "Microsoft.Network/networkInterfaces",
    "network.network_interfaces.list": "Microsoft.Network/networkInterfaces",
    "network.network_interfaces.list_all": "Microsoft.Network/networkInterfaces",
    "network.network_security_groups.get": "Microsoft.Network/networkSecurityGroups",
    "network.network_security_groups.list": "Microsoft.Network/networkSecurityGroups",
    "network.public_ip_addresses.get": "Microsoft.Network/publicIPAddresses",
    "network.public_ip_addresses.list": "Microsoft.Network/publicIPAddresses",
    "network.subnets.get": "Microsoft.Network/virtualNetworks/subnets",
    "network.subnets.list": "Microsoft.Network/virtualNetworks/subnets",
    "network.virtual_network_gateways.get": "Microsoft.Network/virtualNetworkGateways",
    "network.virtual_networks.get": "Microsoft.Network/virtualNetworks",
    "network.virtual_networks.list": "Microsoft.Network/virtualNetworks",
    "network.virtual_networks.list_all": "Microsoft.Network/virtualNetworks",
    "storage.blob_containers.get": "Microsoft.Storage/storageAccounts/blobServices/containers",
    "storage.storage_accounts.get_properties": "Microsoft.Storage/storageAccounts",
    "storage.storage_accounts.list": "Microsoft.Storage/storageAccounts",
    "storage.storage_accounts.list_by_resource_group": "Microsoft.Storage/storageAccounts",
}
"""Reads: the cloud is given what the example's answer shows, and the answer must show it again."""


@dataclass(frozen=True)
class Example:
    """One example: the SDK call (`compute.disks.get`), its arguments, and the body of the specification's answer."""

    name: str
    origin: str
    call: str
    arguments: list[Any]
    options: dict[str, Any]
    response: Any

    @property
    def group(self) -> str:
        return str(self.arguments[0]) if self.arguments and isinstance(self.arguments[0], str) else "rg"

    @property
    def body(self) -> dict[str, Any]:
        return self.arguments[-1] if self.arguments and isinstance(self.arguments[-1], dict) else {}

    @property
    def location(self) -> str:
        return str(self.body.get("location") or "westus").lower().replace(" ", "")


def load(path: Path, subscription: str) -> Example:
    """An example with its placeholders filled in."""
    text = path.read_text().replace("{subscription-id}", subscription).replace("{subscriptionId}", subscription)
    text = text.replace("/subscriptions/subid/", f"/subscriptions/{subscription}/")
    found = json.loads(re.sub(r"\{([\w-]+)\}", r"\1", text))
    arguments = found["arguments"]
    return Example(
        f"{path.parent.name}/{path.stem}",
        found["origin"],
        found["call"],
        arguments,
        found["options"],
        found["response"],
    )


def ids_in(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        for one in value.values():
            yield from ids_in(one)
    elif isinstance(value, list):
        for one in value:
            yield from ids_in(one)
    elif isinstance(value, str) and RESOURCE_ID.fullmatch(value):
        yield "/" + value.lstrip("/")


@dataclass(frozen=True)
class BlobOfZeros:
    """A page blob of zeros with a right footer, to import a disk from."""

    size: int = 20 * 1024 * 1024 + FOOTER

    def into(self, path: Path) -> None:
        with path.open("r+b") as file:
            file.seek(self.size - FOOTER)
            file.write(footer(self.size - FOOTER))


class World:
    """Seeds for one example."""

    def __init__(self, sim: AzureSim, example: Example) -> None:
        self.sim, self.example = sim, example
        sim.group(example.group)
        for one in ids_in(example.arguments):
            self.refer_to(one)
        if uri := ((example.body.get("properties") or {}).get("creationData") or {}).get("sourceUri"):
            sim.parts["storage"].sources[uri] = BlobOfZeros()
        if example.call == "resources.providers.get":
            sim.providers[str(example.arguments[0])] = "Registered"
        client, method = example.call.split(".")[1:]
        if example.call in STORED:
            self.store_answer(STORED[example.call])
        elif "create" not in method:
            getattr(self, f"for_{client}", lambda: None)()

    def store_answer(self, kind: str) -> None:
        """A read finds what the example's answer shows."""
        given = self.example.arguments
        listed = self.example.response.get("value")
        for number, one in enumerate([self.example.response] if listed is None else listed):
            parsed = parse("/" + str(one.get("id") or "").lstrip("/"))
            name = parsed.name if parsed else f"{'/'.join(str(part) for part in given[1:])}{number or ''}"
            group = self.example.group if given or parsed is None else parsed.group
            if listed is None and given:
                name = "/".join(str(part) for part in given[1:])
            self.sim.group(group)
            self.keep(kind, group, name, one)

    def keep(self, kind: str, group: str, name: str, body: dict[str, Any]) -> None:
        words = [part for pair in zip(kind.split("/")[1:], name.split("/"), strict=False) for part in pair]
        if kind.endswith("/containers"):
            account, container = name.split("/")[0], name.split("/")[-1]
            words = ["storageAccounts", account, "blobServices", "default", "containers", container]
        path = f"/subscriptions/{self.sim.subscription}/resourceGroups/{group}/providers/{kind.split('/')[0]}/"
        if self.sim.store.get(path + "/".join(words)):
            words[-1] += "-too"
        resource = Resource(path + "/".join(words), kind, {**body, "id": path + "/".join(words), "type": kind})
        resource.body.setdefault("name", name.rpartition("/")[2])
        if kind.endswith("/virtualNetworks"):
            for one in resource.body["properties"].pop("subnets", None) or []:
                self.keep(kind + "/subnets", group, f"{name}/{one['name']}", one)
        elif kind.endswith("/subnets") and self.sim.store.get(resource.id.rpartition("/subnets/")[0]) is None:
            self.keep(kind.removesuffix("/subnets"), group, name.split("/")[0], {"properties": {}})
        self.sim.store.put(resource)

    def refer_to(self, resource_id: str) -> None:
        """Make what an id in the request points to, as far as the simulator has such things."""
        parsed = parse(resource_id.replace(self.sim.subscription.upper(), self.sim.subscription))
        if parsed is None or self.sim.store.get(resource_id):
            return
        if self.sim.store.get(f"/subscriptions/{self.sim.subscription}/resourceGroups/{parsed.group}") is None:
            self.sim.group(parsed.group)
        kind, name = parsed.kind.lower(), parsed.name
        if kind == "microsoft.network/networkinterfaces":
            seeds.nic(self.sim, parsed.group, name, self.subnet(parsed.group))
        elif kind == "microsoft.network/virtualnetworks/subnets":
            vnet, subnet = name.split("/")
            seeds.vnet(self.sim, parsed.group, vnet, subnets={subnet: "10.1.0.0/24"})
        elif kind == "microsoft.compute/disks":
            seeds.disk(self.sim, parsed.group, name, os_type="Linux")
        elif kind == "microsoft.compute/availabilitysets":
            self.put(parsed.group, "Microsoft.Compute/availabilitySets", name, sku={"name": "Aligned"})
        elif kind == "microsoft.network/publicipaddresses":
            self.put(parsed.group, "Microsoft.Network/publicIPAddresses", name)
        elif kind == "microsoft.network/networksecuritygroups":
            self.put(parsed.group, "Microsoft.Network/networkSecurityGroups", name)
        elif kind == "microsoft.storage/storageaccounts":
            self.sim.parts["storage"].account(name, parsed.group)

    def put(self, group: str, kind: str, name: str, **more: Any) -> Any:
        path = f"/subscriptions/{self.sim.subscription}/resourceGroups/{group}/providers/{kind}/{name}"
        return self.sim.seed("PUT", path, {"location": self.sim.region, "tags": {"a": "b"}, **more})

    def subnet(self, group: str) -> str:
        vnet = (
            f"/subscriptions/{self.sim.subscription}/resourceGroups/{group}/providers/Microsoft.Network/virtualNetworks"
        )
        if self.sim.store.get(f"{vnet}/seeded") is None:
            seeds.vnet(self.sim, group, "seeded")
        return seeds.subnet_id(f"{vnet}/seeded")

    def name(self, position: int = 1, default: str = "seeded") -> str:
        given = self.example.arguments
        return str(given[position]) if len(given) > position and isinstance(given[position], str) else default

    # what the calls that make nothing are about

    def for_disks(self) -> None:
        seeds.disk(self.sim, self.example.group, self.name(), os_type="Linux", tags={"department": "Development"})

    def for_virtual_machines(self) -> None:
        group, example = self.example.group, self.example
        nic = seeds.nic(self.sim, group, "nic-of-machine", self.subnet(group))
        os_disk = seeds.disk(self.sim, group, "os-of-machine", os_type="Linux")
        wanted = [one["diskId"] for one in example.body.get("dataDisksToDetach") or []]
        if example.call.endswith("begin_update"):
            wanted = list(ids_in(example.body))[:1] and [one for one in ids_in(example.body) if "/disks/" in one]
        for one in wanted:
            self.refer_to(one)
        running = not example.call.endswith("begin_start")
        made = seeds.machine(
            self.sim, group, self.name(), os_disk, [nic], wanted, "Standard_D8s_v5", {"a": "b"}, running=running
        )
        wished, has = example.body.get("properties") or {}, self.sim.store.need(made).properties
        has["osProfile"] = wished.get("osProfile") or {}
        if given := (wished.get("storageProfile") or {}).get("osDisk"):
            has["storageProfile"]["osDisk"].update(createOption=given["createOption"], name=given["name"])

    def for_availability_sets(self) -> None:
        self.put(self.example.group, "Microsoft.Compute/availabilitySets", self.name(), sku={"name": "Aligned"})

    def for_virtual_networks(self) -> None:
        vnet = seeds.vnet(self.sim, self.example.group, self.name(), "10.0.0.0/16", {"default": "10.0.1.0/24"})
        seeds.nic(self.sim, self.example.group, "seeded", seeds.subnet_id(vnet), "10.0.1.4")
        if self.example.call.endswith("begin_delete"):
            self.sim.seed("DELETE", next(one.id for one in self.sim.store.of("Microsoft.Network/networkInterfaces")))

    def for_subnets(self) -> None:
        seeds.vnet(self.sim, self.example.group, self.name(), "10.0.0.0/16", {self.name(2): "10.0.1.0/24"})

    def for_network_interfaces(self) -> None:
        seeds.nic(self.sim, self.example.group, self.name(), self.subnet(self.example.group), "10.1.0.7", {"a": "b"})

    def for_public_ip_addresses(self) -> None:
        self.put(self.example.group, "Microsoft.Network/publicIPAddresses", self.name(), sku={"name": "Standard"})

    def for_network_security_groups(self) -> None:
        self.put(self.example.group, "Microsoft.Network/networkSecurityGroups", self.name())

    def for_storage_accounts(self) -> None:
        self.sim.parts["storage"].account(self.name(), self.example.group)

    def for_blob_containers(self) -> None:
        account = self.sim.parts["storage"].account(self.name(), self.example.group)
        self.sim.seed("PUT", f"{account}/blobServices/default/containers/{self.name(2)}", {})

    def for_blob_services(self) -> None:
        account = self.sim.parts["storage"].account(self.name(), self.example.group, sku="Standard_GRS")
        if self.example.call.endswith("get_service_properties"):
            given = {"properties": self.example.response["properties"]}
            self.sim.seed("PUT", f"{account}/blobServices/default", given)

    def for_permissions(self) -> None:
        given = self.example.arguments
        if len(given) > 2:
            kind, name = given[1], given[-1]
            self.put(self.example.group, f"{kind}/{given[3]}", name) if kind == "Microsoft.Network" else None


def prepare_subnet_creation(sim: AzureSim, example: Example) -> None:
    """Subnets are made in a network that exists."""
    seeds.vnet(sim, example.group, str(example.arguments[1]), "10.0.0.0/16", {})


def prepare_container_creation(sim: AzureSim, example: Example) -> None:
    account = sim.parts["storage"].account(str(example.arguments[1]), example.group)
    if "immutableStorageWithVersioning" in (example.body.get("properties") or {}):
        sim.seed("PUT", f"{account}/blobServices/default", {"properties": {"isVersioningEnabled": True}})


__all__ = ["FOLDER", "Example", "World", "compute", "load"]
