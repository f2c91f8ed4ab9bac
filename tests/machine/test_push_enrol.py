"""The manual install: a bundle carried in by hand, a one-time token, the real data port."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from tests.machine.push_rig import MACHINE_ID, agent_pid, source_of
from tests.machines.namespace_source import NamespaceSource, SourceDisk

from farshore_engine.agent.config import Server, load
from farshore_engine.agent.enrol import Place, Token, enrol
from farshore_engine.bundle import build_bundle
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.processserver.dataport import DataPort
from farshore_engine.processserver.identity import ServerIdentity, data_port_context, machine_request, private_key
from farshore_engine.processserver.metrics import Metrics
from farshore_engine.processserver.push import PushInstaller
from farshore_engine.processserver.replica import Replica
from farshore_engine.wire.messages import Enrolled, Refuse
from farshore_operator.crypto.certificates import Authority, make_authority, sign_machine, sign_process_server

LIFE = timedelta(days=1)


@dataclasses.dataclass
class Site:
    """A data port with an authority of its own; `answers` are given to enrolments in turn, then the identity."""

    authority: Authority
    port: int
    identity: Enrolled
    answers: list[Refuse] = dataclasses.field(default_factory=list)
    asked: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    def replica_of(self, machine_id: str) -> Replica | Refuse:
        self.asked.append((machine_id, "hello"))
        return Refuse("NotReady", "this test only enrols", 5.0)

    def enrol(self, machine_id: str, token: str) -> Enrolled | Refuse:
        self.asked.append((machine_id, token))
        return self.answers.pop(0) if self.answers else self.identity

    def token(self, seconds: float = 3600) -> Token:
        return Token.issue(MACHINE_ID, self.authority.certificate, int(time.time() + seconds))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    now, state = datetime.now(UTC), tmp_path / "server"
    state.mkdir()
    authority = make_authority("shop", now, LIFE)
    server = ServerIdentity(state, "ps-1")
    signed = sign_process_server(authority, server.request, "127.0.0.1", now, LIFE)
    key = private_key(state / "machine-key.pem")
    certificate = sign_machine(authority, machine_request(key, MACHINE_ID), MACHINE_ID, now, LIFE).certificate
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    found = Site(authority, 0, Enrolled(certificate=certificate, key=pem, ca=authority.certificate))
    listener = DataPort("0.0.0.0", 0, found, Metrics())
    listener.use(data_port_context(server.key_file, signed.certificate, authority.certificate))
    listener.start()
    found.port = listener.port
    yield found
    listener.close()


def here(site: Site) -> tuple[Server, ...]:
    return (Server("127.0.0.1", site.port),)


def test_a_machine_trades_its_token_for_its_identity(site: Site, tmp_path: Path) -> None:
    token, directory = site.token(), tmp_path / "agent"
    site.answers.append(Refuse("NoCertificateYet", "not signed yet", 1.0))
    waited: list[float] = []
    enrol(here(site), token, Place(directory, ("python3",), exclude=("sdb",)), waited.append)
    assert site.asked == [(MACHINE_ID, token.text())] * 2
    assert waited == [1.0]
    config = load(directory / "config.json")
    assert (config.machine_id, config.servers, config.disks.exclude) == (MACHINE_ID, here(site), ("sdb",))
    assert config.key.read_text() == site.identity.key
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_a_used_token_is_refused_and_nothing_is_written(site: Site, tmp_path: Path) -> None:
    site.answers.append(Refuse("BadToken", "the token is unknown, expired or used up", 60.0))
    with pytest.raises(StopFault, match="used up") as caught:
        enrol(here(site), site.token(), Place(tmp_path / "agent", ()))
    assert "farshore agent token" in caught.value.remedy
    assert not (tmp_path / "agent").exists()


def test_the_token_is_not_shown_to_a_server_of_another_authority(site: Site, tmp_path: Path) -> None:
    other = make_authority("shop", datetime.now(UTC), LIFE)
    token = Token.issue(MACHINE_ID, other.certificate, int(time.time() + 60))
    with pytest.raises(StopFault, match="another fingerprint"):
        enrol(here(site), token, Place(tmp_path / "agent", ()))
    assert site.asked == []


def test_an_expired_token_and_an_unreachable_server_are_told_apart(site: Site, tmp_path: Path) -> None:
    with pytest.raises(StopFault, match="expired"):
        enrol(here(site), site.token(seconds=-1), Place(tmp_path / "agent", ()))
    with pytest.raises(WaitFault, match="no process server can be reached"):
        enrol((Server("127.0.0.1", 1),), site.token(), Place(tmp_path / "agent", ()))
    assert site.asked == []


@pytest.mark.parametrize("text", ["", "hello", "fse1.%%%.x", "fse1.e30.x", "fse2.e30.x"])
def test_what_is_no_token_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(StopFault) as caught:
        Token.parse(text)
    assert caught.value.reason == "BadToken"
    assert not text or text not in str(caught.value)


def test_token_survives_its_text_and_hides_its_secret(site: Site) -> None:
    token = site.token()
    assert Token.parse(f" {token.text()}\n") == token
    assert token.secret not in repr(token)


def test_a_bundle_carried_in_by_hand_installs_enrols_and_dials(site: Site) -> None:
    bundle = build_bundle()
    with NamespaceSource((SourceDisk(size_mib=32),)) as machine:
        root = Path(f"/proc/{machine.pid}/root")
        shutil.copyfile(bundle.path, root / "root/agent.tar.gz")
        machine.exec("mkdir /root/agent && tar -xzf /root/agent.tar.gz -C /root/agent")
        line = f"sh /root/agent/install.sh --server {machine.gateway}:{site.port} --token -"
        said = machine.exec(line, stdin=site.token().text() + "\n", timeout=300)
        first = agent_pid(machine)
        assert '"enrolled"' in said.stderr
        config = json.loads(machine.exec("cat /etc/farshore/agent/config.json").stdout)
        assert config["interpreter"][0] == f"/opt/farshore/{bundle.id}/lib/ld-linux-x86-64.so.2"
        assert machine.exec("readlink /opt/farshore/current").stdout.strip() == bundle.id
        deadline = time.monotonic() + 120
        while (MACHINE_ID, "hello") not in site.asked:
            assert time.monotonic() < deadline, "the agent dials with its new certificate"
            time.sleep(0.2)

        machine.exec("sh /root/agent/install.sh", timeout=300)
        assert agent_pid(machine) == first, "a second run leaves a current agent alone"
        PushInstaller(bundle).uninstall(source_of(machine))
        assert machine.exec("ls -d /opt/farshore /etc/farshore 2>/dev/null; true").stdout == ""
