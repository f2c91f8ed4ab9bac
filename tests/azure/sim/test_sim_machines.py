"""Machines: what they need, what they are refused, how they are changed, and what is left when they fail or go."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from tests.azuresim import ArmError, AzureSim, compute, seeds
from tests.azuresim.compute import Machine

from .conftest import Clients, body, code

Refused = Callable[..., HttpResponseError]


def power(azure: Clients, name: str = "vm") -> str:
    view = azure.compute.virtual_machines.instance_view("rg", name)
    return next((one.code or "" for one in view.statuses or [] if (one.code or "").startswith("PowerState")), "")


def disk_state(azure: Clients, name: str) -> str:
    return str(azure.compute.disks.get("rg", name).as_dict()["properties"]["diskState"])


class TestLife:
    def test_a_machine_runs_on_the_disks_it_is_given_and_its_hook_writes_to_them(
        self, sim: AzureSim, azure: Clients, parts: tuple[str, str]
    ) -> None:
        seen: list[Machine] = []

        def writes(machine: Machine) -> None:
            seen.append(machine)
            with machine.os_disk.open("r+b") as file:
                file.write(b"booted")

        compute.compute(sim).on_start.append(writes)
        sim.pace.polls = 2
        machines = azure.compute.virtual_machines
        made = machines.begin_create_or_update(
            "rg", "vm", {**body(parts[0], [parts[1]]), "tags": {"farshore-run": "r"}}
        )
        vm = made.result()
        assert vm.provisioning_state == "Succeeded" and vm.vm_id and vm.tags == {"farshore-run": "r"}
        assert vm.storage_profile.os_disk.delete_option == "Detach"
        assert compute.compute(sim).read("os", 0, 6) == b"booted"
        assert [(one.name, one.addresses, one.size) for one in seen] == [("vm", ("10.1.0.9",), "Standard_D2s_v5")]
        assert (power(azure), disk_state(azure, "os")) == ("PowerState/running", "Attached")
        assert azure.compute.disks.get("rg", "os").managed_by == vm.id
        assert azure.network.network_interfaces.get("rg", "nic").virtual_machine.id == vm.id
        expanded = machines.get("rg", "vm", expand="instanceView")
        assert [one.name for one in expanded.instance_view.disks] == ["os"]

    def test_stopped_is_still_allocated_deallocated_is_reserved_and_starting_runs_the_hook_again(
        self, sim: AzureSim, azure: Clients, parts: tuple[str, str]
    ) -> None:
        starts: list[Machine] = []
        compute.compute(sim).on_start.append(starts.append)
        machines = azure.compute.virtual_machines
        machines.begin_create_or_update("rg", "vm", body(parts[0], [parts[1]])).result()
        machines.begin_power_off("rg", "vm").result()
        assert (power(azure), disk_state(azure, "os")) == ("PowerState/stopped", "Attached")
        machines.begin_deallocate("rg", "vm").result()
        assert (power(azure), disk_state(azure, "os")) == ("PowerState/deallocated", "Reserved")
        machines.begin_start("rg", "vm").result()
        machines.begin_start("rg", "vm").result()
        assert (power(azure), len(starts)) == ("PowerState/running", 2)

    def test_deleting_leaves_disks_and_interfaces_unless_told_otherwise(
        self, sim: AzureSim, azure: Clients, parts: tuple[str, str]
    ) -> None:
        data = seeds.disk(sim, "rg", "data")
        wanted = body(parts[0], [parts[1]], [data])
        wanted["properties"]["storageProfile"]["dataDisks"][0]["deleteOption"] = "Delete"
        azure.compute.virtual_machines.begin_create_or_update("rg", "vm", wanted).result()
        azure.compute.virtual_machines.begin_delete("rg", "vm").result()
        assert disk_state(azure, "os") == "Unattached"
        assert azure.compute.disks.get("rg", "os").managed_by is None
        assert azure.network.network_interfaces.get("rg", "nic").virtual_machine is None
        with pytest.raises(ResourceNotFoundError):
            azure.compute.disks.get("rg", "data")
        azure.compute.virtual_machines.begin_delete("rg", "vm").result()

    def test_a_machine_whose_allocation_fails_stays_failed_and_owns_its_parts(
        self, sim: AzureSim, azure: Clients, refused: Refused, parts: tuple[str, str]
    ) -> None:
        compute.compute(sim).no_capacity.add("standard_d2s_v5")
        machines = azure.compute.virtual_machines
        error = refused(machines.begin_create_or_update, "rg", "vm", body(parts[0], [parts[1]]))
        assert code(error) == "AllocationFailed"
        assert machines.get("rg", "vm").provisioning_state == "Failed"
        assert refused(azure.compute.disks.begin_delete, "rg", "os").status_code == 409
        assert disk_state(azure, "os") == "Reserved"
        compute.compute(sim).no_capacity.clear()
        machines.begin_start("rg", "vm").result()
        assert power(azure) == "PowerState/running"

    def test_a_second_put_in_another_size_brings_up_what_failed(
        self, sim: AzureSim, azure: Clients, refused: Refused, parts: tuple[str, str]
    ) -> None:
        compute.compute(sim).no_capacity.add("standard_d2s_v5")
        wanted, machines = body(parts[0], [parts[1]]), azure.compute.virtual_machines
        refused(machines.begin_create_or_update, "rg", "vm", wanted)
        wanted["properties"]["hardwareProfile"]["vmSize"] = "Standard_D2as_v5"
        machines.begin_create_or_update("rg", "vm", wanted).result()
        assert (power(azure), disk_state(azure, "os")) == ("PowerState/running", "Attached")

    def test_the_interface_of_a_failed_machine_is_reserved_for_a_while(
        self, sim: AzureSim, azure: Clients, refused: Refused, parts: tuple[str, str]
    ) -> None:
        sim.nic_reservation = 1
        sim.faults.fail_at_end("PUT", "*/virtualMachines/vm", "AllocationFailed", status=409)
        refused(azure.compute.virtual_machines.begin_create_or_update, "rg", "vm", body(parts[0], [parts[1]]))
        azure.compute.virtual_machines.begin_delete("rg", "vm").result()
        delete = azure.network.network_interfaces.begin_delete
        assert code(refused(delete, "rg", "nic")) == "NicReservedForAnotherVm"
        delete("rg", "nic").result()

    def test_a_hook_may_say_that_the_machine_does_not_come_up(
        self, sim: AzureSim, azure: Clients, refused: Refused, parts: tuple[str, str]
    ) -> None:
        def fails(machine: Machine) -> None:
            raise ArmError(500, "OSProvisioningTimedOut", f"OS Provisioning for VM '{machine.name}' did not finish.")

        compute.compute(sim).on_start.append(fails)
        error = refused(azure.compute.virtual_machines.begin_create_or_update, "rg", "vm", body(parts[0], [parts[1]]))
        assert code(error) == "OSProvisioningTimedOut"


class TestDisksOfMachines:
    def test_data_disks_come_and_go_while_it_runs(self, sim: AzureSim, azure: Clients, parts: tuple[str, str]) -> None:
        machines, data = azure.compute.virtual_machines, seeds.disk(sim, "rg", "data")
        seen: list[Machine] = []
        compute.compute(sim).on_disks.append(seen.append)
        vm = machines.begin_create_or_update("rg", "vm", body(parts[0], [parts[1]])).result()
        profile = machines.begin_attach_detach_data_disks(
            "rg", "vm", {"dataDisksToAttach": [{"diskId": data}]}
        ).result()
        assert [(one.lun, one.name) for one in profile.data_disks] == [(0, "data")]
        assert disk_state(azure, "data") == "Attached"
        machines.begin_attach_detach_data_disks("rg", "vm", {"dataDisksToDetach": [{"diskId": data}]}).result()
        assert disk_state(azure, "data") == "Unattached"
        again = {
            "properties": {
                "storageProfile": {"dataDisks": body("", [], [data])["properties"]["storageProfile"]["dataDisks"]}
            }
        }
        machines.begin_update("rg", "vm", again).result()
        assert azure.compute.disks.get("rg", "data").managed_by == vm.id
        vm = machines.get("rg", "vm")
        vm.storage_profile.data_disks = []
        machines.begin_create_or_update("rg", "vm", vm).result()
        assert disk_state(azure, "data") == "Unattached"
        assert [[lun for lun, _ in one.disks] for one in seen] == [[-1, 0], [-1], [-1, 0], [-1]]
        assert seen[0].disks[1][1] == compute.compute(sim).disk_path("data")

    def test_the_os_disk_is_swapped_on_a_stopped_machine_only(
        self, sim: AzureSim, azure: Clients, refused: Refused, parts: tuple[str, str]
    ) -> None:
        machines, other = (
            azure.compute.virtual_machines,
            seeds.disk(sim, "rg", "other", os_type="Linux", generation="V2"),
        )
        machines.begin_create_or_update("rg", "vm", body(parts[0], [parts[1]])).result()
        swap = {
            "properties": {
                "storageProfile": {"osDisk": {"createOption": "Attach", "name": "other", "managedDisk": {"id": other}}}
            }
        }
        assert code(refused(machines.begin_update, "rg", "vm", swap)) == "OperationNotAllowed"
        machines.begin_deallocate("rg", "vm").result()
        assert machines.begin_update("rg", "vm", swap).result().storage_profile.os_disk.name == "other"
        assert (disk_state(azure, "os"), disk_state(azure, "other")) == ("Unattached", "Reserved")

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            pytest.param(
                {"storageProfile": {"osDisk": {"createOption": "Attach", "managedDisk": None}}}, "InvalidParameter",
                id="os-disk-detached",
            ),
            pytest.param(
                {"storageProfile": {"osDisk": {"createOption": "FromImage"}}}, "PropertyChangeNotAllowed",
                id="create-option-changed",
            ),
            pytest.param({"availabilitySet": {"id": "/x"}}, "PropertyChangeNotAllowed", id="availability-set-changed"),
            pytest.param({"osProfile": {"computerName": "x"}}, "PropertyChangeNotAllowed", id="os-profile-given-later"),
            pytest.param({"hardwareProfile": {"vmSize": "Standard_M1000"}}, "InvalidParameter", id="unknown-size"),
        ],
    )  # fmt: skip
    def test_what_a_machine_cannot_become(
        self,
        sim: AzureSim,
        azure: Clients,
        refused: Refused,
        parts: tuple[str, str],
        change: dict[str, Any],
        expected: str,
    ) -> None:
        azure.compute.virtual_machines.begin_create_or_update("rg", "vm", body(parts[0], [parts[1]])).result()
        error = refused(azure.compute.virtual_machines.begin_update, "rg", "vm", {"properties": change})
        assert code(error) == expected

    def test_another_size_of_os_disk_is_no_swap(
        self, sim: AzureSim, azure: Clients, refused: Refused, parts: tuple[str, str]
    ) -> None:
        seeds.machine(sim, "rg", "vm", parts[0], [parts[1]], running=False)
        other = seeds.disk(sim, "rg", "other", gib=2, os_type="Linux", generation="V2")
        swap = {"properties": {"storageProfile": {"osDisk": {"createOption": "Attach", "managedDisk": {"id": other}}}}}
        assert code(refused(azure.compute.virtual_machines.begin_update, "rg", "vm", swap)) == "BadRequest"

    def test_reading_a_disk_needs_the_machine_deallocated_and_starting_needs_the_signature_gone(
        self, sim: AzureSim, azure: Clients, refused: Refused, parts: tuple[str, str]
    ) -> None:
        seeds.machine(sim, "rg", "vm", parts[0], [parts[1]])
        ask = {"access": "Read", "durationInSeconds": 60}
        error = refused(azure.compute.disks.begin_grant_access, "rg", "os", ask)
        assert (error.status_code, code(error)) == (409, "Conflict") and "attached to running VM" in str(error)
        azure.compute.virtual_machines.begin_deallocate("rg", "vm").result()
        azure.compute.disks.begin_grant_access("rg", "os", ask).result()
        error = refused(azure.compute.virtual_machines.begin_start, "rg", "vm")
        assert "active shared access signature outstanding" in str(error)
        azure.compute.disks.begin_revoke_access("rg", "os").result()
        assert disk_state(azure, "os") == "Reserved"
        azure.compute.virtual_machines.begin_start("rg", "vm").result()

    def test_deleting_an_attached_disk_and_a_used_interface_is_refused(
        self, sim: AzureSim, azure: Clients, refused: Refused, parts: tuple[str, str]
    ) -> None:
        seeds.machine(sim, "rg", "vm", parts[0], [parts[1]])
        assert code(refused(azure.compute.disks.begin_delete, "rg", "os")) == "OperationNotAllowed"
        assert code(refused(azure.network.network_interfaces.begin_delete, "rg", "nic")) == "NicInUse"


def test_a_machine_on_blobs_takes_no_managed_disks_and_leaves_its_blobs(
    sim: AzureSim, azure: Clients, refused: Refused, parts: tuple[str, str]
) -> None:
    wanted = body(parts[0], [parts[1]])
    profile = wanted["properties"]["storageProfile"]
    vhd = {"uri": "https://a.blob.core.windows.net/vhds/os.vhd"}
    profile["osDisk"] = {"osType": "Linux", "name": "os", "createOption": "Attach", "vhd": vhd}
    create = azure.compute.virtual_machines.begin_create_or_update
    made = create("rg", "vm", wanted).result()
    assert made.storage_profile.os_disk.vhd.uri == vhd["uri"] and not made.storage_profile.os_disk.managed_disk
    profile["dataDisks"] = [{"lun": 0, "createOption": "Attach", "managedDisk": {"id": seeds.disk(sim, "rg", "data")}}]
    assert "managed disk to VM with blob based disks" in str(refused(create, "rg", "vm", wanted))
    azure.compute.virtual_machines.begin_deallocate("rg", "vm").result()
    azure.compute.virtual_machines.begin_delete("rg", "vm").result()
