"""Keys and certificate requests of a process server, made where they are used."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import NameOID

from farshore_engine.contract.faults import StopFault


def make_key() -> str:
    """Return a new private key, PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def make_request(key: str, name: str) -> str:
    """Return a certificate request (PEM) for a private key (PEM).

    Raises:
        StopFault: the key cannot be read.
    """
    try:
        loaded = load_pem_private_key(key.encode(), password=None)
    except ValueError as error:
        raise StopFault("the private key of the data port is damaged", "Remove it: a new one is made") from error
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise StopFault("the private key of the data port is not an EC key", "Remove it: a new one is made")
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(loaded, hashes.SHA256())
    return request.public_bytes(Encoding.PEM).decode()
