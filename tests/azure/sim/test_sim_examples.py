"""Every example of the REST specification for a simulated call goes through Microsoft's client into the simulator."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from tests.azuresim import AzureSim

from .conftest import Clients
from .example_world import FOLDER, Example, World, load, prepare_container_creation, prepare_subnet_creation

PROVIDERS = ("authorization", "compute", "network", "resources", "storage")
FILES = sorted(path for one in PROVIDERS for path in (FOLDER / one).glob("*.json"))
PREPARE = {
    "network.subnets.begin_create_or_update": prepare_subnet_creation,
    "storage.blob_containers.create": prepare_container_creation,
    "storage.management_policies.create_or_update": prepare_container_creation,
}


VM = "compute.virtual_machines."
IGNORED: dict[str, tuple[str, ...]] = {
    "compute.availability_sets.create_or_update": (
        "properties.virtualMachineScaleSetMigrationInfo", "properties.scheduledEventsPolicy",
    ),
    "compute.availability_sets.get": ("properties.virtualMachines",),
    "compute.availability_sets.list": ("value[].properties.virtualMachines", "value[].tags."),
    "compute.disks.begin_grant_access": ("securityDataAccessSAS", "securityMetadataAccessSAS"),
    "compute.disks.begin_update": ("properties.creationData.",),
    "compute.resource_skus.list": ("value[].locationInfo[].",),
    VM + "begin_attach_detach_data_disks": (
        "imageReference", "dataDisks[].writeAcceleratorEnabled", "dataDisks[].managedDisk.diskEncryptionSet",
        "osDisk.managedDisk.diskEncryptionSet",
    ),
    VM + "begin_create_or_update": ("properties.osProfile.",),
    VM + "begin_update": (
        "properties.osProfile.", "properties.storageProfile.dataDisks[].detachOption",
        "properties.storageProfile.dataDisks[].toBeDetached",
    ),
    VM + "instance_view": (
        "assignedHost", "bootDiagnostics", "computerName", "extensions", "maintenanceRedeployStatus", "osName",
        "osVersion", "patchStatus", "platform", "rdpThumbPrint", "vmAgent", "vmHealth", "statuses[].message",
        "disks[].encryptionSettings", "disks[].statuses[].message", "isVMInStandbyPool",
    ),
    "compute/VirtualMachine_Create_WithPlacement": ("zones",),
    "network.virtual_networks.begin_create_or_update": (
        "properties.bgpCommunities.regionalCommunity", "properties.subnets[].properties.ipConfigurations",
        "properties.subnets[].properties.resourceNavigationLinks",
        "properties.subnets[].properties.delegations[].properties.actions",
    ),
    "network.network_interfaces.update_tags": (
        "properties.ipConfigurations[].properties.publicIPAddress", "properties.disableTcpStateTracking",
    ),
    "network.network_security_groups.begin_create_or_update": (
        "properties.flushConnection", "properties.securityRules[].properties.provisioningState",
        "properties.securityRules[].id",
    ),
    "network/SubnetCreateWithDelegation": ("properties.delegations[].",),
    "network/SubnetCreateWithSharingScope": ("properties.sharingScope", "properties.defaultOutboundAccess"),
    "network.public_ip_addresses.begin_create_or_update": (
        "properties.ipConfiguration", "zones", "properties.ddosSettings", "properties.dnsSettings.fqdn",
    ),
    "resources.providers.list": ("value[].resourceTypes[].",),
    "resources.providers.get": ("resourceTypes[].",),
    "storage.storage_accounts.begin_create": (
        "extendedLocation", "identity.", "properties.encryption.", "properties.primaryEndpoints.",
        "properties.secondary", "properties.statusOfSecondary", "properties.networkAcls.",
    ),
}  # fmt: skip
"""Members of an example's answer that the simulator does not show, by call or by example: what the product never reads
(an image's guest, encryption, second regions), or what the example's own request did not ask for."""

NOT_SIMULATED = {
    "authorization/GetResourcePermissions": "a resource type that does not exist",
    "compute/Disk_Create_ByCopyingASnapshot": "snapshots",
    "compute/Disk_Create_ConfidentialVMSupportedDiskEncryptedWithCMK": "images",
    "compute/Disk_Create_FromAPlatformImage": "images",
    "compute/Disk_Create_FromAnAzureComputeGalleryCommunityImage": "images",
    "compute/Disk_Create_FromAnAzureComputeGalleryDirectSharedImage": "images",
    "compute/Disk_Create_FromAnAzureComputeGalleryImage": "images",
    "compute/Disk_Create_FromAnElasticSanVolumeSnapshot": "Elastic SAN",
    "compute/Disk_Create_FromImportSecure": "confidential machines",
    "compute/Disk_Create_FromImportSecure_WithVMMetadata": "confidential machines",
    "compute/Disk_Create_FromUploadPreparedSecure": "confidential machines",
    "compute/Disk_Create_PerformancePlus": "an upload without uploadSizeBytes, which its description requires",
    "compute/Disk_Create_WithSecurityProfile": "images",
    "compute/VirtualMachine_Create_WithNetworkInterfaceConfiguration": "interfaces made with the machine",
    "compute/VirtualMachine_Create_WithNetworkInterfaceConfigurationDnsSettings": "interfaces made with the machine",
    "network/VirtualNetworkCreateWithIpamPool": "address pools",
}
"""Examples that the simulator refuses, and what of Azure they need that it does not have."""


def members(value: Any, path: str = "") -> Iterator[str]:
    """Names of all members, as paths; the elements of a list are looked at as one."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield f"{path}.{name}".lstrip(".")
            yield from members(one, f"{path}.{name}")
    elif isinstance(value, list):
        for one in value:
            yield from members(one, path + "[]")


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[AzureSim, Clients]]:
    """One cloud and one set of clients for all examples; it forgets everything in between."""
    with AzureSim() as sim, ExitStack() as stack:
        yield sim, Clients(sim, stack)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_example(path: Path, shared: tuple[AzureSim, Clients]) -> None:
    sim, azure = shared
    example = load(path, sim.subscription)
    sim.reset()
    sim.region = example.location
    World(sim, example)
    if example.call in PREPARE:
        PREPARE[example.call](sim, example)
    if example.name in NOT_SIMULATED:
        with pytest.raises(HttpResponseError) as refused:
            play(azure, example)
        assert refused.value.status_code in (400, 404) and not sim.bugs
        return
    answer = play(azure, example)
    ignored = IGNORED.get(example.call, ()) + IGNORED.get(example.name, ())
    expected = {one for one in members(example.response) if not one.startswith(ignored)}
    assert sorted(expected - set(members(answer))) == []
    assert not sim.bugs


def play(azure: Clients, example: Example) -> Any:
    """The call as the example has it; the answer as JSON values."""
    provider, client, method = example.call.split(".")
    call = getattr(getattr(getattr(azure, provider), client), method)
    arguments, options = list(example.arguments), {}
    for name, value in example.options.items():
        word = re.sub(r"([A-Z])", lambda found: "_" + found[1].lower(), name)
        if word not in ("if_match", "if_none_match") and example.call != "compute.virtual_machines.get":
            options[word] = value
    if method == "check_ip_address_availability":
        options["ip_address"] = arguments.pop()
    answer = call(*arguments, **options)
    if hasattr(answer, "result"):
        answer = answer.result()
    if hasattr(answer, "by_page"):
        answer = {"value": [shown(one) for one in answer]}
    return shown(answer)


def shown(answer: Any) -> Any:
    """JSON values of a model, whichever kind of model it is."""
    if hasattr(answer, "_attribute_map"):
        return answer.serialize(keep_readonly=True)
    return answer.as_dict() if hasattr(answer, "as_dict") else answer
