"""The simulator's manners: tokens, versions, bodies through models, long operations, planned faults, rights."""

from __future__ import annotations

import datetime
import time
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
from azure.identity import CertificateCredential, ClientAssertionCredential, ManagedIdentityCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.resource.resources import ResourceManagementClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.azuresim import AzureSim, seeds
from tests.azuresim.authorization import grant_role

from .conftest import Clients, code

Refused = Callable[..., HttpResponseError]
EMPTY = {
    "location": "westeurope",
    "properties": {"diskSizeGB": 1, "creationData": {"createOption": "Empty"}},
}
DISKS = "*/Microsoft.Compute/disks/*"


class TestTokens:
    def test_a_wrong_secret_is_refused_in_entras_words(self, sim: AzureSim, azure: Clients) -> None:
        sim.tokens.principals[sim.me.client_id].secret = "another"
        credential = azure.credential()
        sim.tokens.principals[sim.me.client_id].secret = "changed since"
        with pytest.raises(ClientAuthenticationError, match="AADSTS7000215"):
            credential.get_token(f"{sim.endpoint}/.default")

    def test_a_certificate_proves_who_calls(self, sim: AzureSim, azure: Clients) -> None:
        key, pem = _certificate()
        sim.me.certificates.append(pem)
        with CertificateCredential(
            sim.tenant, sim.me.client_id, certificate_data=key + pem, authority=sim.authority,
            disable_instance_discovery=True, connection_verify=str(sim.ca_bundle),
        ) as credential:  # fmt: skip
            assert credential.get_token(f"{sim.endpoint}/.default").token in sim.tokens.given

    def test_a_strange_certificate_does_not(self, sim: AzureSim) -> None:
        key, pem = _certificate()
        with CertificateCredential(
            sim.tenant, sim.me.client_id, certificate_data=key + pem, authority=sim.authority,
            disable_instance_discovery=True, connection_verify=str(sim.ca_bundle),
        ) as credential, pytest.raises(ClientAuthenticationError, match="AADSTS700027"):  # fmt: skip
            credential.get_token(f"{sim.endpoint}/.default")

    def test_a_federated_token_of_a_workload_does(self, sim: AzureSim) -> None:
        sim.me.federated.add("token-of-the-cluster")
        with ClientAssertionCredential(
            sim.tenant, sim.me.client_id, lambda: "token-of-the-cluster", authority=sim.authority,
            disable_instance_discovery=True, connection_verify=str(sim.ca_bundle),
        ) as credential:  # fmt: skip
            assert credential.get_token(f"{sim.endpoint}/.default").token

    def test_a_managed_identity_needs_no_secret_of_ours(self, sim: AzureSim, monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in sim.managed_identity().items():
            monkeypatch.setenv(name, value)
        with ManagedIdentityCredential(connection_verify=str(sim.ca_bundle)) as credential:
            assert credential.get_token(f"{sim.endpoint}/.default").token in sim.tokens.given

    def test_the_audience_must_be_this_cloud(self, sim: AzureSim, azure: Clients) -> None:
        with pytest.raises(ClientAuthenticationError, match="AADSTS500011"):
            azure.credential().get_token("https://elsewhere.example/.default")

    def test_a_claims_challenge_makes_the_client_ask_for_a_fresh_token(self, sim: AzureSim, azure: Clients) -> None:
        azure.resources.resource_groups.get("rg")
        asked = sim.tokens.asked
        sim.faults.challenge_claims("GET", "*/resourceGroups/rg")
        assert azure.resources.resource_groups.get("rg").name == "rg"
        assert sim.tokens.asked == asked + 1

    def test_an_expired_token_is_a_401_then_the_next_call_works(
        self, sim: AzureSim, azure: Clients, refused: Refused
    ) -> None:
        sim.faults.expire_token("GET", "*/resourceGroups/rg")
        error = refused(azure.resources.resource_groups.get, "rg")
        assert (error.status_code, code(error)) == (401, "ExpiredAuthenticationToken")
        assert azure.resources.resource_groups.get("rg").name == "rg"

    def test_no_token_no_answer(self, sim: AzureSim, azure: Clients, refused: Refused) -> None:
        azure.resources.resource_groups.get("rg")
        sim.tokens.revoke_all()
        assert code(refused(azure.resources.resource_groups.get, "rg")) == "InvalidAuthenticationToken"


def _certificate() -> tuple[bytes, bytes]:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "farshore")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=1)).sign(key, hashes.SHA256())
    )  # fmt: skip
    form = serialization.PrivateFormat.PKCS8
    private = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    return private, built.public_bytes(serialization.Encoding.PEM)


