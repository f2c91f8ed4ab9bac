"""Every way to log in to Azure works, and what Azure answers becomes a fault that a person can act on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from tests.azure.provider.scene import Scene, seed
from tests.azuresim import AzureSim

from farshore_engine.azure import cloud as cloud_module
from farshore_engine.azure.cloud import Cloud, cloud_of
from farshore_engine.azure.machines import find_machine
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.site import CloudCredential

Given = Callable[[AzureSim, Path, pytest.MonkeyPatch], CloudCredential | None]


def by_secret(sim: AzureSim, _: Path, __: pytest.MonkeyPatch) -> CloudCredential:
    given = sim.credential()
    return CloudCredential(
        tenant_id=given.tenant_id, client_id=given.client_id, client_secret=SecretStr(given.client_secret)
    )


def by_certificate(sim: AzureSim, _: Path, __: pytest.MonkeyPatch) -> CloudCredential:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "farshore")]), datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(6)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    sim.me.certificates.append(pem)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    given = sim.credential()
    both = SecretStr((private + pem).decode())
    return CloudCredential(tenant_id=given.tenant_id, client_id=given.client_id, certificate=both)


def by_managed_identity(sim: AzureSim, _: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in sim.managed_identity().items():
        monkeypatch.setenv(name, value)


def by_workload_identity(sim: AzureSim, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    token = directory / "token"
    token.write_text("a-projected-token")
    sim.me.federated.add("a-projected-token")
    given = sim.credential()
    monkeypatch.setenv("AZURE_FEDERATED_TOKEN_FILE", str(token))
    monkeypatch.setenv("AZURE_TENANT_ID", given.tenant_id)
    monkeypatch.setenv("AZURE_CLIENT_ID", given.client_id)


@pytest.mark.parametrize("way", [by_secret, by_certificate, by_managed_identity, by_workload_identity])
def test_each_way_to_log_in(
    scene: Scene, sim: AzureSim, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Given
) -> None:
    scene.site_changes = {"credential": way(sim, tmp_path, monkeypatch)}
    assert find_machine(cloud_of(scene.site), "rg", "web-01") is None


def test_a_wrong_secret_is_said_without_showing_it(scene: Scene) -> None:
    given = scene.site.credential
    assert given is not None
    scene.site_changes = {"credential": given.model_copy(update={"client_secret": SecretStr("not-the-secret")})}
    with pytest.raises(StopFault, match="the login to Azure was refused") as told:
        find_machine(cloud_of(scene.site), "rg", "web-01")
    assert "not-the-secret" not in str(told.value) and "site's Secret" in told.value.remedy
    assert cloud_of(scene.site).stale is False, "who comes next begins with a new token"


def test_a_token_that_was_refused_is_not_used_again(scene: Scene, sim: AzureSim) -> None:
    cloud = cloud_of(scene.site)
    find_machine(cloud, "rg", "web-01")
    sim.faults.expire_token(revoke=True)
    with pytest.raises(WaitFault) as told:
        find_machine(cloud, "rg", "web-01")
    assert told.value.reason == "TokenExpired"
    assert find_machine(cloud_of(scene.site), "rg", "web-01") is None


def test_a_cloud_that_does_not_answer_is_waited_for(
    scene: Scene, sim: AzureSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_module, "TIMES", {**cloud_module.TIMES, "retry_total": 0})
    cloud = Cloud(scene.site)
    sim.faults.lose_request("GET", "*", times=9)
    with pytest.raises(WaitFault, match="Azure does not answer") as told:
        find_machine(cloud, "rg", "web-01")
    cloud.close()
    assert "CA bundle" in told.value.remedy


def test_a_call_that_is_tried_again_goes_on_through_the_same_connection(
    scene: Scene, sim: AzureSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each try of a call that begins an operation took a connection of its own, which nobody closed."""
    monkeypatch.setattr(cloud_module, "TIMES", {**cloud_module.TIMES, "retry_total": 3, "retry_backoff_factor": 0})
    cloud, begun = Cloud(scene.site), []
    process = sim.server.process_request
    disk = {"location": sim.region, "properties": {"creationData": {"createOption": "Empty"}, "diskSizeGB": 4}}
    cloud.all("list disks", lambda: cloud.compute.disks.list_by_resource_group("rg"))
    monkeypatch.setattr(sim.server, "process_request", lambda *given: (begun.append(given), process(*given)))
    sim.faults.refuse("PUT", "*/disks/*", 500, "InternalServerError", times=3)
    cloud.finish("make disk", lambda: cloud.compute.disks.begin_create_or_update("rg", "d", disk))
    cloud.close()
    assert len(sim.faults.struck) == 3 and not begun


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[AzureSim, Cloud]]:
    """Return a cloud that tries nothing twice."""
    with pytest.MonkeyPatch.context() as patch, AzureSim() as running:
        patch.setattr(cloud_module, "TIMES", {**cloud_module.TIMES, "retry_total": 0})
        seed(running)
        cloud = Cloud(Scene(running, tmp_path_factory.mktemp("asked")).site)
        yield running, cloud
        cloud.close()


