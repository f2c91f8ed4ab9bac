"""How a recovered machine is asked from outside whether it really serves, in a drill and after a failover."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from farshore_operator.api.cel import Rule, exactly_one
from farshore_operator.api.resource import Model, map_by
from farshore_operator.api.values import Duration, Port


class TCPProbe(Model):
    """Connects to a port of the recovered machine."""

    port: Port
    """TCP port that must accept a connection."""


class HTTPProbe(Model):
    """Asks a web server on the recovered machine."""

    port: Port = 80
    """TCP port of the web server. Default: 80."""
    path: Annotated[str, Field(max_length=1024)] = "/"
    """Path that is asked for. Default: /."""
    status: Annotated[int, Field(ge=100, le=599)] = 200
    """HTTP status that it must answer. Default: 200."""
    tls: bool = False
    """Whether to speak HTTPS; the certificate is not verified, because the address is not the usual one. Default:
    false."""


class SSHProbe(Model):
    """Waits for the greeting of the recovered machine's SSH server."""

    port: Port = 22
    """TCP port of the SSH server. Default: 22."""


class Probe(Model):
    """One question to the recovered machine: exactly one of tcp, http and ssh."""

    rules = (
        Rule(
            exactly_one("tcp", "http", "ssh"),
            "a probe asks exactly one thing: set one of tcp, http or ssh, and write further probes as further entries",
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of the probe, shown with its answer."""
    tcp: TCPProbe | None = None
    """Asks whether a port accepts connections."""
    http: HTTPProbe | None = None
    """Asks a web server for a page."""
    ssh: SSHProbe | None = None
    """Asks for the greeting of an SSH server."""
    timeout: Duration = timedelta(minutes=5)
    """How long the machine may take from its start until it answers. Default: 5m."""


Probes = Annotated[tuple[Probe, ...], Field(max_length=16, json_schema_extra=map_by("name"))]