class TestBodies:
    @pytest.mark.parametrize(
        ("change", "expected", "part"),
        [
            pytest.param({"tagz": {}}, "InvalidRequestContent", "'tagz' on object of type 'Disk'", id="unknown-member"),
            pytest.param(
                {"properties": {"diskSizeGb": 1, "creationData": {"createOption": "Empty"}}}, "InvalidRequestContent",
                "Path 'properties.diskSizeGb'", id="unknown-member-deep-inside",
            ),
            pytest.param({"location": None}, "InvalidParameter", "'location' is missing", id="required-member-missing"),
            pytest.param(
                {"properties": {"diskSizeGB": 1, "creationData": {}}}, "InvalidParameter",
                "'properties.creationData.createOption' is missing", id="required-member-missing-deep-inside",
            ),
            pytest.param(
                {"properties": {"diskSizeGB": "large", "creationData": {"createOption": "Empty"}}},
                "InvalidRequestContent", 'Error converting value "large"', id="wrong-type",
            ),
            pytest.param(
                {"properties": {"diskSizeGB": 1, "creationData": {"createOption": "Emptied"}}}, "InvalidParameter",
                "'Emptied'", id="word-that-the-enumeration-lacks",
            ),
            pytest.param(
                {"location": "mars"}, "LocationNotAvailableForResourceType", "westeurope", id="unknown-region"
            ),
            pytest.param({"tags": {f"t{n}": "" for n in range(51)}}, "TooManyTags", "50", id="too-many-tags"),
            pytest.param({"tags": {"a/b": ""}}, "InvalidTagNameCharacters", "a/b", id="tag-with-a-slash"),
        ],
    )  # fmt: skip
    def test_what_the_model_does_not_know_is_refused(
        self, azure: Clients, refused: Refused, change: dict[str, Any], expected: str, part: str
    ) -> None:
        error = refused(azure.compute.disks.begin_create_or_update, "rg", "d", {**EMPTY, **change})
        assert (error.status_code, code(error)) == (400, expected)
        assert part in error.error.message

    def test_what_was_got_can_be_sent_back(self, azure: Clients) -> None:
        disks = azure.compute.disks
        first = disks.begin_create_or_update("rg", "d", EMPTY).result()
        again = disks.begin_create_or_update("rg", "d", disks.get("rg", "d")).result()
        assert first.id == again.id

    def test_a_missing_group_a_missing_resource_and_another_subscription(
        self, sim: AzureSim, azure: Clients, refused: Refused
    ) -> None:
        assert code(refused(azure.compute.disks.get, "nowhere", "d")) == "ResourceGroupNotFound"
        assert code(refused(azure.compute.disks.get, "rg", "d")) == "ResourceNotFound"
        other = ComputeManagementClient(
            azure.credential(), "11111111-0000-0000-0000-000000000000", **sim.client_options()
        )
        azure.stack.callback(other.close)
        assert code(refused(other.disks.get, "rg", "d")) == "SubscriptionNotFound"


class TestVersions:
    def test_a_version_newer_than_the_endpoints_is_refused_with_the_list(
        self, sim: AzureSim, azure: Clients, refused: Refused
    ) -> None:
        sim.arm.limit("Microsoft.Compute", ["2019-07-01"])
        error = refused(azure.compute.disks.get, "rg", "d")
        assert (error.status_code, code(error)) == (400, "InvalidApiVersionParameter")
        assert "'2019-07-01'" in error.error.message

    def test_the_longest_limit_counts(self, sim: AzureSim, azure: Clients) -> None:
        sim.arm.limit("Microsoft.Compute", ["2017-03-30"])
        sim.arm.limit("Microsoft.Compute/disks", ["2026-03-02"])
        assert list(azure.compute.disks.list_by_resource_group("rg")) == []


class TestOperations:
    def test_an_operation_ends_after_as_many_looks_as_the_pace_says(self, sim: AzureSim, azure: Clients) -> None:
        sim.pace.polls = 3
        poller = azure.compute.disks.begin_create_or_update("rg", "d", EMPTY, polling=False)
        assert poller.done()  # the SDK does not look: what follows are our looks
        states = [azure.compute.disks.get("rg", "d").provisioning_state for _ in range(4)]
        assert states == ["Creating", "Creating", "Succeeded", "Succeeded"]

    def test_retry_after_is_honoured(self, sim: AzureSim, azure: Clients) -> None:
        sim.pace.polls, sim.pace.retry_after = 2, 1
        began = time.monotonic()
        azure.compute.disks.begin_create_or_update("rg", "d", EMPTY).result()
        assert time.monotonic() - began >= 1

    def test_failing_at_the_end_leaves_a_failed_resource_and_the_reason(
        self, sim: AzureSim, azure: Clients, refused: Refused
    ) -> None:
        sim.pace.polls = 1
        sim.faults.fail_at_end("PUT", DISKS, "InternalExecutionError", "Please retry later.")
        error = refused(azure.compute.disks.begin_create_or_update, "rg", "d", EMPTY)
        assert code(error) == "InternalExecutionError"
        assert azure.compute.disks.get("rg", "d").provisioning_state == "Failed"
        assert azure.compute.disks.begin_create_or_update("rg", "d", EMPTY).result().provisioning_state == "Succeeded"

    def test_one_change_at_a_time(self, sim: AzureSim, azure: Clients, refused: Refused) -> None:
        azure.compute.disks.begin_create_or_update("rg", "d", EMPTY).result()
        sim.pace.polls = 5
        azure.compute.disks.begin_grant_access("rg", "d", {"access": "Read", "durationInSeconds": 60}, polling=False)
        assert refused(azure.compute.disks.begin_delete, "rg", "d").status_code == 409
        sim.settle()
        assert azure.compute.disks.get("rg", "d").disk_state == "ActiveSAS"


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
        from azure.mgmt.authorization import AuthorizationManagementClient

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
