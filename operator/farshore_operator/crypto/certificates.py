"""The certificate authority of a namespace's sites: it signs process servers and machines, and forces who they are.

A request brings a public key and nothing else that is believed: subject and names are set by the operator.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from farshore_engine.contract.faults import StopFault

PROCESS_SERVER_NAME = "farshore-process-server"
"""The name that agents verify, whatever address they dial."""

BACKDATE = timedelta(minutes=10)
"""Certificates begin a little earlier, for clocks that are late by less than what is refused."""


@dataclass(frozen=True)
class Authority:
    """A CA: certificate and private key, both PEM."""

    certificate: str
    key: str

    def __repr__(self) -> str:
        """Show no secret."""
        return "Authority()"


@dataclass(frozen=True)
class Signed:
    """A signed certificate (PEM) and when it ends."""

    certificate: str
    expires: datetime


def make_authority(namespace: str, now: datetime, life: timedelta) -> Authority:
    """Make a CA for `namespace`, valid for `life` from `now`."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"farshore-ca {namespace}"[:64])])
    usage = x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(now + life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Authority(certificate.public_bytes(Encoding.PEM).decode(), pem)


def sign_process_server(ca: Authority, request: str, address: str, now: datetime, life: timedelta) -> Signed:
    """Sign a process server's request for `farshore-process-server` and its `address` (IP or DNS name).

    Raises:
        StopFault: the request cannot be read, or the address is none.
    """
    names: list[x509.GeneralName] = [x509.DNSName(PROCESS_SERVER_NAME)]
    if address:
        names.append(_name(address))
    return _sign(ca, request, PROCESS_SERVER_NAME, names, now, life)


def _name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        pass
    try:
        return x509.DNSName(address)
    except ValueError as error:
        raise StopFault(
            f"the process server's address {address!r} is neither an IP address nor a DNS name",
            "Start it with --advertise ADDRESS",
            reason="BadAddress",
        ) from error


def sign_machine(ca: Authority, request: str, machine_id: str, now: datetime, life: timedelta) -> Signed:
    """Sign a machine's request; common name and URI are `farshore:machine:<machine_id>`, whatever it asked for.

    Raises:
        StopFault: the request cannot be read.
    """
    identity = f"farshore:machine:{machine_id}"
    # A common name holds 64 characters; the URI is what is checked when the name is longer.
    return _sign(ca, request, identity[:64], [x509.UniformResourceIdentifier(identity)], now, life)


def request_digest(request: str) -> str:
    """Return a short name of the request's public key: a certificate belongs to a request when these are equal.

    Raises:
        StopFault: the request cannot be read.
    """
    return _digest(_load(request).public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def certificate_digest(certificate: str) -> str:
    """Return the digest of the certificate's public key, empty if it cannot be read."""
    try:
        key = x509.load_pem_x509_certificate(certificate.encode()).public_key()
    except ValueError:
        return ""
    return _digest(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def _digest(data: bytes) -> str:
    digest = hashes.Hash(hashes.SHA256())
    digest.update(data)
    return digest.finalize().hex()[:16]


def _load(request: str) -> x509.CertificateSigningRequest:
    try:
        loaded = x509.load_pem_x509_csr(request.encode())
        valid = loaded.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise _unreadable() from error
    if not valid:
        raise _unreadable()
    return loaded


def _unreadable() -> StopFault:
    return StopFault(
        "a certificate request cannot be read or is not signed by its own key",
        "Restart the process server; it makes a new one",
        reason="BadCertificateRequest",
    )


def _sign(
    ca: Authority, request: str, name: str, names: list[x509.GeneralName], now: datetime, life: timedelta
) -> Signed:
    loaded = _load(request)
    issuer = x509.load_pem_x509_certificate(ca.certificate.encode())
    key = load_pem_private_key(ca.key.encode(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise StopFault("the key of the certificate authority is not an EC key", "Restore Secret farshore-ca")
    expires = min(now + life, issuer.not_valid_after_utc).replace(microsecond=0)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(issuer.subject)
        .public_key(loaded.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATE)
        .not_valid_after(expires)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(loaded.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return Signed(certificate.public_bytes(Encoding.PEM).decode(), expires)
