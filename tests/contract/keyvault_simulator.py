"""Azure Key Vault and its token service as far as wrapping needs them: real RSA, real TLS, and their refusals.

Requests are read and answered by the models of Microsoft's own SDK, so a field that the service does not know fails.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import secrets
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from azure.keyvault.keys._generated.models import KeyBundle, KeyOperationResult, KeyOperationsParameters
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from pydantic import SecretStr

from farshore_engine.contract.assignment import KeyVaultAccess

OAEP = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
TENANT, CLIENT = "11111111-2222-3333-4444-555555555555", "66666666-7777-8888-9999-000000000000"


@dataclass
class Version:
    private: rsa.RSAPrivateKey
    enabled: bool = True


@dataclass
class KeyVault:
    """The state. `trouble` is a list of (status, headers) that the next requests to the vault get."""

    address: str = ""
    certificate: Path = Path()
    secret: str = field(default_factory=lambda: secrets.token_hex(8))
    keys: dict[str, dict[str, Version]] = field(default_factory=dict)
    granted: set[str] = field(default_factory=lambda: {"get", "wrapKey", "unwrapKey"})
    tokens: set[str] = field(default_factory=set)
    trouble: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)

    def new_version(self, name: str) -> str:
        version = secrets.token_hex(16)
        self.keys.setdefault(name, {})[version] = Version(rsa.generate_private_key(65537, 2048))
        return version

    def access(self, key_name: str, **changes: Any) -> KeyVaultAccess:
        given = {
            "url": self.address, "key_name": key_name, "tenant_id": TENANT, "client_id": CLIENT,
            "client_secret": SecretStr(self.secret), "authority": self.address.removeprefix("https://"),
        }  # fmt: skip
        return KeyVaultAccess(**{**given, **changes})

    @property
    def options(self) -> dict[str, Any]:
        """What a client must be told because this is no public host."""
        return {"connection_verify": str(self.certificate), "verify_challenge_resource": False}


class Refused(Exception):
    def __init__(self, status: int, code: str, inner: str = "", headers: dict[str, str] | None = None) -> None:
        super().__init__(code)
        self.status, self.headers = status, headers or {}
        self.error: dict[str, Any] = {"code": code, "message": code}
        if inner:
            self.error["innererror"] = {"code": inner}


class Handler(BaseHTTPRequestHandler):
    vault: KeyVault
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def _answer(self, method: str) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = urlsplit(self.path).path.strip("/").split("/")
        headers: dict[str, str] = {}
        try:
            status, content = 200, self._token(path, body) if path[0] == TENANT else self._vault(method, path, body)
        except Refused as refused:
            status, headers = refused.status, refused.headers
            content = {"error": refused.error}
            if path[0] == TENANT:
                content = {"error": refused.error["code"], "error_description": "AADSTS7000215"}
        data = json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _token(self, path: list[str], body: bytes) -> dict[str, Any]:
        base = f"{self.vault.address}/{TENANT}"
        if path[-1] == "openid-configuration":
            return {
                "issuer": f"{base}/v2.0",
                "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
                "token_endpoint": f"{base}/oauth2/v2.0/token",
            }
        given = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        if (given.get("client_id"), given.get("client_secret")) != (CLIENT, self.vault.secret):
            raise Refused(401, "invalid_client")
        token = secrets.token_hex(16)
        self.vault.tokens.add(token)
        return {"token_type": "Bearer", "expires_in": 3600, "access_token": token}

    def _vault(self, method: str, path: list[str], body: bytes) -> dict[str, Any]:
        vault = self.vault
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in vault.tokens:
            challenge = f'Bearer authorization="{vault.address}/{TENANT}", resource="https://vault.azure.net"'
            raise Refused(401, "Unauthorized", headers={"WWW-Authenticate": challenge})
        if vault.trouble:
            status, headers = vault.trouble.pop(0)
            raise Refused(status, {429: "Throttled"}.get(status, "InternalServerError"), headers=headers)
        if "api-version" not in parse_qs(urlsplit(self.path).query) or path[0] != "keys":
            raise Refused(400, "BadParameter")
        operation = {"wrapkey": "wrapKey", "unwrapkey": "unwrapKey"}[path[3]] if method == "POST" else "get"
        vault.calls.append(operation)
        if operation not in vault.granted:
            raise Refused(403, "Forbidden", "ForbiddenByRbac")
        versions = vault.keys.get(path[1], {})
        wanted = path[2] if len(path) > 2 and path[2] else next(reversed(versions), "")
        if wanted not in versions:
            raise Refused(404, "KeyNotFound")
        kid = f"{vault.address}/keys/{path[1]}/{wanted}"
        if operation == "get":
            return self._bundle(kid, versions[wanted])
        return self._operate(operation, kid, versions[wanted], json.loads(body))

    @staticmethod
    def _bundle(kid: str, version: Version) -> dict[str, Any]:
        numbers = version.private.public_key().public_numbers()
        content = {
            "key": {
                "kid": kid, "kty": "RSA", "key_ops": ["wrapKey", "unwrapKey"],
                "n": _text(numbers.n.to_bytes(256, "big")), "e": _text(numbers.e.to_bytes(3, "big")),
            },
            "attributes": {"enabled": version.enabled, "created": 1700000000, "updated": 1700000000},
        }  # fmt: skip
        return dict(KeyBundle(content).as_dict())

    @staticmethod
    def _operate(operation: str, kid: str, version: Version, body: dict[str, Any]) -> dict[str, Any]:
        if not version.enabled:
            raise Refused(403, "Forbidden", "KeyDisabled")
        asked = KeyOperationsParameters(body)
        if set(body) - {"alg", "value"} or asked.algorithm != "RSA-OAEP-256":
            raise Refused(400, "BadParameter")
        try:
            if operation == "wrapKey":
                result = version.private.public_key().encrypt(asked.value, OAEP)
            else:
                result = version.private.decrypt(asked.value, OAEP)
        except ValueError as error:
            raise Refused(400, "BadParameter") from error
        return dict(KeyOperationResult({"kid": kid, "value": _text(result)}).as_dict())


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@contextmanager
def running(directory: Path) -> Iterator[KeyVault]:
    """Serve a key vault on a port of its own."""
    vault = KeyVault()
    certificate, key = _certificate(directory)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"vault": vault}))
    server.daemon_threads = True
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    vault.address, vault.certificate = f"https://127.0.0.1:{server.server_address[1]}", certificate
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield vault
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _certificate(directory: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "key vault of a test")])
    now = datetime.datetime.now(datetime.UTC)
    built = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1)).not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(True, None), True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    certificate, private = directory / "vault.pem", directory / "vault.key"
    certificate.write_bytes(built.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    return certificate, private
