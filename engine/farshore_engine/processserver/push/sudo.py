"""How a login becomes root: it is root, sudo asks for nothing, or sudo takes the password on standard input."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Protocol

from farshore_engine.contract.assignment import SSHCredentials
from farshore_engine.contract.faults import StopFault


class _Result(Protocol):
    @property
    def status(self) -> int: ...
    @property
    def stdout(self) -> str: ...
    @property
    def stderr(self) -> str: ...


class Execute(Protocol):
    """Runs a command line of the login shell."""

    def __call__(self, command: str, *, stdin: bytes = b"", timeout: float = 60) -> Awaitable[_Result]:
        """Run it."""
        ...


@dataclass(frozen=True)
class Elevation:
    """How to run something as root.

    Attributes:
        prefix: what stands before the command; empty for root.
        prompt_answer: what sudo reads on standard input before the command does: the password, or nothing.
    """

    how: str
    prefix: str
    prompt_answer: bytes = field(default=b"", repr=False)

    def wrap(self, command: str) -> str:
        """Return the command line that runs `command` as root."""
        return f"{self.prefix} {command}" if self.prefix else f"exec {command}"


# -k: never rely on, or leave, a cached answer; so whether a password is read does not depend on the past.
WITHOUT_PASSWORD = "env LC_ALL=C sudo -k -n"
WITH_PASSWORD = "env LC_ALL=C sudo -k -S -p ''"


async def find_elevation(execute: Execute, credentials: SSHCredentials) -> Elevation:
    """Find out by trying, with harmless commands.

    Raises:
        StopFault: the user is not root and sudo is missing, refuses, wants a terminal, or refuses the password.
    """
    user = credentials.username
    if (await execute("id -u", timeout=30)).stdout.strip() == "0":
        return Elevation(f"{user} is root", "")
    silent = await execute(f"{WITHOUT_PASSWORD} id -u", timeout=30)
    if silent.status == 0 and silent.stdout.strip() == "0":
        return Elevation(f"{user} may use sudo without a password", WITHOUT_PASSWORD)
    secret = credentials.sudo_password or credentials.password
    if secret is None or _hopeless(silent):
        raise _refusal(silent, user, has_password=secret is not None)
    answer = secret.get_secret_value().encode() + b"\n"
    loud = await execute(f"{WITH_PASSWORD} id -u", stdin=answer, timeout=30)
    if loud.status == 0 and loud.stdout.strip() == "0":
        return Elevation(f"{user} may use sudo with a password", WITH_PASSWORD, answer)
    raise _refusal(loud, user, has_password=True)


def _hopeless(result: _Result) -> bool:
    return result.status == 127 or "must have a tty" in result.stderr


def _refusal(result: _Result, user: str, *, has_password: bool) -> StopFault:
    said = result.stderr.strip()
    if result.status == 127 or "command not found" in said or "No such file" in said:
        reason, what = "SudoMissing", f"user {user} is not root, and the machine has no sudo"
        remedy = f"Install sudo and let {user} use it, or log in as root"
    elif "must have a tty" in said:
        reason, what = "SudoRequiresTTY", f"sudo refuses user {user} without a terminal (requiretty)"
        remedy = f"Add the line `Defaults:{user} !requiretty` to /etc/sudoers.d/farshore"
    elif "not in the sudoers" in said or "not allowed" in said or "may not run sudo" in said:
        reason, what = "SudoRefused", f"sudo does not let user {user} become root"
        remedy = f"Add the line `{user} ALL=(ALL) NOPASSWD: ALL` to /etc/sudoers.d/farshore (mode 440)"
    elif has_password and ("incorrect password" in said or "try again" in said or "password is required" in said):
        reason, what = "SudoPasswordRefused", f"sudo refused the password of user {user}"
        remedy = "Correct `sudoPassword` (or, without it, `password`) in the Secret"
    elif "password is required" in said:
        reason, what = "SudoPasswordMissing", f"sudo wants a password of user {user}, and the Secret holds none"
        remedy = f"Put `sudoPassword` into the Secret, or let {user} use sudo without one (NOPASSWD)"
    else:
        reason, what = "SudoFailed", f"sudo failed for user {user}: {said[-300:] or f'exit code {result.status}'}"
        remedy = "Run `sudo id` in the machine as that user to see the cause"
    return StopFault(what, remedy, reason=reason)
