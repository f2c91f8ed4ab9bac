"""The operator's settings: typed, built once from the command line or the environment, and passed in."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True)
class Timing:
    """How often and how long the operator waits."""

    reference_retry: timedelta = timedelta(seconds=8)  # a missing secret shows as resolved within ten seconds
    resync: timedelta = timedelta(minutes=5)  # everything is looked at again, whatever the watch said
    lease_poll: timedelta = timedelta(seconds=4)
    site_recovery: timedelta = timedelta(seconds=15)  # between two looks at the vaults of engine siteRecovery
    lease_lost: timedelta = timedelta(seconds=20)  # four missed heartbeats; with the poll it shows within 30 s
    reassign_after: timedelta = timedelta(minutes=2)  # a process server that is away for longer loses its machines
    let_go_after: timedelta = timedelta(minutes=10)  # deletion stops waiting for a source that is out of reach
    service_lets_go_after: timedelta = timedelta(hours=1)  # as much for a service, which is asked again meanwhile
    certificate_life: timedelta = timedelta(days=90)
    ca_life: timedelta = timedelta(days=3650)
    token_life: timedelta = timedelta(days=7)  # of a process server; it renews at half of it


@dataclass(frozen=True)
class Settings:
    """What the operator is told when it starts.

    Attributes:
        namespaces: the namespaces to serve; empty for all of them.
        health_port: port of `/livez`, `/readyz` and `/metrics`; 0 chooses a free one.
        workers: reconciliations that run side by side.
    """

    namespaces: tuple[str, ...] = ()
    health_host: str = "0.0.0.0"
    health_port: int = 8080
    log_level: str = "info"
    log_format: str = "json"
    workers: int = 8
    timing: Timing = field(default_factory=Timing)

    @classmethod
    def from_environment(cls) -> Settings:
        """Build settings for `kopf run -m farshore_operator.main`, where there is no command line of ours."""
        names = os.environ.get("FARSHORE_NAMESPACES", "")
        return cls(
            namespaces=tuple(n for n in names.split(",") if n),
            health_port=int(os.environ.get("FARSHORE_HEALTH_PORT", "8080")),
            log_level=os.environ.get("FARSHORE_LOG_LEVEL", "info"),
            log_format=os.environ.get("FARSHORE_LOG_FORMAT", "json"),
        )
