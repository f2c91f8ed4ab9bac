"""Process servers register with a key, are refused with a reason, stay within their limits, and are missed in time."""

from __future__ import annotations

import base64
import json
import re
import secrets
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from tests.cluster.operator_process import Installation, condition, message, reason, samples
from tests.cluster.played_appliance import PlayedAppliance, candidate, issue_key, registering_client
from tests.cluster.waiting import eventually

from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.replication import ApplianceReport, SpoolReport
from farshore_engine.processserver.identity import ServerIdentity
from farshore_operator.api import ProcessServer, ProtectedVM
from farshore_operator.crypto.certificates import make_authority
from farshore_operator.crypto.sealing import public_key
from farshore_operator.kube import client as client_module
from farshore_operator.kube.appliance.registering import register
from farshore_operator.kube.appliance.statedir import StateDir
from farshore_operator.kube.faults import Forbidden, Unauthorized
from farshore_operator.kube.registrationkey import RegistrationKey, issued
from farshore_operator.kube.resources import PROCESS_SERVER, PROTECTED_VM, SECRET

GROUND = ("Secret", "RecoveryVault", "Site", "ReplicationPolicy")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("registration")) as up:
        yield up


@pytest.fixture
def namespace(world: Installation) -> Iterator[str]:
    name = world.namespace(f"reg-{secrets.token_hex(3)}")
    world.apply(name, *samples(*GROUND))

    def prepared() -> bool:
        listed = world.plane.kubectl("-n", name, "get", "rolebindings", "-o", "name").stdout
        return "farshore-registrar-stack" in listed and "farshore-registrar-shore" in listed

    eventually(prepared, "the operator makes no registrars")
    yield name
    world.check_invariants(name)


def _register(key: RegistrationKey, state: Path, name: str = "ps-a") -> None:
    register(registering_client(key), key, candidate(state, name), StateDir(state), lambda: datetime.now(UTC))


def _servers(world: Installation, namespace: str) -> list[str]:
    return [server.metadata.name for server in world.all(ProcessServer, namespace)]


def test_the_command_line_issues_lists_and_revokes_keys(world: Installation, namespace: str, tmp_path: Path) -> None:
    file = tmp_path / "key.yaml"
    world.farshore("site", "registration-key", "stack", "--out", str(file), "-n", namespace)
    assert file.stat().st_mode & 0o777 == 0o600
    key = RegistrationKey.parse(file.read_text(), "key")
    assert (key.site, key.namespace, key.server) == ("stack", namespace, world.plane.server)
    assert timedelta(days=4, hours=23) < key.expires - datetime.now(UTC) <= timedelta(days=5)
    assert key.name in world.farshore("site", "keys", "-n", namespace).stdout
    words = ["processserver", "--registration-key", str(file), "--name", "ps-a", "--state", str(tmp_path / "state")]
    world.farshore(*words, "--register-only")
    server = world.wait(ProcessServer, namespace, "ps-a", lambda server: condition(server, "Registered") == "True")
    assert server.spec.site_ref.name == "stack"
    assert all(file.stat().st_mode & 0o077 == 0 for file in (tmp_path / "state").rglob("*") if file.is_file())
    world.farshore("site", "revoke-key", "stack", key.name, "-n", namespace)
    assert issued(world.admin, namespace) == ()
    missing = world.farshore("site", "registration-key", "nowhere", "-n", namespace, check=False)
    assert missing.returncode == 1
    assert f"there is no Site {namespace}/nowhere" in missing.stderr


def _expired(world: Installation, namespace: str, key: RegistrationKey) -> RegistrationKey:
    return replace(key, expires=datetime.now(UTC) - timedelta(minutes=1))


def _of_another_cluster(world: Installation, namespace: str, key: RegistrationKey) -> RegistrationKey:
    other = make_authority("other", datetime.now(UTC), timedelta(days=1))
    return replace(key, authority=other.certificate)


def _with_another_token(world: Installation, namespace: str, key: RegistrationKey) -> RegistrationKey:
    head, body, _ = key.token.split(".")
    return replace(key, token=".".join((head, body, base64.urlsafe_b64encode(b"x" * 256).decode().rstrip("="))))


def _for_another_site(world: Installation, namespace: str, key: RegistrationKey) -> RegistrationKey:
    return replace(key, site="shore")


def _revoked(world: Installation, namespace: str, key: RegistrationKey) -> RegistrationKey:
    world.farshore("site", "revoke-key", "stack", key.name, "-n", namespace)
    eventually(lambda: _unknown(key), "the API server still accepts the token of a key that was revoked")
    return key


def _unknown(key: RegistrationKey) -> bool:
    """Tell whether the API server has learned that the key's Secret is gone, which takes it a moment."""
    try:
        registering_client(key).clock_skew()
    except Unauthorized:
        return True
    return False


