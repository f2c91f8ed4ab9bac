"""Networks: addresses that are free, taken, reserved or elsewhere, and what may not be deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.mgmt.network import NetworkManagementClient
from tests.azuresim import AzureSim, seeds

from .conftest import Clients, code

Refused = Callable[..., HttpResponseError]


@pytest.fixture
def vnet(sim: AzureSim) -> str:
    return seeds.vnet(sim, "rg", subnets={"small": "10.1.0.0/29", "large": "10.1.1.0/24"})


def nic(subnet: str, address: str = "", **more: Any) -> dict[str, Any]:
    properties: dict[str, Any] = {"subnet": {"id": subnet}, **more}
    if address:
        properties.update(privateIPAllocationMethod="Static", privateIPAddress=address)
    return {"location": "westeurope", "properties": {"ipConfigurations": [{"name": "ip", "properties": properties}]}}


class TestInterfaces:
    def test_dynamic_addresses_are_the_lowest_free_ones_until_the_subnet_is_full(
        self, azure: Clients, refused: Refused, vnet: str
    ) -> None:
        create, small = azure.network.network_interfaces.begin_create_or_update, seeds.subnet_id(vnet, "small")
        given = [create("rg", f"n{n}", nic(small)).result().ip_configurations[0].private_ip_address for n in range(3)]
        assert given == ["10.1.0.4", "10.1.0.5", "10.1.0.6"]
        assert code(refused(create, "rg", "n3", nic(small))) == "SubnetIsFull"
        azure.network.network_interfaces.begin_delete("rg", "n1").result()
        assert create("rg", "n3", nic(small)).result().ip_configurations[0].private_ip_address == "10.1.0.5"

    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            pytest.param("10.1.1.10", "PrivateIPAddressIsAllocated", id="taken"),
            pytest.param("10.1.0.4", "PrivateIPAddressNotInSubnet", id="of-another-subnet"),
            pytest.param("10.1.1.3", "PrivateIPAddressInReservedRange", id="one-of-the-first-four"),
            pytest.param("10.1.1.255", "PrivateIPAddressInReservedRange", id="the-last"),
            pytest.param("10.1.1", "InvalidIPAddressFormat", id="no-address"),
        ],
    )
    def test_static_addresses_that_are_refused(
        self, sim: AzureSim, azure: Clients, refused: Refused, vnet: str, address: str, expected: str
    ) -> None:
        large = seeds.subnet_id(vnet, "large")
        seeds.nic(sim, "rg", "first", large, "10.1.1.10")
        error = refused(azure.network.network_interfaces.begin_create_or_update, "rg", "nic", nic(large, address))
        assert (error.status_code, code(error)) == (400, expected)

    def test_a_repeated_put_keeps_its_own_address(self, azure: Clients, vnet: str) -> None:
        create, large = azure.network.network_interfaces.begin_create_or_update, seeds.subnet_id(vnet, "large")
        first = create("rg", "nic", nic(large, "10.1.1.10")).result()
        again = create("rg", "nic", azure.network.network_interfaces.get("rg", "nic")).result()
        assert first.ip_configurations[0].private_ip_address == again.ip_configurations[0].private_ip_address

    def test_a_subnet_that_does_not_exist_or_may_not_be_joined(
        self, sim: AzureSim, azure: Clients, refused: Refused, vnet: str
    ) -> None:
        create = azure.network.network_interfaces.begin_create_or_update
        assert code(refused(create, "rg", "nic", nic(vnet + "/subnets/none"))) == "InvalidResourceReference"
        who = sim.principal("maker", "secret")
        sim.grant(who, "Microsoft.Network/networkInterfaces/*", scope=f"/subscriptions/{sim.subscription}")
        mine = azure.client(NetworkManagementClient, who).network_interfaces.begin_create_or_update
        error = refused(mine, "rg", "nic", nic(seeds.subnet_id(vnet, "large")))
        assert (error.status_code, code(error)) == (403, "LinkedAuthorizationFailed")
        assert "subnets/join/action" in str(error)

    def test_a_reserved_interface_can_be_deleted_later(
        self, sim: AzureSim, azure: Clients, refused: Refused, vnet: str
    ) -> None:
        made = seeds.nic(sim, "rg", "nic", seeds.subnet_id(vnet, "large"))
        sim.reserved_nics[made.lower()] = 1
        delete = azure.network.network_interfaces.begin_delete
        assert code(refused(delete, "rg", "nic")) == "NicReservedForAnotherVm"
        delete("rg", "nic").result()

    def test_an_interface_is_being_made_until_its_operation_ends(
        self, sim: AzureSim, azure: Clients, refused: Refused, vnet: str
    ) -> None:
        create, large = azure.network.network_interfaces.begin_create_or_update, seeds.subnet_id(vnet, "large")
        sim.pace.polls = 2
        create("rg", "nic", nic(large), polling=False)
        seen = [azure.network.network_interfaces.get("rg", "nic").provisioning_state for _ in range(2)]
        assert seen == ["Updating", "Succeeded"]
        sim.faults.fail_at_end("PUT", "*/other")
        assert code(refused(create, "rg", "other", nic(large))) == "InternalExecutionError"
        failed = azure.network.network_interfaces.get("rg", "other")
        assert failed.provisioning_state == "Failed" and failed.ip_configurations[0].private_ip_address == "10.1.1.5"


class TestNetworks:
    def test_the_check_of_an_address_says_free_taken_with_others_or_reserved(
        self, sim: AzureSim, azure: Clients, vnet: str
    ) -> None:
        seeds.nic(sim, "rg", "nic", seeds.subnet_id(vnet, "large"), "10.1.1.10")
        check = azure.network.virtual_networks.check_ip_address_availability
        assert check("rg", "vnet", ip_address="10.1.1.11").available is True
        taken = check("rg", "vnet", ip_address="10.1.1.10")
        assert (taken.available, taken.available_ip_addresses[:2]) == (False, ["10.1.1.4", "10.1.1.5"])
        assert check("rg", "vnet", ip_address="10.1.1.1").is_platform_reserved is True

    def test_usage_tells_the_room_of_each_subnet(self, sim: AzureSim, azure: Clients, vnet: str) -> None:
        seeds.nic(sim, "rg", "nic", seeds.subnet_id(vnet, "small"))
        found = {
            one.id.rpartition("/")[2]: (one.current_value, one.limit)
            for one in azure.network.virtual_networks.list_usage("rg", "vnet")
        }
        assert found == {"small": (1, 3), "large": (0, 251)}

    def test_what_is_used_is_not_deleted(self, sim: AzureSim, azure: Clients, refused: Refused, vnet: str) -> None:
        seeds.nic(sim, "rg", "nic", seeds.subnet_id(vnet, "small"))
        assert code(refused(azure.network.subnets.begin_delete, "rg", "vnet", "small")) == "InUseSubnetCannotBeDeleted"
        assert code(refused(azure.network.virtual_networks.begin_delete, "rg", "vnet")) == "InUseSubnetCannotBeDeleted"
        azure.network.subnets.begin_delete("rg", "vnet", "large").result()
        assert [one.name for one in azure.network.subnets.list("rg", "vnet")] == ["small"]

    @pytest.mark.parametrize(
        ("prefix", "expected"),
        [
            pytest.param("10.2.0.0/24", "NetcfgInvalidSubnet", id="outside-the-network"),
            pytest.param("10.1.1.128/25", "NetcfgSubnetRangesOverlap", id="overlapping"),
        ],
    )
    def test_subnets_that_do_not_fit(
        self, azure: Clients, refused: Refused, vnet: str, prefix: str, expected: str
    ) -> None:
        create = azure.network.subnets.begin_create_or_update
        assert code(refused(create, "rg", "vnet", "new", {"properties": {"addressPrefix": prefix}})) == expected
        create("rg", "vnet", "new", {"properties": {"addressPrefix": "10.1.2.0/24"}}).result()

    def test_a_public_address_serves_one_interface(self, azure: Clients, refused: Refused, vnet: str) -> None:
        address = azure.network.public_ip_addresses.begin_create_or_update(
            "rg",
            "ip",
            {
                "location": "westeurope",
                "sku": {"name": "Standard"},
                "properties": {"publicIPAllocationMethod": "Static"},
            },
        ).result()
        large, create = seeds.subnet_id(vnet, "large"), azure.network.network_interfaces.begin_create_or_update
        create("rg", "nic", nic(large, publicIPAddress={"id": address.id})).result()
        assert (
            code(refused(create, "rg", "other", nic(large, publicIPAddress={"id": address.id})))
            == "PublicIPAddressInUse"
        )
        assert (
            code(refused(azure.network.public_ip_addresses.begin_delete, "rg", "ip"))
            == "PublicIPAddressCannotBeDeleted"
        )
