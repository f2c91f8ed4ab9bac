"""Reads a site and what protects its machines from the cluster, asks the Hub, and writes manifests to files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from farshore_cli.discovery import Discovery, choose, compare, manifests
from farshore_cli.doctoring.clouds import cloud_of_site
from farshore_cli.doctoring.cluster import Namespace
from farshore_engine.azurestack.machines import Machines
from farshore_engine.azurestack.resourcemanager import ResourceManager
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.site import CloudSite
from farshore_operator.api import ProcessServer, ProtectedVM, Site
from farshore_operator.api.site import Provider
from farshore_operator.kube.client import Client
from farshore_operator.kube.resources import (
    PROCESS_SERVER,
    PROTECTED_VM,
    RECOVERY_VAULT,
    REPLICATION_POLICY,
    SITE,
)


@dataclass(frozen=True)
class Wishes:
    """What the command line says of manifests; empty for no wish."""

    namespace: str
    policy: str = ""
    vault: str = ""
    target: str = ""


def discovered(client: Client, name: str, wishes: Wishes) -> tuple[Discovery, dict[str, str]]:
    """Return what the Hub of a site has, and manifests for what nothing protects, by file name; raises Fault."""
    where = wishes.namespace
    sites = [Site.of(body) for body in client.list_all(SITE, where)]
    site = next((one for one in sites if one.metadata.name == name), None)
    if site is None:
        raise StopFault(f"there is no Site {where}/{name}", "Check the name and the namespace")
    with ResourceManager(_cloud(client, site, where)) as manager:
        machines = Machines(manager).all()
    vms = [ProtectedVM.of(body) for body in client.list_all(PROTECTED_VM, where)]
    servers = [ProcessServer.of(body) for body in client.list_all(PROCESS_SERVER, where)]
    found = compare(name, machines, vms, servers)
    others = {
        "policy": [body["metadata"]["name"] for body in client.list_all(REPLICATION_POLICY, where)],
        "vault": [body["metadata"]["name"] for body in client.list_all(RECOVERY_VAULT, where)],
        "target": [one.metadata.name for one in sites if one.spec.provider is not Provider.AZURE_STACK_HUB],
    }
    wished = {"policy": wishes.policy, "vault": wishes.vault, "target": wishes.target}
    choices = choose(where, site, others, wished)
    return found, manifests(found, choices, [vm.metadata.name for vm in vms])


def written(directory: Path, texts: Mapping[str, str]) -> list[str]:
    """Write manifests, leave files that are there, and say what was done."""
    directory.mkdir(parents=True, exist_ok=True)
    said = []
    for name, text in sorted(texts.items()):
        path = directory / name
        if path.exists():
            said.append(f"{path} is there already: left as it is")
            continue
        path.write_text(text)
        said.append(f"{path} written: fill in what its comments say, and commit it")
    return said or ["no manifest is needed"]


def _cloud(client: Client, site: Site, namespace: str) -> CloudSite:
    if site.spec.provider is not Provider.AZURE_STACK_HUB:
        raise StopFault(
            f"site {site.metadata.name} has provider {site.spec.provider}; machines are discovered at an "
            "Azure Stack Hub only",
            "Write a ProtectedVM for each machine by hand",
            reason="NotAHub",
        )
    cloud = cloud_of_site(site, Namespace(client, namespace))
    assert cloud is not None, "a site of this provider is a cloud"
    return cloud
