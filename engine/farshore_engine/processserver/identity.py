"""Keys and certificate requests made on the appliance, and the TLS settings of the data port.

Private keys never leave the state directory but for the machine that they were made for.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from farshore_engine.contract.faults import StopFault

SERVER_NAME = "farshore-process-server"
MACHINE_URI = "farshore:machine:"


def write_private(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, in one step, durable."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.new")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """Return the key kept at `path`, made if there is none.

    Raises:
        StopFault: the file is there but holds no such key.
    """
    if not path.exists():
        key = ec.generate_private_key(ec.SECP256R1())
        form = serialization.PrivateFormat.PKCS8
        write_private(path, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
        return key
    try:
        loaded = serialization.load_pem_private_key(path.read_bytes(), None)
    except ValueError as error:
        raise _bad_key(path) from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise _bad_key(path)
    return loaded


def _bad_key(path: Path) -> StopFault:
    return StopFault(f"{path.name} is not a private key", f"Remove {path}; a new one is made", reason="BadKeyFile")


def machine_request(key: ec.EllipticCurvePrivateKey, machine_id: str) -> str:
    """Return the certificate request (PEM) of a machine."""
    return _request(key, machine_id, [x509.UniformResourceIdentifier(MACHINE_URI + machine_id)])


def server_request(key: ec.EllipticCurvePrivateKey, name: str) -> str:
    """Return the certificate request (PEM) of a process server's data port."""
    return _request(key, name, [x509.DNSName(SERVER_NAME)])


def _request(key: ec.EllipticCurvePrivateKey, name: str, names: list[x509.GeneralName]) -> str:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    request = builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.PEM).decode()


class KeptIdentity:
    """A key and its certificate request, kept in files: another text of the request asks for another certificate.

    Raises StopFault when the key's file is damaged.
    """

    def __init__(self, key_file: Path, make_request: Callable[[ec.EllipticCurvePrivateKey], str]) -> None:
        """Load or make them; the request is kept beside the key."""
        self.key_file = key_file
        self._request_file = key_file.with_name(key_file.name.replace("key", "request"))
        self._make_request = make_request
        self.key = private_key(key_file)
        if not self._request_file.exists():
            self.renew()

    @property
    def request(self) -> str:
        """The certificate request (PEM)."""
        return self._request_file.read_text()

    def renew(self) -> None:
        """Make another request for the same key."""
        write_private(self._request_file, self._make_request(self.key).encode())

    def key_pem(self) -> str:
        """Return the private key (PEM)."""
        return self.key_file.read_text()


class ServerIdentity(KeptIdentity):
    """That of the data port. Registration uses it too, so that the first certificate is for the key that will serve."""

    def __init__(self, state_dir: Path, name: str) -> None:
        """Load or make it; `name` is the process server's."""
        super().__init__(state_dir / "data-port-key.pem", lambda key: server_request(key, name))


class MachineIdentity(KeptIdentity):
    """That of a source machine, made here and given to its agent."""

    def __init__(self, directory: Path, machine_id: str) -> None:
        """Load or make it in the machine's own directory."""
        super().__init__(directory / "key.pem", lambda key: machine_request(key, machine_id))


def fits(key: ec.EllipticCurvePrivateKey, certificate: str) -> bool:
    """Return whether a certificate (PEM) was made for this key."""
    try:
        public = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    except ValueError:
        return False
    return (
        isinstance(public, ec.EllipticCurvePublicKey) and public.public_numbers() == key.public_key().public_numbers()
    )


def expiry(certificate: str) -> datetime:
    """Return when a certificate (PEM) expires, in UTC."""
    return x509.load_pem_x509_certificate(certificate.encode()).not_valid_after_utc


def renewal_due(certificate: str, now: datetime) -> bool:
    """Return whether two thirds of a certificate's life are over."""
    loaded = x509.load_pem_x509_certificate(certificate.encode())
    begin, end = loaded.not_valid_before_utc, loaded.not_valid_after_utc
    return now >= begin + (end - begin) * 2 / 3


def data_port_context(key_file: Path, certificate: str, ca: str) -> ssl.SSLContext:
    """Return the TLS settings of the data port: 1.3 only; who shows no certificate can do nothing but enrol.

    The certificate authority is sent along, so that an enrolling machine can compare it with its token.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_OPTIONAL
    context.load_verify_locations(cadata=ca)
    chain = key_file.with_name("data-port.pem")
    write_private(chain, f"{certificate.strip()}\n{ca.strip()}\n".encode())
    context.load_cert_chain(chain, key_file)
    return context


def peer_machine(connection: ssl.SSLSocket) -> str | None:
    """Return the machine that the peer's verified certificate names, None without one.

    Raises:
        ValueError: the certificate names no machine, or names two different ones.
    """
    certificate = connection.getpeercert()
    if not certificate:
        return None
    names = cast(tuple[tuple[str, str], ...], certificate.get("subjectAltName", ()))
    uris = [value for kind, value in names if kind == "URI" and value.startswith(MACHINE_URI)]
    machines = {uri.removeprefix(MACHINE_URI) for uri in uris}
    if len(machines) != 1:
        raise ValueError("the certificate names no machine")
    return machines.pop()
