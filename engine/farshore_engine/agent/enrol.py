"""Enrolment of a machine that was installed by hand: trades a one-time token for the machine's key and certificate.

The token names the machine and the fingerprint of the certificate authority, so the machine knows whom to trust before
it says anything: it looks at the chain of the server without sending a byte, takes the authority with that
fingerprint out of it, connects again with full verification, and only then shows its token. Standard library only.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
import socket
import ssl
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from farshore_engine.agent.channel import CONNECT_SECONDS, SERVER_NAME
from farshore_engine.agent.config import Server
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.wire.frames import PeerClosed, WireError, receive_frame, send_frame
from farshore_engine.wire.messages import Enrol, Enrolled, Refuse, decode

VERSION = "fse1"
ENCODING_DER = 2  # of the certificates that OpenSSL's objects hold
PATIENCE_SECONDS = 120.0  # for a certificate that is being signed
WAIT_REASONS = ("NoCertificateYet", "NotReady", "NotAssigned")


@dataclass(frozen=True, slots=True)
class Token:
    """A one-time token.

    Attributes:
        machine_id: the machine that it is for.
        fingerprint: SHA-256 of the certificate authority (DER), hexadecimal.
        expires: seconds since the epoch.
        secret: what nobody can guess.
    """

    machine_id: str
    fingerprint: str
    expires: int
    secret: str = field(repr=False)

    @classmethod
    def issue(cls, machine_id: str, ca: str, expires: int) -> Token:
        """Make a token for a machine; `ca` is the PEM of the certificate authority."""
        der = ssl.PEM_cert_to_DER_cert(ca)
        return cls(machine_id, hashlib.sha256(der).hexdigest(), expires, secrets.token_urlsafe(32))

    def text(self) -> str:
        """Return the token as users hand it on."""
        head = json.dumps({"m": self.machine_id, "c": self.fingerprint, "e": self.expires}, separators=(",", ":"))
        return f"{VERSION}.{base64.urlsafe_b64encode(head.encode()).decode().rstrip('=')}.{self.secret}"

    @classmethod
    def parse(cls, text: str) -> Token:
        """Read a token; raises StopFault when it is none (its text is not repeated)."""
        parts = text.strip().split(".")
        try:
            version, head, secret = parts
            if version != VERSION or not secret:
                raise ValueError
            body = json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))
            return cls(str(body["m"]), str(body["c"]), int(body["e"]), secret)
        except (ValueError, KeyError, TypeError):
            raise StopFault(
                "this is not an enrolment token",
                "Copy the whole token that `farshore agent token VM` printed",
                reason="BadToken",
            ) from None

    def expired(self, now: float) -> bool:
        """Whether it is too late to use it."""
        return now >= self.expires


def expired(text: str, now: float) -> bool:
    """Whether a token's text is too old at `now` (seconds since the epoch); a text that is no token never is."""
    try:
        return Token.parse(text).expired(now)
    except StopFault:
        return False


@dataclass(frozen=True, slots=True)
class Place:
    """Where the configuration goes, and what else goes into it."""

    directory: Path
    interpreter: tuple[str, ...]
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def enrol(servers: tuple[Server, ...], token: Token, place: Place, sleep: Callable[[float], None] = time.sleep) -> None:
    """Enrol with the first server that answers and write the agent's configuration.

    Raises:
        StopFault: the token is expired or refused, or the server is not the one that the token names.
        WaitFault: no server can be reached, or the machine's certificate is not signed in time.
    """
    if token.expired(time.time()):
        raise StopFault("the token has expired", "Issue a new one: farshore agent token VM", reason="TokenExpired")
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        answer = _ask_any(servers, token)
        if isinstance(answer, Enrolled):
            break
        if answer.reason not in WAIT_REASONS or time.monotonic() > deadline:
            kind = WaitFault if answer.reason in WAIT_REASONS else StopFault
            raise kind(
                f"the process server refused: {answer.message}",
                "Check that the ProtectedVM has `install: Manual`, and issue a new token: farshore agent token VM",
                reason=answer.reason,
            )
        sleep(min(max(answer.retry_after, 1.0), 10.0))
    _write(servers, token, place, answer)


