"""Changes of a protected machine's target: checked at once, done when the operation ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.azuresim.siterecovery.enable import VM_NAME
from tests.azuresim.siterecovery.refusals import bad
from tests.azuresim.siterecovery.show_details import nic_id
from tests.azuresim.siterecovery.state import CLASSIC, HYPERV, MODERN, Item, Target

if TYPE_CHECKING:
    from tests.azuresim.siterecovery.service import SiteRecovery

COMMON = {
    "recoveryAzureVMName": "vm_name", "recoveryAzureVMSize": "vm_size", "selectedRecoveryAzureNetworkId": "network",
    "selectedTfoAzureNetworkId": "test_network", "enableRdpOnTargetOption": "rdp", "licenseType": "license_type",
    "recoveryAvailabilitySetId": "availability_set",
}  # fmt: skip
"""Members of UpdateReplicationProtectedItemInputProperties, for the classic provider."""
OF_CLASSIC = {"recoveryAzureV2ResourceGroupId": "group_id", "targetAvailabilityZone": "zone"}
OF_MODERN = {
    "targetVmName": "vm_name", "targetVmSize": "vm_size", "targetResourceGroupId": "group_id",
    "targetAvailabilitySetId": "availability_set",
    "targetAvailabilityZone": "zone", "targetNetworkId": "network", "testNetworkId": "test_network",
    "licenseType": "license_type",
    "targetBootDiagnosticsStorageAccountId": "boot_diagnostics",
}  # fmt: skip
RESOURCES = ("network", "test_network", "group_id", "availability_set", "boot_diagnostics")


def apply_update(service: SiteRecovery, item: Item, given: dict[str, Any]) -> Callable[[], None]:
    """Check the input; the function returned does the change. Raises ArmError. An update without a member leaves it as
    it is [inf: PATCH]."""
    details = given.get("providerSpecificDetails") or {}
    if details and details.get("instanceType") != item.provider:
        raise bad(f"The item is of provider {item.provider}.", "properties.providerSpecificDetails.instanceType")
    wanted: dict[str, Any] = {}
    tables = {
        CLASSIC: [(given, COMMON), (details, OF_CLASSIC)],
        MODERN: [(details, OF_MODERN)],
        HYPERV: [(given, COMMON)],
    }
    for source, table in tables[item.provider]:
        wanted |= {field: source[name] for name, field in table.items() if source.get(name) is not None}
    tags = details.get("targetVmTags")
    if tags is not None:
        wanted["tags"] = tags if isinstance(tags, dict) else {one["tagName"]: one["tagValue"] for one in tags}
    nics = given.get("vmNics") if item.provider == CLASSIC else details.get("vmNics")
    for nic in nics or []:
        wanted |= _nic(item, nic)
    _check(service, item, wanted)

    def change() -> None:
        for field, value in wanted.items():
            setattr(item.target, field, value)

    return change


def _nic(item: Item, nic: dict[str, Any]) -> dict[str, str]:
    if nic.get("nicId") != nic_id(item):
        raise bad(f"The machine has no network interface '{nic.get('nicId')}'.", "vmNics")
    if item.provider == MODERN:
        table = {
            "targetSubnetName": "subnet",
            "targetStaticIPAddress": "static_ip",
            "testSubnetName": "test_subnet",
            "testStaticIPAddress": "test_ip",
        }
        return {field: nic[name] for name, field in table.items() if nic.get(name) is not None}
    table = {
        "recoverySubnetName": "subnet",
        "recoveryStaticIPAddress": "static_ip",
        "tfoSubnetName": "test_subnet",
        "tfoStaticIPAddress": "test_ip",
    }
    found: dict[str, str] = {}
    for config in nic.get("ipConfigs") or []:
        found |= {field: config[name] for name, field in table.items() if config.get(name) is not None}
    return found


def _check(service: SiteRecovery, item: Item, wanted: dict[str, Any]) -> None:
    if "vm_name" in wanted and not VM_NAME.fullmatch(wanted["vm_name"]):
        raise bad(f"'{wanted['vm_name']}' is no legal name of a virtual machine.")
    for field in RESOURCES:
        if wanted.get(field) and item.provider != HYPERV and service.sim.store.get(wanted[field]) is None:
            raise bad(f"'{wanted[field]}' does not exist.")
    old: Target = item.target
    if (wanted.get("zone", old.zone)) and (wanted.get("availability_set", old.availability_set)):
        raise bad("Give an availability set or a zone, not both.")
