"""Availability sets, sizes and quotas: what a check asks before anything is made."""

from __future__ import annotations

from collections.abc import Callable

from azure.core.exceptions import HttpResponseError
from tests.azuresim import AzureSim, compute, seeds
from tests.azuresim.compute.diskfiles import MIB

from .conftest import Clients, body, code

Refused = Callable[..., HttpResponseError]


class TestSets:
    def aligned(self, azure: Clients, name: str = "set", sku: str = "Aligned") -> str:
        wanted = {
            "location": "westeurope", "sku": {"name": sku},
            "properties": {"platformFaultDomainCount": 2, "platformUpdateDomainCount": 5},
        }  # fmt: skip
        return str(azure.compute.availability_sets.create_or_update("rg", name, wanted).id)

    def test_a_machine_joins_a_set_which_then_cannot_be_deleted(
        self, sim: AzureSim, azure: Clients, refused: Refused, parts: tuple[str, str]
    ) -> None:
        wanted = body(parts[0], [parts[1]], availabilitySet={"id": self.aligned(azure)})
        vm = azure.compute.virtual_machines.begin_create_or_update("rg", "vm", wanted).result()
        found = azure.compute.availability_sets.get("rg", "set")
        assert [one.id for one in found.virtual_machines] == [vm.id]
        assert code(refused(azure.compute.availability_sets.delete, "rg", "set")) == "OperationNotAllowed"

    def test_a_set_of_another_kind_a_zone_and_another_family_are_refused(
        self, sim: AzureSim, azure: Clients, refused: Refused, parts: tuple[str, str], subnet: str
    ) -> None:
        create = azure.compute.virtual_machines.begin_create_or_update
        classic = body(parts[0], [parts[1]], availabilitySet={"id": self.aligned(azure, "classic", "Classic")})
        assert "non-managed Availability Set" in str(refused(create, "rg", "vm", classic))
        inside = body(parts[0], [parts[1]], availabilitySet={"id": self.aligned(azure)})
        assert "availability zone" in str(refused(create, "rg", "vm", {**inside, "zones": ["1"]}))
        create("rg", "vm", inside).result()
        other = seeds.disk(sim, "rg", "other", os_type="Linux", generation="V2")
        second = body(
            other, [seeds.nic(sim, "rg", "second", subnet)], availabilitySet=inside["properties"]["availabilitySet"]
        )
        second["properties"]["hardwareProfile"]["vmSize"] = "Standard_E2s_v5"
        error = refused(create, "rg", "vm2", second)
        assert "not available in the cluster where the availability set is currently allocated" in str(error)


class TestCatalogue:
    def test_skus_tell_capabilities_and_restrictions(self, sim: AzureSim, azure: Clients) -> None:
        compute.compute(sim).restricted["standard_b2s"] = "NotAvailableForSubscription"
        found = {one.name: one for one in azure.compute.resource_skus.list(filter="location eq 'westeurope'")}
        size = found["Standard_D2s_v5"]
        assert size.resource_type == "virtualMachines" and size.family == "standardDSv5Family" and not size.restrictions
        facts = {one.name: one.value for one in size.capabilities}
        assert (facts["vCPUs"], facts["MaxDataDiskCount"], facts["PremiumIO"]) == ("2", "4", "True")
        assert [one.reason_code for one in found["Standard_B2s"].restrictions] == ["NotAvailableForSubscription"]
        assert found["Premium_LRS"].resource_type == "disks"
        assert not list(azure.compute.resource_skus.list(filter="location eq 'eastus'"))

    def test_usage_counts_deallocated_machines_too(self, sim: AzureSim, azure: Clients, parts: tuple[str, str]) -> None:
        seeds.machine(sim, "rg", "vm", parts[0], [parts[1]], running=False)
        compute.compute(sim).limits["standardDSv5Family"] = 6
        found = {one.name.value: (one.current_value, one.limit) for one in azure.compute.usage.list("westeurope")}
        assert (found["cores"], found["standardDSv5Family"], found["virtualMachines"][0]) == ((2, 100), (2, 6), 1)

    def test_sizes_of_the_region(self, azure: Clients) -> None:
        sizes = {one.name: one for one in azure.compute.virtual_machine_sizes.list("westeurope")}
        assert (sizes["Standard_D4s_v5"].number_of_cores, sizes["Standard_D4s_v5"].memory_in_mb) == (4, 16 * 1024)


def test_a_seeded_disk_is_exactly_as_long_as_its_data(sim: AzureSim) -> None:
    seeds.disk(sim, "rg", "d", b"x" * 21 * MIB)
    assert compute.compute(sim).disk_bytes("d") == b"x" * 21 * MIB
