"""Planned faults strike the call that is meant, and rights are what was granted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import (
    ClientAuthenticationError,
    HttpResponseError,
    ResourceNotFoundError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.rest import HttpRequest
from azure.mgmt.authorization import AuthorizationManagementClient
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient
from tests.azuresim import AzureSim, seeds
from tests.azuresim.authorization import grant_role

from .conftest import DISKS, EMPTY, Clients, code

Refused = Callable[..., HttpResponseError]


class TestFaults:
    @pytest.mark.parametrize(
        ("plan", "status", "expected"),
        [
            pytest.param(lambda faults: faults.throttle("GET", "*/rg"), 429, "TooManyRequests", id="throttled"),
            pytest.param(lambda faults: faults.conflict("GET", "*/rg"), 409, "Conflict", id="conflict"),
            pytest.param(lambda faults: faults.server_error("GET", "*/rg"), 500, "InternalServerError", id="500"),
            pytest.param(
                lambda faults: faults.server_error("GET", "*/rg", status=503), 503, "ServiceUnavailable", id="503"
            ),
            pytest.param(lambda faults: faults.quota("GET", "*/rg"), 409, "OperationNotAllowed", id="quota"),
            pytest.param(lambda faults: faults.policy("GET", "*/rg"), 403, "RequestDisallowedByPolicy", id="policy"),
        ],
    )
    def test_a_refusal_strikes_once_and_is_told(
        self, sim: AzureSim, azure: Clients, refused: Refused, plan: Callable[[Any], Any], status: int, expected: str
    ) -> None:
        planned = plan(sim.faults)
        error = refused(azure.resources.resource_groups.get, "rg")
        assert (error.status_code, code(error)) == (status, expected)
        assert azure.resources.resource_groups.get("rg").name == "rg"
        assert [fault for fault, _, _ in sim.faults.struck] == [planned]

    def test_an_operation_may_be_canceled(self, sim: AzureSim, azure: Clients, refused: Refused) -> None:
        sim.faults.cancel_at_end("PUT", DISKS)
        refused(azure.compute.disks.begin_create_or_update, "rg", "d", EMPTY)
        assert [one.status for one in sim.operations.all] == ["Canceled"]
        assert azure.compute.disks.get("rg", "d").provisioning_state == "Failed"

    def test_looks_at_an_operation_can_fail_too(self, sim: AzureSim, azure: Clients, refused: Refused) -> None:
        sim.pace.polls = 2
        sim.faults.server_error("GET", "*/DiskOperations/*", status=503)
        assert refused(azure.compute.disks.begin_create_or_update, "rg", "d", EMPTY).status_code == 503
        sim.settle()
        assert azure.compute.disks.get("rg", "d").provisioning_state == "Succeeded"

    def test_the_token_endpoint_can_fail(self, sim: AzureSim, azure: Clients) -> None:
        sim.faults.refuse("POST", "*/token", 400, "temporarily_unavailable", "AADSTS90033: try later.", plane="token")
        with pytest.raises(ClientAuthenticationError, match="AADSTS90033"):
            azure.credential().get_token(f"{sim.endpoint}/.default")
        assert azure.credential().get_token(f"{sim.endpoint}/.default").token

    def test_every_answer_can_be_found_again(self, sim: AzureSim, azure: Clients) -> None:
        url = f"{sim.endpoint}/subscriptions/{sim.subscription}?api-version=2022-12-01"
        headers = {"x-ms-client-request-id": "mine", "x-ms-return-client-request-id": "true"}
        answer = azure.resources._client.send_request(HttpRequest("GET", url, headers=headers))
        assert {"x-ms-request-id", "x-ms-correlation-request-id", "x-ms-routing-request-id"} <= set(answer.headers)
        assert answer.headers["x-ms-client-request-id"] == "mine"

    def test_the_nth_call_is_meant(self, sim: AzureSim, azure: Clients) -> None:
        sim.faults.conflict("GET", "*/rg", nth=2, times=2)
        seen = []
        for _ in range(4):
            try:
                azure.resources.resource_groups.get("rg")
                seen.append(200)
            except HttpResponseError as error:
                seen.append(error.status_code or 0)
        assert seen == [200, 409, 409, 200]

    def test_retry_after_makes_the_sdk_wait_and_succeed(self, sim: AzureSim, azure: Clients) -> None:
        sim.faults.throttle("GET", "*/rg", retry_after=1)
        client = azure.client(ResourceManagementClient, retry_total=3)
        assert client.resource_groups.get("rg").name == "rg"
        assert [one.status for one in sim.calls if one.plane == "arm"] == [429, 200]

    def test_a_lost_response_happened_all_the_same(self, sim: AzureSim, azure: Clients) -> None:
        sim.faults.lose_response("PUT", DISKS)
        with pytest.raises(ServiceResponseError):
            azure.compute.disks.begin_create_or_update("rg", "d", EMPTY)
        assert azure.compute.disks.get("rg", "d").name == "d"

    def test_a_lost_request_did_not_happen(self, sim: AzureSim, azure: Clients) -> None:
        sim.faults.lose_request("PUT", DISKS)
        with pytest.raises((ServiceRequestError, ServiceResponseError)):
            azure.compute.disks.begin_create_or_update("rg", "d", EMPTY)
        with pytest.raises(ResourceNotFoundError):
            azure.compute.disks.get("rg", "d")

    def test_a_stale_read_and_a_stale_list_come_right_in_the_end(self, sim: AzureSim, azure: Clients) -> None:
        sim.faults.stale("PUT", DISKS, polls=3)
        azure.compute.disks.begin_create_or_update("rg", "d", EMPTY, polling=False)
        with pytest.raises(ResourceNotFoundError):
            azure.compute.disks.get("rg", "d")
        lists = [[one.name for one in azure.compute.disks.list_by_resource_group("rg")] for _ in range(3)]
        assert lists == [[], [], ["d"]]

    def test_every_call_is_recorded_with_who_and_which_version(self, sim: AzureSim, azure: Clients) -> None:
        azure.compute.disks.begin_create_or_update("rg", "d", EMPTY).result()
        first = next(one for one in sim.calls if one.method == "PUT")
        assert (first.plane, first.api_version, first.who) == ("arm", "2026-03-02", sim.me.client_id)
        assert b'"createOption": "Empty"' in first.body
        assert "azsdk-python-mgmt-compute" in first.user_agent


class TestRights:
    def test_what_is_not_granted_is_refused_by_action_and_scope(
        self, sim: AzureSim, azure: Clients, refused: Refused
    ) -> None:
        reader = sim.principal("reader", "secret")
        grant_role(sim, reader, "Reader", sim.group("rg"))
        disks = azure.client(ComputeManagementClient, reader).disks
        assert list(disks.list_by_resource_group("rg")) == []
        error = refused(disks.begin_create_or_update, "rg", "d", EMPTY)
        assert (error.status_code, code(error)) == (403, "AuthorizationFailed")
        assert "'Microsoft.Compute/disks/write'" in error.error.message

    def test_permissions_are_listed_with_what_is_inherited(self, sim: AzureSim, azure: Clients) -> None:
        who = sim.principal("maker", "secret")
        grant_role(sim, who, "Reader", f"/subscriptions/{sim.subscription}")
        grant_role(sim, who, "Virtual Machine Contributor", sim.group("rg"))
        subnet = seeds.vnet(sim, "rg")
        client = azure.client(AuthorizationManagementClient, who)
        at_group = [one.actions for one in client.permissions.list_for_resource_group("rg")]
        assert len(at_group) == 2 and at_group[0] == ["*/read"]
        assert "Microsoft.Compute/virtualMachines/*" in at_group[1]
        at_network = client.permissions.list_for_resource(
            "rg", "Microsoft.Network", "", "virtualNetworks", subnet.rpartition("/")[2]
        )
        assert len(list(at_network)) == 2

    def test_an_unregistered_provider_refuses_until_it_has_been_registered(
        self, sim: AzureSim, azure: Clients, refused: Refused
    ) -> None:
        sim.providers["Microsoft.Compute"] = "NotRegistered"
        sim.pace.polls = 1
        assert (
            code(refused(azure.compute.disks.begin_create_or_update, "rg", "d", EMPTY))
            == "MissingSubscriptionRegistration"
        )
        providers = azure.resources.providers
        assert providers.register("Microsoft.Compute").registration_state == "Registering"
        states = [providers.get("Microsoft.Compute").registration_state for _ in range(2)]
        assert states == ["Registering", "Registered"]
        azure.compute.disks.begin_create_or_update("rg", "d", EMPTY).result()
