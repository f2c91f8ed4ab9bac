"""A Hub's machines: found by name and private address, what is known of them, switched off and on."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.azure.hub.conftest import GROUP, SIZE, add
from tests.azuresim import AzureSim, seeds
from tests.azuresim.compute.state import compute

from farshore_engine.azurestack.machine import GIB, AttachedDisk, Machine, Nic, PowerState
from farshore_engine.azurestack.machines import Machines
from farshore_engine.azurestack.support import examine
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.replication import CheckResult


def test_a_machine_is_told_with_its_disks_addresses_and_state(sim: AzureSim, machines: Machines, subnet: str) -> None:
    data = [seeds.disk(sim, GROUP, f"shop-data-{number}", gib=4 + number) for number in range(2)]
    add(sim, subnet, "shop", "10.1.0.4", data_disks=data)
    add(sim, subnet, "till", "10.1.0.5", running=False)
    shop, till = machines.all()
    assert (shop.name, shop.addresses, shop.power, shop.size) == ("shop", ("10.1.0.4",), PowerState.RUNNING, SIZE)
    assert [(one.lun, one.name, one.size_bytes // GIB) for one in shop.disks] == [
        (-1, "shop-os", 1), (0, "shop-data-0", 4), (1, "shop-data-1", 5),
    ]  # fmt: skip
    assert shop.managed and shop.resource_group == GROUP and shop.os_type == "linux"
    assert till.power is PowerState.DEALLOCATED and till.power.off


@pytest.mark.parametrize(
    ("name", "address"),
    [("shop", ""), ("SHOP", ""), ("another-name", "10.1.0.4"), ("", "10.1.0.4")],
    ids=["by name", "whatever the case", "by address, when the name is another", "by address alone"],
)
def test_a_machine_is_found(name: str, address: str, sim: AzureSim, machines: Machines, subnet: str) -> None:
    add(sim, subnet, "shop", "10.1.0.4")
    add(sim, subnet, "till", "10.1.0.5")
    found = machines.find(name, address)
    assert found is not None and found.name == "shop"


@pytest.mark.parametrize(
    ("name", "address"),
    [("nobody", "10.1.0.77"), ("nobody", "shop.example"), ("", "")],
    ids=["address", "host", "none"],
)
def test_nothing_is_found_where_there_is_nothing(
    name: str, address: str, sim: AzureSim, machines: Machines, subnet: str
) -> None:
    add(sim, subnet, "shop", "10.1.0.4")
    assert machines.find(name, address) is None


def test_a_machine_of_another_group_is_found_by_its_name(sim: AzureSim, machines: Machines, subnet: str) -> None:
    sim.group("other")
    disk, nic = seeds.disk(sim, "other", "far-os", os_type="Linux"), seeds.nic(sim, "other", "far", subnet, "10.1.0.9")
    seeds.machine(sim, "other", "far", disk, [nic], size=SIZE)
    for address in ("", "far.example", "10.1.0.9"):
        found = machines.find("far", address)
        assert found is not None and found.resource_group == "other"
    assert machines.find("far", "10.1.0.10") is None, "it is another one of that name"


def test_an_address_that_two_networks_use_is_ambiguous(sim: AzureSim, machines: Machines, subnet: str) -> None:
    add(sim, subnet, "shop", "10.1.0.4")
    add(sim, seeds.subnet_id(seeds.vnet(sim, GROUP, "twin")), "twin", "10.1.0.4")
    with pytest.raises(StopFault) as found:
        machines.find("", "10.1.0.4")
    assert "shop, twin" in found.value.message and "spec.source.machine" in found.value.remedy


@pytest.mark.parametrize("polls", [0, 3], ids=["at once", "slow"])
def test_switching_a_machine_is_repeatable(polls: int, sim: AzureSim, machines: Machines, subnet: str) -> None:
    machine = machines.get(add(sim, subnet, "shop", "10.1.0.4"))
    assert machine is not None
    sim.pace.polls = polls
    state = compute(sim)
    for _ in range(2):
        machines.shut_down(machine)
        assert state.power_of("shop") == "stopped"
    for _ in range(2):
        machines.deallocate(machine)
        assert state.power_of("shop") == "deallocated"
    machines.shut_down(machine)
    for _ in range(2):
        machines.start(machine)
        assert state.power_of("shop") == "running"


def test_the_plug_is_pulled_where_that_is_asked(sim: AzureSim, machines: Machines, subnet: str) -> None:
    machine = machines.get(add(sim, subnet, "shop", "10.1.0.4"))
    assert machine is not None
    machines.shut_down(machine, orderly=False)
    offs = [one for one in sim.calls if one.path.endswith("/powerOff")]
    assert [one.query.get("skipShutdown") for one in offs] == ["true"]


def test_a_machine_that_is_being_changed_is_waited_for(sim: AzureSim, machines: Machines, subnet: str) -> None:
    machine = machines.get(add(sim, subnet, "shop", "10.1.0.4"))
    assert machine is not None
    sim.faults.refuse("POST", "*/powerOff", 409, "OperationNotAllowed", "... since another operation is in progress.")
    with pytest.raises(WaitFault) as found:
        machines.shut_down(machine)
    assert found.value.reason == "HubBusy"


def test_no_room_for_a_start_is_waited_for(sim: AzureSim, machines: Machines, subnet: str) -> None:
    machine = machines.get(add(sim, subnet, "shop", "10.1.0.4", running=False))
    assert machine is not None
    compute(sim).no_capacity.add(SIZE.lower())
    with pytest.raises(Fault) as found:
        machines.start(machine)
    assert found.value.reason == "HubFull" and isinstance(found.value, WaitFault)
    compute(sim).no_capacity.clear()
    machines.start(machine)


PLAIN = Machine(
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/shop", "shop", "g", "local", SIZE,
    "linux", (AttachedDisk("os", -1, "id", size_bytes=30 * GIB),), (Nic("n", ("10.1.0.4",)),), PowerState.RUNNING,
    "Succeeded",
)  # fmt: skip


def verdict(machine: Machine, name: str, *, site_recovery: bool = False) -> CheckResult:
    return next(one.result for one in examine(machine, site_recovery=site_recovery) if one.name == name)


@pytest.mark.parametrize(
    ("change", "check", "expected"),
    [
        ({}, "MachineState", CheckResult.PASSED),
        ({"power": PowerState.STOPPED}, "MachineState", CheckResult.ERROR),
        ({"provisioning": "Failed"}, "MachineState", CheckResult.ERROR),
        ({"os_type": "windows"}, "OperatingSystem", CheckResult.ERROR),
        ({"os_type": ""}, "OperatingSystem", CheckResult.WARNING),
        ({"nics": ()}, "PrivateAddress", CheckResult.ERROR),
        ({"nics": (Nic("n", ("8.8.8.8",)),)}, "PrivateAddress", CheckResult.WARNING),
        ({"disks": (AttachedDisk("os", -1, "id", size_bytes=4096 * GIB),)}, "Disks", CheckResult.ERROR),
        ({"disks": tuple(AttachedDisk("d", lun, "id") for lun in range(65))}, "Disks", CheckResult.ERROR),
    ],
    ids=["fine", "off", "broken", "Windows", "unknown system", "no address", "public", "large system disk", "65 disks"],
)
def test_the_checklist_for_the_native_engine(change: dict[str, object], check: str, expected: CheckResult) -> None:
    assert verdict(replace(PLAIN, **change), check) is expected


@pytest.mark.parametrize(
    ("name", "version", "listed"),
    [
        ("centos", "7.3", True), ("centos", "7.4", False), ("centos", "6.9", True), ("centos", "5.1", False),
        ("ubuntu", "16.04", True), ("ubuntu", "14.04", True), ("ubuntu", "18.04", False), ("debian", "12", False),
        ("Windows Server 2012 R2 Datacenter", "", True), ("Windows Server 2008 R2 Standard", "", True),
        ("Windows Server 2008 Standard", "", False), ("Windows Server 2022 Datacenter", "", False),
    ],
)  # fmt: skip
def test_the_systems_that_the_tutorial_lists(name: str, version: str, listed: bool) -> None:
    found = verdict(replace(PLAIN, os_name=name, os_version=version), "OperatingSystem", site_recovery=True)
    assert found is (CheckResult.PASSED if listed else CheckResult.WARNING)