@pytest.mark.parametrize(
    ("spoil", "expected", "sentence"),
    [
        pytest.param(_expired, "KeyExpired", "expired at", id="expired"),
        pytest.param(_of_another_cluster, "KeyForeign", "belongs to another cluster", id="another-cluster"),
        pytest.param(_with_another_token, "KeyRevoked", "revoked, or belongs to another cluster", id="another-token"),
        pytest.param(_for_another_site, "KeyForeign", "this registration key is for site stack", id="another-site"),
        pytest.param(_revoked, "KeyRevoked", "it was revoked", id="revoked"),
    ],
)
def test_a_bad_key_is_refused_before_anything_is_written(
    world: Installation, namespace: str, tmp_path: Path, spoil: object, expected: str, sentence: str
) -> None:
    assert callable(spoil)
    key = spoil(world, namespace, issue_key(world, namespace, "stack"))
    with pytest.raises(StopFault) as refused:
        _register(key, tmp_path)
    assert refused.value.reason == expected
    assert sentence in refused.value.message
    assert "farshore site registration-key" in refused.value.remedy
    assert _servers(world, namespace) == []


def test_a_wrong_clock_is_refused_before_anything_is_written(
    world: Installation, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = issue_key(world, namespace, "stack")
    real = time.time
    monkeypatch.setattr(client_module.time, "time", lambda: real() + 400)
    with pytest.raises(StopFault, match=r"clock is (39|40)\d s ahead of the API server's") as refused:
        _register(key, tmp_path)
    assert refused.value.reason == "ClockSkew"
    monkeypatch.undo()
    assert _servers(world, namespace) == []


def test_the_operator_refuses_a_clock_by_the_time_at_which_the_report_was_written(
    world: Installation, namespace: str, tmp_path: Path
) -> None:
    """An appliance that says its clock is right, but whose report is dated ten minutes from now, is not believed."""
    key = issue_key(world, namespace, "stack")
    _ask(world, key, tmp_path, datetime.now(UTC) + timedelta(minutes=10))
    server = world.wait(ProcessServer, namespace, "ps-a", lambda s: reason(s, "Registered") == "ClockSkew")
    # The API server notes the time of a write in whole seconds, and a busy machine takes its time.
    assert re.search(r"its clock is (5\d\d|60\d) s ahead of the API server", message(server, "Registered"))
    assert condition(server, "Stalled") == "True"
    assert server.status.registration is not None and server.status.registration.sealed_token is None
    _ask(world, key, tmp_path, datetime.now(UTC))
    world.wait(ProcessServer, namespace, "ps-a", lambda s: condition(s, "Registered") == "True")


def _ask(world: Installation, key: RegistrationKey, state: Path, contact: datetime) -> None:
    """Ask for a registration as the appliance's command does, without its checks."""
    speaker = registering_client(key)
    if speaker.get(PROCESS_SERVER, key.namespace, "ps-a") is None:
        meta = {"name": "ps-a", "annotations": {"farshore.dev/registration-key": key.name}}
        spec = {"siteRef": {"name": key.site}}
        speaker.create(PROCESS_SERVER, key.namespace, {"metadata": meta, "spec": spec})
    report = ApplianceReport(
        version="test",
        address="127.0.0.1",
        data_port=9443,
        last_contact=contact,
        clock_skew_seconds=0.0,
        spool=SpoolReport(used_bytes=0, size_bytes=0),
        certificate_request=ServerIdentity(state, "ps-a").request,
        public_key=public_key(StateDir(state).sealing_key()),
    )
    status = {"appliance": report.model_dump(mode="json", by_alias=True, exclude_none=True)}
    speaker.apply(PROCESS_SERVER, key.namespace, {"metadata": {"name": "ps-a"}, "status": status}, "status")


def test_the_operator_refuses_a_key_that_has_expired_in_its_secret(
    world: Installation, namespace: str, tmp_path: Path
) -> None:
    key = issue_key(world, namespace, "stack")
    past = {"metadata": {"annotations": {"farshore.dev/expires": "2025-01-31T08:00:00Z"}}}
    world.admin.merge(SECRET, namespace, key.name, past)
    with pytest.raises(StopFault, match="expired at 2025-01-31T08:00:00Z") as refused:
        _register(key, tmp_path)
    assert refused.value.reason == "KeyExpired"


def test_a_registered_name_cannot_be_taken_by_another_appliance(
    world: Installation, namespace: str, tmp_path: Path
) -> None:
    key = issue_key(world, namespace, "stack")
    _register(key, tmp_path / "first")
    with pytest.raises(StopFault) as refused:
        _register(key, tmp_path / "second")
    assert refused.value.reason == "NameTaken"
    with pytest.raises(Fault):  # nor without the command's own checks
        _ask(world, key, tmp_path / "second", datetime.now(UTC))
    with pytest.raises(StopFault, match="belongs to site stack") as foreign:
        _register(issue_key(world, namespace, "shore"), tmp_path / "third")
    assert foreign.value.reason == "KeyForeign"


def test_a_process_server_stays_within_its_limits(world: Installation, namespace: str, tmp_path: Path) -> None:
    mine, other = samples("ProtectedVM")[0], samples("ProtectedVM")[0]
    mine["spec"]["processServerRef"] = {"name": "ps-a"}
    other["metadata"]["name"] = "db-01"
    other["spec"] |= {"processServerRef": {"name": "ps-b"}}
    other["spec"]["source"]["credentialsSecretRef"] = {"name": "db-ssh"}
    login = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db-ssh"}, "stringData": {"password": "x"}}
    with (
        PlayedAppliance(world, namespace, "stack", "ps-a", tmp_path) as a,
        PlayedAppliance(world, namespace, "stack", "ps-b", tmp_path),
    ):
        world.apply(namespace, login, mine, other)
        for name, server in (("web-01", "ps-a"), ("db-01", "ps-b")):
            world.wait(
                ProtectedVM,
                namespace,
                name,
                lambda vm, server=server: (
                    vm.status.assignment is not None and vm.status.assignment.process_server == server
                ),
            )
        for secret in ("web-ssh", "vault-key"):
            eventually(lambda secret=secret: _readable(a, namespace, secret), f"it may not read {secret}")  # type: ignore[misc]
        for secret in ("db-ssh", "farshore-ca"):
            with pytest.raises(Forbidden):
                a.client.get(SECRET, namespace, secret)
        with pytest.raises(Forbidden):
            a.client.list_all(SECRET, namespace)
        status = {"replication": {"processServer": "ps-a", "epoch": 9, "state": "Replicating"}}
        with pytest.raises(Fault, match="is assigned to process server ps-b"):
            a.client.apply(PROTECTED_VM, namespace, {"metadata": {"name": "db-01"}, "status": status}, "status")
        with pytest.raises(Fault, match="writes only status"):
            phase = {"phase": "FailedOver"}
            a.client.apply(PROTECTED_VM, namespace, {"metadata": {"name": "web-01"}, "status": phase}, "status")
        with pytest.raises(Fault):
            a.client.request_token(namespace, "farshore-ps-ps-b", 3600)


def _readable(appliance: PlayedAppliance, namespace: str, secret: str) -> bool:
    try:
        return appliance.client.get(SECRET, namespace, secret) is not None
    except Forbidden:
        return False


def test_a_lost_process_server_shows_and_returns(world: Installation, namespace: str, tmp_path: Path) -> None:
    with PlayedAppliance(world, namespace, "stack", "ps-a", tmp_path) as appliance:
        world.wait(ProcessServer, namespace, "ps-a", lambda server: condition(server, "Connected") == "True")
        appliance.stop()
        # Within thirty seconds, where the machine is not busy.
        lost = world.wait(ProcessServer, namespace, "ps-a", lambda s: condition(s, "Connected") == "False")
        assert "last contact" in message(lost)
        assert condition(lost, "Ready") == "False"
        assert lost.status.last_heartbeat is not None
        assert f"{lost.status.last_heartbeat:%Y-%m-%dT%H:%M:%SZ}" in message(lost)
    with PlayedAppliance(world, namespace, "stack", "ps-a", tmp_path):
        world.wait(ProcessServer, namespace, "ps-a", lambda server: condition(server, "Ready") == "True")


def test_a_refresh_renews_the_token_and_shows_contact_at_once(
    world: Installation, namespace: str, tmp_path: Path
) -> None:
    with PlayedAppliance(world, namespace, "stack", "ps-a", tmp_path) as appliance:
        world.wait(ProcessServer, namespace, "ps-a", lambda server: condition(server, "Ready") == "True")
        before = StateDir(appliance.state).token()
        time.sleep(1.1)  # a token of the same second would have the same times
        told = world.farshore("site", "refresh", "stack", "--timeout", "240", "-n", namespace).stdout
        assert "ps-a: last contact" in told
        after = StateDir(appliance.state).token()
        assert after != before
        claims = json.loads(base64.urlsafe_b64decode(after.split(".")[1] + "=="))
        assert claims["kubernetes.io"]["serviceaccount"]["name"] == "farshore-ps-ps-a"
        # It goes on with the new one.
        appliance.client.get(PROCESS_SERVER, namespace, "ps-a")


def test_no_secret_is_in_a_status_an_event_or_the_operators_log(
    world: Installation, namespace: str, tmp_path: Path
) -> None:
    password = f"hunter2-{secrets.token_hex(8)}"
    login = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "web-ssh"},
        "stringData": {"password": password},
    }
    with PlayedAppliance(world, namespace, "stack", "ps-a", tmp_path) as appliance:
        world.apply(namespace, login, *samples("ProtectedVM"))
        world.wait(ProtectedVM, namespace, "web-01", lambda vm: vm.status.agent is not None)
        token = StateDir(appliance.state).token()
        seen = world.plane.kubectl("-n", namespace, "get", "farshore,events.events.k8s.io", "-o", "yaml").stdout
        seen += world.operator_log(10_000)
    for secret in (password, base64.b64encode(password.encode()).decode(), token, "PRIVATE KEY"):
        assert secret not in seen
