"""What the tests of push share: an identity with real certificates, a source, and ways to break a machine."""

from __future__ import annotations

import dataclasses
import datetime
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import SecretStr
from tests.machines.backing import insist
from tests.machines.namespace_source import NamespaceSource

from farshore_engine.bundle import Bundle
from farshore_engine.contract.assignment import Source, SSHCredentials
from farshore_engine.processserver.installer import AgentIdentity, DataPort

MACHINE_ID = "shop.db1"
Done = TypeVar("Done")


@cache
def certificates() -> tuple[str, str, str]:
    """CA, certificate and key as PEM."""

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.datetime.now(datetime.UTC)
    ca_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

    def build(subject: str, public: ec.EllipticCurvePublicKey) -> str:
        builder = x509.CertificateBuilder().subject_name(name(subject)).issuer_name(name("test CA")).public_key(public)
        builder = builder.serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
        signed = builder.not_valid_after(now + datetime.timedelta(days=1)).sign(ca_key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    return build("test CA", ca_key.public_key()), build(MACHINE_ID, key.public_key()), pem


def identity(*servers: DataPort) -> AgentIdentity:
    """An identity for `MACHINE_ID`; nobody needs to listen at the servers."""
    ca, certificate, key = certificates()
    return AgentIdentity(MACHINE_ID, servers or (DataPort("127.0.0.1", 9443),), ca, certificate, key)


def source_of(machine: NamespaceSource, **credentials: str) -> Source:
    """The machine with the given credentials, by default its password."""
    given = credentials or {"password": machine.password}
    secrets = {name: SecretStr(value) for name, value in given.items()}
    return Source(address=machine.address, credentials=SSHCredentials(username=machine.user, **secrets))


def reload_sshd(machine: NamespaceSource) -> None:
    """Make the machine's sshd read its configuration again and wait until it greets."""
    before = _listening(machine)
    machine.exec(
        "for p in /proc/[0-9]*; do"
        ' if [ "$(cat $p/comm 2>/dev/null)" = sshd ] && grep -q "^PPid:.1$" $p/status; then kill -HUP ${p#/proc/}; fi;'
        " done"
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if _listening(machine) <= before:  # with the old configuration, or not at all
            time.sleep(0.02)
            continue
        with suppress(OSError), socket.create_connection((machine.address, 22), timeout=20) as probe:
            if probe.recv(4) == b"SSH-":
                return
        time.sleep(0.05)
    raise RuntimeError("sshd did not come back")


def _listening(machine: NamespaceSource) -> set[str]:
    """Return the inodes of the sockets that listen at port 22 in the machine."""
    rows = [line.split() for line in Path(f"/proc/{machine.pid}/net/tcp").read_text().splitlines()[1:]]
    return {row[9] for row in rows if row[1].endswith(":0016") and row[3] == "0A"}


def pushed(step: Callable[[], Done]) -> Done:
    """Do a step of a push, again while the machine is too busy for it, as a process server does."""
    return insist(step, 900, 5)


@dataclass(frozen=True)
class Shell:
    """A way to break a machine: shell commands; `sshd` has the daemon read its configuration again."""

    commands: str
    sshd: bool = False

    def apply(self, machine: NamespaceSource) -> None:
        machine.exec(self.commands)
        if self.sshd:
            reload_sshd(machine)


def agent_pid(machine: NamespaceSource) -> int:
    """The agent's process in the machine; raises when it does not run."""
    return int(machine.exec("kill -0 $(cat /run/farshore-agent.pid) && cat /run/farshore-agent.pid").stdout)


def with_id(bundle: Bundle, name: str) -> Bundle:
    """The same bundle under another id, as a different version would be."""
    return dataclasses.replace(bundle, id=name)