def _ask_any(servers: tuple[Server, ...], token: Token) -> Enrolled | Refuse:
    failures = []
    for server in servers:
        try:
            return ask(server, token)
        except (OSError, PeerClosed, WireError) as error:
            failures.append(f"{server.host}:{server.port}: {error}")
    raise WaitFault(
        f"no process server can be reached: {'; '.join(failures)}",
        "Open the data port from this machine to the process server, and check the address",
        reason="ServerUnreachable",
    )


def ask(server: Server, token: Token) -> Enrolled | Refuse:
    """Show the token to a server that proved to be the one it names; raises OSError, StopFault."""
    authority = _authority(server, token.fingerprint)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority)
    with _connect(server, context) as secured:
        message = Enrol(machine_id=token.machine_id, token=token.text())
        send_frame(secured, message.kind, message.to_header())
        frame = receive_frame(secured)
        answer = decode(frame.kind, frame.header)
    if not isinstance(answer, Enrolled | Refuse):
        raise WireError(f"{frame.kind.name} instead of an answer to the enrolment")
    return answer


def _authority(server: Server, fingerprint: str) -> bytes:
    """Look at the server's chain, saying nothing, and return the authority (DER) that the token names."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with _connect(server, context) as secured:
        # Public since Python 3.13; the object below has had it since 3.10, and the bundle brings its own interpreter.
        chain = secured._sslobj.get_unverified_chain()  # type: ignore[attr-defined]
        certificates = [bytes(certificate.public_bytes(ENCODING_DER)) for certificate in chain or ()]
    for der in certificates:
        if hmac.compare_digest(hashlib.sha256(der).hexdigest(), fingerprint):
            return der
    seen = ", ".join(hashlib.sha256(der).hexdigest()[:16] for der in certificates) or "none"
    raise StopFault(
        f"{server.host}:{server.port} is not the process server of this token: its certificate authority has another "
        f"fingerprint (expected {fingerprint[:16]}…, got {seen})",
        "Check the address; if it is right, somebody answers in its place, or the token is of another cluster",
        reason="WrongAuthority",
    )


def _connect(server: Server, context: ssl.SSLContext) -> ssl.SSLSocket:
    plain = socket.create_connection((server.host, server.port), timeout=CONNECT_SECONDS)
    try:
        return context.wrap_socket(plain, server_hostname=SERVER_NAME)
    except OSError:
        plain.close()
        raise


def _write(servers: tuple[Server, ...], token: Token, place: Place, identity: Enrolled) -> None:
    directory = place.directory
    directory.mkdir(parents=True, exist_ok=True)
    directory.chmod(0o700)
    config = {
        "machineId": token.machine_id,
        "servers": [{"host": server.host, "port": server.port} for server in servers],
        "ca": str(directory / "ca.pem"),
        "certificate": str(directory / "certificate.pem"),
        "key": str(directory / "key.pem"),
        "disks": {"include": list(place.include), "exclude": list(place.exclude)},
        "interpreter": list(place.interpreter),
    }
    files = {
        "ca.pem": identity.ca,
        "certificate.pem": identity.certificate,
        "key.pem": identity.key,
        "config.json": json.dumps(config, separators=(",", ":")),
    }
    for name, text in files.items():
        new = directory / f".{name}.new"
        new.unlink(missing_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        new.replace(directory / name)


def bundle_interpreter() -> tuple[str, ...]:
    """Return the command line of the interpreter that runs now: the bundle's loader, if it is a bundle."""
    root = Path(sys.prefix).resolve()
    loader = root / "lib/ld-linux-x86-64.so.2"
    if not (root / "bundle.json").exists():
        return (sys.executable, "-I")
    return (str(loader), "--library-path", str(root / "lib"), str(root / "bin/python3"), "-I")


def parse_server(text: str) -> Server:
    """Read HOST or HOST:PORT ([HOST]:PORT for IPv6); raises StopFault."""
    host, port = text, "9443"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise StopFault(f"{text!r} is not HOST:PORT", "Name the process server's data port", reason="BadServer")
    return Server(host, int(port))
