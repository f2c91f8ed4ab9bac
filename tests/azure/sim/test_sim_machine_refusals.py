"""What a machine is refused, in Azure's words, before anything of it exists."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from tests.azuresim import AzureSim, compute, seeds

from .conftest import Clients, body, code

Refused = Callable[..., HttpResponseError]


def _with(path: str, value: Any) -> Callable[[dict[str, Any], AzureSim], None]:
    def change(wanted: dict[str, Any], sim: AzureSim) -> None:
        *before, last = path.split(".")
        for name in before:
            wanted = wanted[name]
        wanted[last] = value

    return change


def _uploading(wanted: dict[str, Any], sim: AzureSim) -> None:
    compute.compute(sim).disk("os").properties["diskState"] = "ReadyToUpload"


def _premium(wanted: dict[str, Any], sim: AzureSim) -> None:
    disk = seeds.disk(sim, "rg", "premium", kind="Premium_LRS")
    wanted["properties"]["storageProfile"]["dataDisks"] = [
        {"lun": 0, "createOption": "Attach", "managedDisk": {"id": disk}}
    ]
    wanted["properties"]["hardwareProfile"]["vmSize"] = "Standard_D2_v3"
    compute.compute(sim).disk("os").properties["hyperVGeneration"] = "V1"


def _many(wanted: dict[str, Any], sim: AzureSim) -> None:
    luns = [
        {"lun": lun, "createOption": "Attach", "managedDisk": {"id": seeds.disk(sim, "rg", f"d{lun}")}}
        for lun in range(5)
    ]
    wanted["properties"]["storageProfile"]["dataDisks"] = luns


def _same_lun(wanted: dict[str, Any], sim: AzureSim) -> None:
    _many(wanted, sim)
    del wanted["properties"]["storageProfile"]["dataDisks"][2:]
    wanted["properties"]["storageProfile"]["dataDisks"][1]["lun"] = 0


def _owned(wanted: dict[str, Any], sim: AzureSim) -> None:
    subnet = f"/subscriptions/{sim.subscription}/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/vnet"
    nic = seeds.nic(sim, "rg", "nic-of-other", seeds.subnet_id(subnet))
    os_disk = compute.compute(sim).disk("os").id
    seeds.machine(sim, "rg", "other", os_disk, [nic])


def _restricted(wanted: dict[str, Any], sim: AzureSim) -> None:
    compute.compute(sim).restricted["standard_d2s_v5"] = "NotAvailableForSubscription"


def _full(wanted: dict[str, Any], sim: AzureSim) -> None:
    compute.compute(sim).limits["standardDSv5Family"] = 1


def _region_full(wanted: dict[str, Any], sim: AzureSim) -> None:
    compute.compute(sim).limits["cores"] = 1


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "status", "expected"),
        [
            pytest.param(
                _with("properties.hardwareProfile", {"vmSize": "Standard_X1"}), 400, "InvalidParameter",
                id="unknown-size",
            ),
            pytest.param(_restricted, 409, "SkuNotAvailable", id="size-restricted"),
            pytest.param(_with("zones", ["4"]), 409, "SkuNotAvailable", id="zone-that-the-size-lacks"),
            pytest.param(_full, 409, "OperationNotAllowed", id="family-quota"),
            pytest.param(_region_full, 409, "OperationNotAllowed", id="regional-quota"),
            pytest.param(
                _with("properties.hardwareProfile", {"vmSize": "Standard_D2_v3"}), 400, "BadRequest",
                id="generation-2-on-a-size-without",
            ),
            pytest.param(_premium, 400, "InvalidParameter", id="premium-disk-on-a-size-without"),
            pytest.param(_many, 409, "OperationNotAllowed", id="more-data-disks-than-the-size-takes"),
            pytest.param(_same_lun, 400, "InvalidParameter", id="two-disks-at-one-lun"),
            pytest.param(_uploading, 409, "OperationNotAllowed", id="disk-still-being-uploaded"),
            pytest.param(_owned, 409, "ConflictingUserInput", id="disk-of-another-machine"),
            pytest.param(
                _with("properties.osProfile", {"computerName": "x"}), 400, "InvalidParameter",
                id="os-profile-with-a-specialised-disk",
            ),
            pytest.param(
                _with("properties.networkProfile", {"networkInterfaces": []}), 400, "InvalidParameter",
                id="no-interface",
            ),
            pytest.param(
                _with("properties.networkProfile", {"networkInterfaces": [{"id": "/x"}]}),
                400, "InvalidResourceReference",
                id="unknown-interface",
            ),
            pytest.param(
                _with("properties.storageProfile.osDisk.osType", None), 400, "InvalidParameter",
                id="no-os-type",
            ),
            pytest.param(
                _with("properties.storageProfile.osDisk.osType", "Windows"), 409, "PropertyChangeNotAllowed",
                id="another-os-type",
            ),
            pytest.param(_with("properties.storageProfile", {}), 400, "InvalidParameter", id="no-os-disk"),
            pytest.param(
                _with("properties.securityProfile", {"securityType": "TrustedLaunch"}), 400, "BadRequest",
                id="trusted-launch-on-a-standard-disk",
            ),
            pytest.param(
                _with("properties.availabilitySet", {"id": "/none"}), 404, "NotFound",
                id="unknown-availability-set",
            ),
            pytest.param(_with("location", "northeurope"), 400, "BadRequest", id="disk-in-another-region"),
        ],
    )  # fmt: skip
    def test_a_machine_that_cannot_be(
        self,
        sim: AzureSim,
        azure: Clients,
        refused: Refused,
        parts: tuple[str, str],
        change: Any,
        status: int,
        expected: str,
    ) -> None:
        wanted = body(parts[0], [parts[1]])
        change(wanted, sim)
        error = refused(azure.compute.virtual_machines.begin_create_or_update, "rg", "vm", wanted)
        assert (error.status_code, code(error)) == (status, expected)
        assert "vm" not in [one.name for one in azure.compute.virtual_machines.list("rg")]

    @pytest.mark.parametrize("name", ["web_1", "web1.", "-", "w" * 65, "we b"])
    def test_names_that_a_machine_cannot_have(
        self, azure: Clients, refused: Refused, parts: tuple[str, str], name: str
    ) -> None:
        error = refused(azure.compute.virtual_machines.begin_create_or_update, "rg", name, body(parts[0], [parts[1]]))
        assert code(error) == "InvalidParameter" and "cannot exceed 64 characters" in str(error)

    def test_an_interface_of_another_machine(
        self, sim: AzureSim, azure: Clients, refused: Refused, parts: tuple[str, str]
    ) -> None:
        seeds.machine(sim, "rg", "first", parts[0], [parts[1]])
        other = seeds.disk(sim, "rg", "other", os_type="Linux")
        error = refused(azure.compute.virtual_machines.begin_create_or_update, "rg", "vm", body(other, [parts[1]]))
        assert code(error) == "NicInUse"

    def test_two_interfaces_need_exactly_one_primary(
        self, sim: AzureSim, azure: Clients, refused: Refused, parts: tuple[str, str], subnet: str
    ) -> None:
        wanted = body(parts[0], [parts[1], seeds.nic(sim, "rg", "second", subnet)])
        both = copy.deepcopy(wanted)
        for one in both["properties"]["networkProfile"]["networkInterfaces"]:
            one["properties"]["primary"] = True
        create = azure.compute.virtual_machines.begin_create_or_update
        assert code(refused(create, "rg", "vm", both)) == "VirtualMachineMustHaveOneNetworkInterfaceAsPrimary"
        create("rg", "vm", wanted).result()

    def test_a_retried_put_of_the_same_machine_finds_what_it_made(
        self, sim: AzureSim, azure: Clients, parts: tuple[str, str]
    ) -> None:
        sim.faults.lose_response("PUT", "*/virtualMachines/*")
        create = azure.compute.virtual_machines.begin_create_or_update
        with pytest.raises(Exception, match=r"(?i)connection|response"):
            create("rg", "vm", body(parts[0], [parts[1]]))
        first = azure.compute.virtual_machines.get("rg", "vm").vm_id
        assert create("rg", "vm", body(parts[0], [parts[1]])).result().vm_id == first
