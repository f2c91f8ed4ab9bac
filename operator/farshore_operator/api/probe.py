"""How a recovered machine is asked from outside whether it really serves, in a drill and after a failover."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_operator.api.cel import Rule, exactly_one
from farshore_operator.api.resource import Model, Reference, map_by
from farshore_operator.api.values import Duration, Port, Word


class TCPProbe(Model):
    """Connects to a port of the recovered machine."""

    port: Port
    """TCP port that must accept a connection."""


class HTTPProbe(Model):
    """Asks a web server on the recovered machine."""

    rules = (
        Rule(
            "!has(self.path) || self.path.startsWith('/')",
            "a path begins with a slash: write / or, for example, /health",
            path=".path",
        ),
    )

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
    """Waits for the greeting of the recovered machine's SSH server, or runs a command on it."""

    port: Port = 22
    """TCP port of the SSH server. Default: 22."""
    command: Annotated[tuple[Annotated[str, Field(max_length=4096)], ...], Field(max_length=64)] = ()
    """Command with its arguments that must end with 0, as the login of the ProtectedVM's credentials, without a shell
    of its own: for one, write sh, -c and the line. It is repeated until it does. Default: the server's greeting is
    enough."""


class DatabaseEngine(StrEnum):
    """Which protocol a database speaks."""

    POSTGRESQL = "postgresql"
    MYSQL = "mysql"  # and MariaDB


DATABASE_PORTS = {DatabaseEngine.POSTGRESQL: 5432, DatabaseEngine.MYSQL: 3306}


class SQLProbe(Model):
    """Asks a database on the recovered machine. What the query changes is rolled back."""

    engine: DatabaseEngine
    """postgresql, or mysql (also for MariaDB)."""
    query: Annotated[str, Field(min_length=1, max_length=4096)]
    """Query that must return at least one row; the first one is the answer, which the status shows."""
    database: Word | None = None
    """Name of the database. Default: the server's own for the user."""
    port: Port | None = None
    """TCP port of the database server. Default: 5432 for postgresql, 3306 for mysql."""
    tls: bool = False
    """Whether to speak TLS; the certificate is not verified, because the address is not the usual one. Default:
    false."""
    credentials_secret_ref: Reference | None = None
    """Secret with username and password. Default: user postgres or root, without a password."""


class Probe(Model):
    """One question to the recovered machine: exactly one of tcp, http, ssh and sql."""

    rules = (
        Rule(
            exactly_one("tcp", "http", "ssh", "sql"),
            "a probe asks exactly one thing: set one of tcp, http, ssh or sql, and write further probes as further "
            "entries",
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of the probe, shown with its answer."""
    tcp: TCPProbe | None = None
    """Asks whether a port accepts connections."""
    http: HTTPProbe | None = None
    """Asks a web server for a page."""
    ssh: SSHProbe | None = None
    """Asks for the greeting of an SSH server, or runs a command through it."""
    sql: SQLProbe | None = None
    """Asks a database for a row."""
    timeout: Duration = timedelta(minutes=5)
    """How long the machine may take from its start until it answers. Default: 5m."""


Probes = Annotated[tuple[Probe, ...], Field(max_length=16, json_schema_extra=map_by("name"))]
