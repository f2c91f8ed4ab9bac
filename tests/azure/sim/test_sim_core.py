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
)
from azure.identity import (
    CertificateCredential,
    ClientAssertionCredential,
    ClientSecretCredential,
    ManagedIdentityCredential,
)
from azure.mgmt.compute import ComputeManagementClient
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.azuresim import AzureSim

from .conftest import DISKS, EMPTY, Clients, code

Refused = Callable[..., HttpResponseError]


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

    def test_active_directory_federation_services_give_tokens_too(self, sim: AzureSim) -> None:
        given = sim.credential()
        with ClientSecretCredential(
            "adfs", given.client_id, given.client_secret, authority=given.authority, disable_instance_discovery=True,
            connection_verify=str(sim.ca_bundle),
        ) as credential:  # fmt: skip
            assert credential.get_token(f"{sim.endpoint}/.default").token in sim.tokens.given
        assert any(one.path.startswith("/adfs/") for one in sim.calls if one.plane == "token")

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
