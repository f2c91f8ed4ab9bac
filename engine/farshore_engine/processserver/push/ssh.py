"""The SSH connection to a source machine: logs in, becomes root, runs scripts, and says plainly what stands in the way.

The host key is compared before anything secret is sent. A password goes to the server's prompt or to sudo's standard
input, never into a command line. Everything that asyncssh can raise is translated here, once.
"""

from __future__ import annotations

import asyncio
import logging
import shlex
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncssh

from farshore_engine.contract.assignment import Source, SSHCredentials
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.processserver.push.login import Login, describe_login, load_keys
from farshore_engine.processserver.push.sudo import Elevation, find_elevation

CONNECT_SECONDS = 10.0
LOGIN_SECONDS = 30.0
PATH = """\
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C
export PATH LC_ALL
umask 022
"""
# Pinned type first: the server must not be able to choose another key of its own that we do not know.
HOST_KEY_TYPES: tuple[str, ...] = (
    "ssh-ed25519",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "rsa-sha2-512",
    "rsa-sha2-256",
    "ssh-rsa",
)

logging.getLogger("asyncssh").setLevel(logging.WARNING)  # its INFO names users, hosts and commands


@dataclass(frozen=True)
class Completed:
    """How a command ended: exit status (-1: killed by a signal) and what it wrote."""

    status: int
    stdout: str
    stderr: str

    def said(self) -> str:
        """Return the end of what it wrote, for a message."""
        return (self.stderr.strip() or self.stdout.strip() or "it said nothing")[-600:]


class HostKeyChanged(StopFault):
    """The machine shows another host key than the pinned one."""


class LoginRefused(StopFault):
    """The machine does not accept the credentials; `host_key` is what it showed before."""

    host_key = ""


class Unreachable(WaitFault):
    """Nothing answers at the machine's SSH port, or not SSH."""


class Connection:
    """An open connection; made by `connect`. Not for concurrent use by several tasks.

    Attributes:
        host_key: the machine's key as type and base64 on a line.
        user: the login's name.
    """

    def __init__(self, raw: asyncssh.SSHClientConnection, host_key: str, source: Source, user: str) -> None:
        self._raw = raw
        self._elevation: Elevation | None = None
        self.host_key = host_key
        self.source = source
        self.user = user

    @property
    def address(self) -> str:
        """Return how the machine is named in messages."""
        return f"{self.source.address}:{self.source.port}"

    async def elevate(self) -> Elevation:
        """Find out how to become root; raises StopFault with the reason that sudo gives."""
        if self._elevation is None:
            self._elevation = await find_elevation(self.execute, self.source.credentials or SSHCredentials())
        return self._elevation

    async def script(
        self,
        text: str,
        variables: Mapping[str, str] | None = None,
        *,
        root: bool = True,
        stdin: bytes = b"",
        timeout: float = 60,
    ) -> Completed:
        """Run a POSIX shell script, as root unless told otherwise.

        The script and its variables are visible in the machine's process list: no secret may be in them; give those
        by `stdin`.

        Args:
            timeout: seconds.

        Raises:
            WaitFault: the connection broke, or the time was up.
            StopFault: root cannot be had.
        """
        settings = "".join(f"{name}={shlex.quote(value)}\n" for name, value in (variables or {}).items())
        command = f"exec sh -c {shlex.quote(PATH + settings + text)}"
        if root:
            elevation = await self.elevate()
            command = elevation.wrap(f"sh -c {shlex.quote(PATH + settings + text)}")
            stdin = elevation.prompt_answer + stdin
        return await self.execute(command, stdin=stdin, timeout=timeout)

    async def execute(self, command: str, *, stdin: bytes = b"", timeout: float = 60) -> Completed:
        """Run a command line of the login shell."""
        try:
            done = await self._raw.run(command, input=stdin, encoding=None, timeout=timeout, check=False)
        except asyncssh.TimeoutError as error:
            raise WaitFault(
                f"{self.address}: a command did not end within {timeout:.0f} s",
                "Look at the load of the machine",
                reason="CommandTimeout",
            ) from error
        except (asyncssh.Error, OSError) as error:
            raise WaitFault(f"{self.address}: the SSH connection broke: {error}", reason="ConnectionLost") from error
        status = done.exit_status if done.exit_status is not None else -1
        return Completed(status, _text(done.stdout), _text(done.stderr))

    @asynccontextmanager
    async def sftp(self) -> AsyncIterator[asyncssh.SFTPClient]:
        """Open the SFTP subsystem, as the login's user.

        Raises:
            StopFault: the server offers none (`NoSFTP`).
            WaitFault: the connection broke.
        """
        try:
            async with asyncio.timeout(LOGIN_SECONDS):
                client = await self._raw.start_sftp_client()
        except (asyncssh.ChannelOpenError, asyncssh.SFTPError, TimeoutError) as error:
            raise StopFault(
                f"{self.address} offers no SFTP subsystem ({_words(error)})",
                "Uncomment or add the line `Subsystem sftp internal-sftp` in /etc/ssh/sshd_config and restart sshd "
                "(`farshore prepare linux` prints a script that does it)",
                reason="NoSFTP",
            ) from error
        except (asyncssh.Error, OSError) as error:
            raise WaitFault(f"{self.address}: the SSH connection broke: {error}", reason="ConnectionLost") from error
        async with client:
            yield client

    async def reaches(self, host: str, port: int, *, timeout: float = 8) -> bool | None:
        """Whether the machine can open a TCP connection to host and port, tried through a channel of the server.

        None means that the server does not allow such channels, so that it cannot be told this way.
        """
        try:
            async with asyncio.timeout(timeout):
                _, writer = await self._raw.open_connection(host, port)
        except TimeoutError:
            return False
        except asyncssh.ChannelOpenError as error:
            return False if error.code == asyncssh.OPEN_CONNECT_FAILED else None
        except (asyncssh.Error, OSError) as error:
            raise WaitFault(f"{self.address}: the SSH connection broke: {error}", reason="ConnectionLost") from error
        writer.close()
        return True


