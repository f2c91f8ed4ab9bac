"""The port through which the process server reaches into a source machine: checks, push, removal, power-off.

The supervisor and the tasks know only this; SSH lives behind it (`farshore_engine.processserver.push`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from farshore_engine.contract.assignment import Source
from farshore_engine.contract.replication import Check, CheckResult


@dataclass(frozen=True)
class DataPort:
    """Where the machine's agent reaches this process server."""

    host: str
    port: int


@dataclass(frozen=True)
class PreflightOutcome:
    """What the checks found. `host_key`: type and base64 as seen, empty when the machine did not get that far."""

    checks: tuple[Check, ...]
    host_key: str = ""

    @property
    def errors(self) -> tuple[Check, ...]:
        """The checks that block an installation."""
        return tuple(c for c in self.checks if c.result is CheckResult.ERROR)


@dataclass(frozen=True)
class AgentIdentity:
    """What the agent of one machine needs to dial in. PEM texts; `key` is the machine's private key: never log it.

    `disk_names` has serial number and id of disks that the machine cannot give their ids by itself.
    """

    machine_id: str
    servers: tuple[DataPort, ...]
    ca: str
    certificate: str
    key: str = field(repr=False)
    disk_names: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class InstallOutcome:
    """The agent that now runs: its bundle's version, and the host key of the machine it was pushed to."""

    version: str
    host_key: str


class Installer(Protocol):
    """Reaches into a machine over its `Source`.

    Guarantees: thread-safe for different machines; every call bounds its own time; all are repeatable, also after a
    crash in the middle. When `source.host_key` is set the machine's key must equal it; when it is None the key seen
    is returned, so that the caller pins it.

    Every call but `preflight` raises:
        WaitFault: the machine is unreachable or busy; the caller repeats.
        StopFault: login refused, host key changed, a check failed, or no room: needs a person.
    """

    def preflight(self, source: Source, data_port: DataPort) -> PreflightOutcome:
        """Run every check without changing the machine; failures are checks in the outcome, never exceptions."""
        ...

    def install(self, source: Source, identity: AgentIdentity, progress: Callable[[str], None]) -> InstallOutcome:
        """Put bundle and configuration in place and start the agent; upgrades in place, does nothing when current.

        `progress` is called with a short sentence at each step.
        """
        ...

    def uninstall(self, source: Source) -> None:
        """Stop the agent and remove everything that `install` made; succeeds when there is nothing left."""
        ...

    def shutdown(self, source: Source, asking: Callable[[], None] = lambda: None) -> bool:
        """Power the machine off; return whether it was seen to be off (it no longer answers).

        `asking` is called once we are logged in, just before the machine is asked: what is silent from then on may
        count as off. A machine of which nothing answers raises WaitFault, `Unreachable` or `ConnectTimeout`.
        """
        ...

    def bundle_version(self) -> str:
        """Return the version of the agent bundle that `install` would push; another one is upgraded."""
        ...