@pytest.mark.parametrize(
    ("status", "code", "message", "kind", "reason"),
    [
        pytest.param(429, "TooManyRequests", "slow down", WaitFault, "AzureThrottled", id="throttled"),
        pytest.param(409, "Conflict", "concurrent request", WaitFault, "AzureBusy", id="conflict"),
        pytest.param(500, "InternalServerError", "oh", WaitFault, "AzureFailed", id="broken"),
        pytest.param(503, "ServiceUnavailable", "oh", WaitFault, "AzureFailed", id="away"),
        pytest.param(
            409, "OperationNotAllowed", "exceeding approved Cores quota", StopFault, "QuotaExceeded", id="quota"
        ),
        pytest.param(403, "RequestDisallowedByPolicy", "no", StopFault, "PolicyDenied", id="policy"),
        pytest.param(403, "AuthorizationFailed", "no right", StopFault, "AccessRefused", id="no right"),
        pytest.param(403, "LinkedAuthorizationFailed", "no join", StopFault, "AccessRefused", id="no right to join"),
        pytest.param(409, "SkuNotAvailable", "not here", StopFault, "NoCapacity", id="size not available"),
        pytest.param(409, "ZonalAllocationFailed", "not here", StopFault, "NoCapacity", id="no capacity in the zone"),
        pytest.param(404, "SubscriptionNotFound", "none", StopFault, "SubscriptionNotFound", id="no subscription"),
        pytest.param(404, "ResourceGroupNotFound", "none", StopFault, "ResourceGroupNotFound", id="no group"),
        pytest.param(409, "MissingSubscriptionRegistration", "x", StopFault, "ProviderNotRegistered", id="provider"),
        pytest.param(409, "ScopeLocked", "locked", StopFault, "ScopeLocked", id="locked"),
        pytest.param(400, "SomethingNew", "wrong", StopFault, "AzureRefused", id="what nobody knows yet"),
    ],
)
def test_what_azure_answers_becomes_a_fault_with_code_sentence_and_remedy(
    asked: tuple[AzureSim, Cloud], status: int, code: str, message: str, kind: type[Fault], reason: str
) -> None:
    sim, cloud = asked
    sim.faults.clear()
    sim.faults.refuse("*", "*/disks", status, code, message, headers={"Retry-After": "7"})
    with pytest.raises(kind) as told:
        cloud.all("list disks", lambda: cloud.compute.disks.list_by_resource_group("rg"))
    assert told.value.reason == reason
    assert told.value.message == f"cannot list disks: {code}: {message}"
    if isinstance(told.value, WaitFault):
        assert told.value.retry_after == 7
    else:
        assert told.value.remedy
