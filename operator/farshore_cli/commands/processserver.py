"""`farshore processserver`: registers this host as a process server when it is told a key, and runs it."""

from __future__ import annotations

import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from farshore_cli.formats import LogFormat, LogLevel
from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from farshore_operator.kube.appliance.statedir import Registration, StateDir

app = typer.Typer()

DATA_PORT = 9443


@app.command("processserver")
def processserver(
    state: Annotated[Path, typer.Option(help="Directory for keys, spool and recovered disks.")],
    name: Annotated[str, typer.Option(help="Name of the ProcessServer; needed to register.")] = "",
    registration_key: Annotated[
        Path | None, typer.Option(help="Key of `farshore site registration-key`; needed once.")
    ] = None,
    listen: Annotated[str, typer.Option(help="Address of the data port.")] = "0.0.0.0",
    advertise: Annotated[str, typer.Option(help="Address at which machines reach it. Default: found out.")] = "",
    data_port: Annotated[int, typer.Option(help="Data port of a new ProcessServer; later its spec says.")] = DATA_PORT,
    spool_size: Annotated[str, typer.Option(help="Spool of a new ProcessServer, such as 20Gi.")] = "",
    metrics_port: Annotated[int, typer.Option(help="Port of /metrics, /livez, /readyz; 0: none.")] = 0,
    machines: Annotated[
        Path | None,
        typer.Option(help="Run directory of this host's own machines, which it may power off, write back and start."),
    ] = None,
    cloud_machine: Annotated[
        str, typer.Option(help="Name of this host's machine at the site's Azure Stack Hub. Default: by its addresses.")
    ] = "",
    cloud_disks: Annotated[
        Path | None,
        typer.Option(help="Directory with a link lunN to each data disk. Default: that of the Azure Linux agent."),
    ] = None,
    register_only: Annotated[bool, typer.Option("--register-only", help="Register and end.")] = False,
    log_level: Annotated[LogLevel, typer.Option(help="What to log, and what is graver.")] = LogLevel.INFO,
    log_format: Annotated[LogFormat, typer.Option(help="How to log.")] = LogFormat.JSON,
) -> None:
    """Run a process server of a site; with a registration key, register it first."""
    from farshore_cli.processserver import Options, run
    from farshore_operator.kube.appliance.statedir import StateDir
    from farshore_operator.report import logs

    logs.configure(log_level, log_format)
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept = StateDir(state)
    registration = _registration(state, kept, name, registration_key, (advertise, data_port, spool_size))
    if register_only:
        return
    address = advertise or own_address(registration.server)
    run(registration, kept, Options(state, listen, address, metrics_port, machines, cloud_machine, cloud_disks))


def own_address(server: str) -> str:
    """Return the address of this host from which it reaches the API server (URL); nothing is sent."""
    parts = urlsplit(server)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((parts.hostname or "127.0.0.1", parts.port or 443))
        except OSError as error:
            raise StopFault(
                f"the address of this host cannot be found out: {error}", "Say it with --advertise ADDRESS"
            ) from error
        return str(probe.getsockname()[0])


def _registration(
    state: Path, kept: StateDir, name: str, file: Path | None, wishes: tuple[str, int, str]
) -> Registration:
    """Return the registration of the state directory, made with the key if there is none."""
    found = kept.load()
    if found is not None and name and name != found.name:
        raise StopFault(
            f"this state directory belongs to process server {found.name}, not {name}",
            "Use another --state, or leave --name out",
            reason="NameTaken",
        )
    if found is not None and (file is None or kept.token()) and not _expired(kept):
        return found
    if file is None or not name:
        why = "its token has expired" if found is not None else "this state directory holds no registration"
        raise StopFault(why, "Register with --registration-key FILE --name NAME", reason="NotRegistered")
    return _register(state, kept, name, file, wishes)


def _expired(kept: StateDir) -> bool:
    from farshore_operator.kube.appliance.credentials import lifetime

    token = kept.token()
    return not token or lifetime(token)[1] <= datetime.now(UTC)


def _register(state: Path, kept: StateDir, name: str, file: Path, wishes: tuple[str, int, str]) -> Registration:
    from farshore_engine.processserver.heartbeat import can_run_machines, product_version
    from farshore_engine.processserver.identity import ServerIdentity
    from farshore_operator.api.values import parse_quantity
    from farshore_operator.kube import connection
    from farshore_operator.kube.appliance.credentials import MANAGER
    from farshore_operator.kube.appliance.registering import Candidate, register
    from farshore_operator.kube.client import Client
    from farshore_operator.kube.registrationkey import RegistrationKey

    try:
        key = RegistrationKey.parse(file.read_text(), str(file))
    except OSError as error:
        raise StopFault(f"the registration key cannot be read: {error}", "Check --registration-key") from error
    advertise, data_port, spool = wishes
    try:
        size = parse_quantity(spool) if spool else 0
    except ValueError as error:
        raise StopFault(f"--spool-size: {error}") from error
    client = Client(connection.with_token(key.server, key.authority, key.token), MANAGER)
    candidate = Candidate(
        name=name,
        version=product_version(),
        address=advertise or own_address(key.server),
        data_port=data_port,
        spool_bytes=int(str(size)),
        certificate_request=ServerIdentity(state, name).request,
        can_run_machines=can_run_machines(),
    )
    registration = register(client, key, candidate, kept, lambda: datetime.now(UTC))
    print(f"{name} is registered at site {registration.site} of {registration.server}", file=sys.stderr)
    return registration
