"""Subscription, groups, providers and lists of resources."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest
from tests.azuresim import AzureSim, compute, seeds

from .conftest import Clients, code

Refused = Callable[..., HttpResponseError]


def get(azure: Clients, path: str) -> dict[str, Any]:
    """A call that no installed SDK has."""
    answer = azure.resources._client.send_request(HttpRequest("GET", f"{azure.sim.endpoint}{path}"))
    answer.raise_for_status()
    return dict(answer.json())


class TestSubscription:
    def test_it_has_a_state_and_regions(self, sim: AzureSim, azure: Clients) -> None:
        sim.parts["subscription state"] = "Warned"
        found = get(azure, f"/subscriptions/{sim.subscription}?api-version=2022-12-01")
        assert (found["subscriptionId"], found["tenantId"], found["state"]) == (sim.subscription, sim.tenant, "Warned")
        places = get(azure, f"/subscriptions/{sim.subscription}/locations?api-version=2022-12-01")["value"]
        assert [one["name"] for one in places] == ["westeurope", "northeurope"]


class TestGroups:
    def test_a_group_is_made_found_tagged_and_listed(self, azure: Clients) -> None:
        groups = azure.resources.resource_groups
        assert groups.check_existence("new") is False
        groups.create_or_update("new", {"location": "northeurope"})
        assert groups.check_existence("new") is True
        assert groups.update("new", {"tags": {"a": "b"}}).tags == {"a": "b"}
        assert [one.name for one in groups.list()] == ["rg", "new"]

    @pytest.mark.parametrize(
        ("name", "location", "expected"),
        [
            pytest.param("rg", "northeurope", "InvalidResourceGroupLocation", id="another-region"),
            pytest.param("new", "moon", "LocationNotAvailableForResourceType", id="no-region"),
            pytest.param("new.", "westeurope", "InvalidResourceGroup", id="period-at-the-end"),
        ],
    )
    def test_groups_that_cannot_be(
        self, azure: Clients, refused: Refused, name: str, location: str, expected: str
    ) -> None:
        assert code(refused(azure.resources.resource_groups.create_or_update, name, {"location": location})) == expected

    def test_a_group_takes_all_that_is_in_it(self, sim: AzureSim, azure: Clients) -> None:
        sim.pace.polls = 2
        subnet = seeds.subnet_id(seeds.vnet(sim, "rg"))
        nic = seeds.nic(sim, "rg", "nic", subnet)
        seeds.machine(sim, "rg", "vm", seeds.disk(sim, "rg", "os", os_type="Linux"), [nic])
        azure.resources.resource_groups.begin_delete("rg").result()
        assert not sim.store.found and compute.compute(sim).usage()["cores"] == 0


class TestLists:
    def test_resources_are_found_by_group_type_and_tag(self, sim: AzureSim, azure: Clients) -> None:
        sim.group("other")
        seeds.disk(sim, "rg", "one", tags={"farshore-run": "r1"})
        seeds.disk(sim, "other", "two", tags={"farshore-run": "r2"})
        seeds.vnet(sim, "rg")
        resources = azure.resources.resources
        assert {one.name for one in resources.list_by_resource_group("rg")} == {"one", "vnet"}
        assert [one.name for one in resources.list(filter="tagName eq 'farshore-run'")] == ["one", "two"]
        by_type = resources.list(filter="resourceType eq 'Microsoft.Network/virtualNetworks'")
        assert [one.name for one in by_type] == ["vnet"]  # a subnet is a child: lists do not show it

    def test_a_filter_that_is_none_is_refused(self, azure: Clients, refused: Refused) -> None:
        assert code(refused(azure.resources.resources.list, filter="what is there")) == "InvalidFilterInQueryString"


class TestProviders:
    def test_they_tell_types_and_versions(self, sim: AzureSim, azure: Clients) -> None:
        found = {one.namespace: one for one in azure.resources.providers.list()}
        assert {"Microsoft.Compute", "Microsoft.Network", "Microsoft.Storage"} <= set(found)
        disks = next(one for one in found["Microsoft.Compute"].resource_types if one.resource_type == "disks")
        assert "2026-03-02" in disks.api_versions and "westeurope" in disks.locations

    def test_an_unknown_provider(self, azure: Clients, refused: Refused) -> None:
        assert code(refused(azure.resources.providers.get, "Microsoft.Nothing")) == "InvalidResourceNamespace"