@asynccontextmanager
async def connect(source: Source) -> AsyncIterator[Connection]:
    """Log in to a machine.

    Raises:
        WaitFault: it cannot be reached, or does not speak SSH (`Unreachable`).
        StopFault: host key changed, credentials refused or unusable, no common algorithm.
    """
    credentials = source.credentials
    if credentials is None:
        raise StopFault(
            f"there are no credentials for {source.address}",
            "Name a Secret in spec.source.credentialsSecretRef, or set install: Manual",
            reason="NoCredentials",
        )
    login = Login(source, load_keys(credentials))
    # The two waits of asyncssh overlap (each covers name resolution and TCP too), so the outer bound is the sum.
    try:
        async with asyncio.timeout(CONNECT_SECONDS + LOGIN_SECONDS):
            raw = await asyncssh.connect(
                source.address,
                source.port,
                username=credentials.username,
                client_factory=lambda: login,
                known_hosts=([], [], []),  # empty, not None: asyncssh then asks `login` about the key
                server_host_key_algs=_ordered_types(source.host_key),
                config=None,
                agent_path=None,
                gss_host=None,
                client_keys=None,
                compression_algs=None,  # the bundle is compressed already
                connect_timeout=CONNECT_SECONDS,
                login_timeout=LOGIN_SECONDS,
                keepalive_interval=15,
                keepalive_count_max=4,
            )
    except (asyncssh.Error, OSError, ValueError) as error:  # TimeoutError and gaierror are OSErrors
        raise _translate(error, source, login) from error
    async with raw:
        yield Connection(raw, login.host_key, source, credentials.username)


def _ordered_types(pinned: str | None) -> list[str]:
    kind = (pinned or "").partition(" ")[0]
    names = {kind, "rsa-sha2-512", "rsa-sha2-256"} if kind == "ssh-rsa" else {kind}
    return sorted(HOST_KEY_TYPES, key=lambda name: name not in names)


def _translate(error: Exception, source: Source, login: Login) -> StopFault | WaitFault:
    where = f"{source.address}:{source.port}"
    if login.changed_from:
        return HostKeyChanged(
            f"the host key of {where} is not the pinned one: expected {login.changed_from}, got {login.fingerprint}",
            f"If the machine was built anew, set spec.source.hostKey of the ProtectedVM to {login.host_key!r}; if not, "
            "somebody answers in its place: find out who",
            reason="HostKeyChanged",
        )
    if isinstance(error, asyncssh.PermissionDenied):
        refused = LoginRefused(*describe_login(source, login), reason="LoginRefused")
        refused.host_key = login.host_key
        return refused
    if isinstance(error, asyncssh.KeyExchangeFailed | asyncssh.ProtocolNotSupported):
        return StopFault(
            f"{where} and this process server have no SSH algorithm in common: {error}",
            "Update openssh-server in the machine",
            reason="NoCommonAlgorithm",
        )
    return _unreachable(error, source, where)


def _unreachable(error: Exception, source: Source, where: str) -> Unreachable:
    reason, what = "Unreachable", f"{where} cannot be reached: {_words(error)}"
    remedy = f"Open port {source.port} from this process server to the machine, and check spec.source.address"
    if isinstance(error, ConnectionRefusedError):
        reason, what = "ConnectionRefused", f"{where} refused the connection"
        remedy = f"Start sshd in the machine, on port {source.port}; check that the address is the machine's"
    elif isinstance(error, socket.gaierror):
        reason, what = "NameNotResolved", f"the name {source.address} cannot be resolved"
        remedy = "Use the machine's private IP address, or correct the name"
    elif isinstance(error, TimeoutError):
        reason, what = "ConnectTimeout", f"{where} did not answer within {CONNECT_SECONDS:.0f} s"
        remedy = f"{remedy}; a firewall that drops packets looks like this"
    elif isinstance(error, asyncssh.Error):
        reason, what = "NotSSH", f"{where} answered, but the SSH handshake failed: {_words(error)}"
        remedy = "Check that sshd listens there, and its log (MaxStartups, DenyUsers, TCP wrappers)"
    return Unreachable(what, remedy, reason=reason)


def _words(error: Exception) -> str:
    text = getattr(error, "reason", "") or getattr(error, "strerror", "") or str(error)
    return str(text).strip().rstrip(".") or type(error).__name__


def _text(data: object) -> str:
    return data.decode("utf-8", "replace") if isinstance(data, bytes) else ""
