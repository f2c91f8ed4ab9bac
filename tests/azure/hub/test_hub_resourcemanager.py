"""How the product reaches a Hub's Resource Manager: discovery, login, API versions, faults."""

from __future__ import annotations

import datetime
from collections.abc import Callable

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tests.azure.hub.conftest import GROUP, add, site_of
from tests.azuresim import AzureSim
from tests.azuresim.hub import AUDIENCE, hub

from farshore_engine.azurestack.faults import LONGEST_WORDS
from farshore_engine.azurestack.machine import PowerState
from farshore_engine.azurestack.machines import Machines
from farshore_engine.azurestack.metadata import parse
from farshore_engine.azurestack.profile import VERSIONS, version_of
from farshore_engine.azurestack.resourcemanager import ResourceManager
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.site import IdentitySystem

Connect = Callable[..., ResourceManager]
MACHINES = "*/virtualMachines*"


def list_path(sim: AzureSim) -> str:
    return f"/subscriptions/{sim.subscription}/providers/Microsoft.Compute/virtualMachines"


def certificate() -> str:
    key = rsa.generate_private_key(65537, 2048)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "farshore")])
    begin = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(begin).not_valid_after(begin + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return (key.private_bytes(*form) + made.public_bytes(serialization.Encoding.PEM)).decode()


@pytest.mark.parametrize("adfs", [False, True], ids=["Entra ID", "AD FS"])
def test_the_login_is_found_in_the_metadata(adfs: bool, connect: Connect) -> None:
    with hub(adfs=adfs) as sim:
        sim.group(GROUP)
        assert list(connect(site_of(sim, adfs=adfs)).all(list_path(sim))) == []
        tokens = [one.path for one in sim.calls if one.plane == "token"]
        assert all(one.startswith("/adfs/" if adfs else f"/{sim.tenant}/") for one in tokens) and tokens
        assert {one.audience for one in sim.tokens.given.values()} == {AUDIENCE}


@pytest.mark.parametrize("adfs", [False, True], ids=["Entra ID", "AD FS"])
def test_a_certificate_proves_the_principal_too(adfs: bool, connect: Connect) -> None:
    pem = certificate()
    with hub(adfs=adfs) as sim:
        sim.group(GROUP)
        sim.me.certificates.append(pem[pem.index("-----BEGIN CERTIFICATE") :].encode())
        sim.me.secret = ""
        assert list(connect(site_of(sim, adfs=adfs, certificate=pem)).all(list_path(sim))) == []


def test_the_wrong_identity_system_is_said_so(connect: Connect) -> None:
    with hub(adfs=True) as sim, pytest.raises(StopFault) as found:
        list(connect(site_of(sim)).all(list_path(sim)))
    assert found.value.reason == "HubIdentity" and "identitySystem: ADFS" in found.value.remedy


def test_every_call_has_a_version_of_the_profile(sim: AzureSim, machines: Machines, subnet: str) -> None:
    add(sim, subnet, "shop", "10.1.0.4")
    machines.deallocate(machines.all()[0])
    machines.start(machines.all()[0])
    sent = {one.api_version for one in sim.calls if one.plane == "arm"} - {"2015-01-01"}
    assert sent <= set(VERSIONS.values()) and len(sent) >= 2


def test_a_newer_version_would_be_refused_with_the_remedy(
    sim: AzureSim, manager: ResourceManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(VERSIONS, "microsoft.compute/virtualmachines", "2024-07-01")
    with pytest.raises(StopFault) as found:
        list(manager.all(list_path(sim)))
    assert found.value.reason == "HubTooOld" and "2020-06-01" in found.value.message


@pytest.mark.parametrize(
    ("path", "version"),
    [
        ("/subscriptions/s", "2016-06-01"),
        ("/subscriptions/s/resourceGroups/g", "2019-10-01"),
        ("/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/disks/d", "2019-07-01"),
        ("/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/m/powerOff", "2020-06-01"),
        ("/subscriptions/s/providers/Microsoft.Network/networkInterfaces", "2018-11-01"),
        ("/subscriptions/s/providers/Microsoft.Compute/locations/local/usages", "2020-06-01"),
    ],
    ids=["subscription", "group", "disk", "action", "list", "below a location"],
)
def test_the_version_follows_from_the_path(path: str, version: str) -> None:
    assert version_of(path) == version


@pytest.mark.parametrize(
    "metadata",
    [None, [], {}, {"authentication": {"loginEndpoint": "https://login/"}}, {"authentication": {"audiences": ["a"]}}],
    ids=["nothing", "a list", "empty", "no audience", "no login"],
)
def test_what_is_no_hub_is_named(metadata: object, sim: AzureSim) -> None:
    with pytest.raises(StopFault) as found:
        parse(metadata, site_of(sim))
    assert found.value.reason == "NoHub" and "resourceManagerEndpoint" in found.value.remedy


def test_lists_are_read_to_their_last_page(sim: AzureSim, machines: Machines, subnet: str) -> None:
    sim.page_size = 2
    for number in range(5):
        add(sim, subnet, f"shop-{number}", f"10.1.0.{number + 10}")
    assert [one.name for one in machines.all()] == [f"shop-{number}" for number in range(5)]


def _throttle(sim: AzureSim) -> None:
    sim.faults.throttle("GET", MACHINES, times=9, retry_after=0)


def _away(sim: AzureSim) -> None:
    sim.faults.lose_request("GET", MACHINES, times=9)


def _broken(sim: AzureSim) -> None:
    sim.faults.server_error("GET", MACHINES, times=9, status=503)


def _barred(sim: AzureSim) -> None:
    sim.roles.grants[:] = []


def _token_away(sim: AzureSim) -> None:
    sim.faults.lose_request("*", "*/token", times=99, plane="token")


@pytest.mark.parametrize(
    ("plan", "family", "reason"),
    [
        (_throttle, WaitFault, "HubThrottled"),
        (_away, WaitFault, "HubUnreachable"),
        (_broken, WaitFault, "HubUnreachable"),
        (_token_away, WaitFault, "HubUnreachable"),
        (_barred, StopFault, "HubForbidden"),
    ],
    ids=["throttled", "no answer", "503", "no token service", "no rights"],
)
def test_trouble_is_of_the_right_family(
    plan: Callable[[AzureSim], None], family: type[Fault], reason: str, sim: AzureSim, manager: ResourceManager
) -> None:
    plan(sim)
    with pytest.raises(family) as found:
        list(manager.all(list_path(sim)))
    assert found.value.reason == reason and found.value.remedy
    assert len(found.value.message) < LONGEST_WORDS + 200


def test_short_trouble_is_not_seen(sim: AzureSim, manager: ResourceManager) -> None:
    sim.faults.throttle("GET", MACHINES, retry_after=0)
    sim.faults.server_error("GET", MACHINES, nth=2)
    assert list(manager.all(list_path(sim))) == []


@pytest.mark.parametrize("revoke", [False, True], ids=["expired", "revoked"])
def test_a_token_that_is_no_longer_taken_is_replaced(revoke: bool, sim: AzureSim, manager: ResourceManager) -> None:
    assert list(manager.all(list_path(sim))) == []
    sim.faults.expire_token("GET", MACHINES, revoke=revoke)
    assert list(manager.all(list_path(sim))) == []


@pytest.mark.parametrize("revoke", [False, True], ids=["expired", "revoked"])
def test_a_token_that_is_no_longer_taken_in_the_middle_of_an_operation_is_replaced_and_nothing_is_begun_twice(
    revoke: bool, sim: AzureSim, machines: Machines, subnet: str
) -> None:
    """A machine was about to be off, and its run said that the login was refused."""
    add(sim, subnet, "shop", "10.1.0.4")
    (machine,) = machines.all()
    sim.faults.expire_token("GET", "*/operations/*", revoke=revoke)
    machines.shut_down(machine)
    assert machines.power(machine.id) is PowerState.STOPPED
    assert len([one for one in sim.calls if one.path.endswith("/powerOff")]) == 1
    assert [path for _, _, path in sim.faults.struck if "/operations/" in path]


def test_a_claims_challenge_is_answered(sim: AzureSim, manager: ResourceManager) -> None:
    sim.faults.challenge_claims("GET", MACHINES)
    assert list(manager.all(list_path(sim))) == []


def test_a_wrong_secret_stops_and_is_not_told(sim: AzureSim, connect: Connect) -> None:
    wrong = "wrong-secret-xyzzy"
    with pytest.raises(StopFault) as found:
        list(connect(site_of(sim, secret=wrong)).all(list_path(sim)))
    assert found.value.reason == "HubLogin" and "AADSTS7000215" in found.value.message
    assert wrong not in str(found.value) and wrong not in repr(found.value.__cause__)


def test_an_unknown_ca_stops_with_the_field_to_set(sim: AzureSim, connect: Connect) -> None:
    site = site_of(sim).model_copy(update={"ca_bundle": ""})
    with pytest.raises(StopFault) as found:
        list(connect(site).all(list_path(sim)))
    assert found.value.reason == "HubCertificate" and "caBundle" in found.value.remedy


def test_without_a_principal_nothing_is_tried(sim: AzureSim, connect: Connect) -> None:
    site = site_of(sim).model_copy(update={"credential": None})
    with pytest.raises(StopFault, match="names no principal"):
        list(connect(site).all(list_path(sim)))


def test_the_metadata_of_a_site_name_the_authority_unless_it_is_given(sim: AzureSim) -> None:
    found = {"authentication": {"loginEndpoint": "https://login.example/", "audiences": [AUDIENCE]}}
    site = site_of(sim)
    assert parse(found, site).authority == "login.example"
    assert parse(found, site.model_copy(update={"authority": "other.example"})).authority == "other.example"
    assert site.identity_system is IdentitySystem.AZURE_AD


def test_a_failure_at_the_end_is_told_in_the_hubs_words(sim: AzureSim, machines: Machines, subnet: str) -> None:
    add(sim, subnet, "shop", "10.1.0.4", running=False)
    sim.pace.polls = 2
    sim.faults.fail_at_end("POST", "*/start", "OSProvisioningTimedOut", "The guest did not answer.")
    with pytest.raises(Fault) as found:
        machines.start(machines.all()[0])
    assert "The guest did not answer" in found.value.message and "shop" in found.value.message


def test_deleting_what_is_gone_is_no_fault(sim: AzureSim, manager: ResourceManager, subnet: str) -> None:
    machine = add(sim, subnet, "shop", "10.1.0.4")
    manager.delete(machine)
    manager.delete(machine)
    assert manager.find(machine) is None
