"""`farshore site`: registration keys of a site, a refresh of its process servers, the machines that it has."""

from __future__ import annotations

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farshore_cli.formats import Format
from farshore_engine.contract.faults import StopFault, WaitFault

if TYPE_CHECKING:
    from farshore_operator.api import ProcessServer
    from farshore_operator.kube.client import Client

app = typer.Typer(
    name="site", help="Registration keys of a site, its process servers, and its machines.", no_args_is_help=True
)

Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Default: the current context's.")]
Site = Annotated[str, typer.Argument(help="Name of the Site.")]


@app.command("registration-key")
def registration_key(
    site: Site,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File for the key (0600). Default: stdout.")] = None,
    namespace: Namespace = "",
) -> None:
    """Issue a registration key, valid five days and for this site only, with which process servers register."""
    from farshore_operator.kube.connection import authority_of, current_namespace, from_environment
    from farshore_operator.kube.registrationkey import issue

    api = from_environment()
    key = issue(_client(), authority_of(api), namespace or current_namespace(), site, datetime.now(UTC))
    if out is None:
        print(key.dump(), end="")
    else:
        descriptor = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(key.dump())
        print(f"registration key {key.name} for site {site}, valid until {key.expires:%Y-%m-%d %H:%M} UTC: {out}")
    print(f"revoke it with: farshore site revoke-key {site} {key.name}", file=sys.stderr)


@app.command("keys")
def keys(
    site: Annotated[str, typer.Argument(help="Name of the Site. Default: all.")] = "", namespace: Namespace = ""
) -> None:
    """List the registration keys that are not revoked."""
    from farshore_operator.kube.connection import current_namespace
    from farshore_operator.kube.registrationkey import issued

    found = issued(_client(), namespace or current_namespace(), site)
    if not found:
        print("there are no registration keys")
        return
    now = datetime.now(UTC)
    width = max(len(key.name) for key in found)
    for key in found:
        if key.expires is None:
            state = "no expiry known"
        else:
            word = "expired" if key.expires <= now else "valid until"
            state = f"{word} {key.expires:%Y-%m-%d %H:%M} UTC"
        print(f"{key.name:<{width}}  site {key.site}  {state}")


@app.command("revoke-key")
def revoke_key(
    site: Site,
    name: Annotated[str, typer.Argument(help="Name of the key, as `farshore site keys` lists it.")],
    namespace: Namespace = "",
) -> None:
    """Revoke a registration key. Process servers that have registered with it stay registered."""
    from farshore_operator.kube.connection import current_namespace
    from farshore_operator.kube.registrationkey import revoke

    revoke(_client(), namespace or current_namespace(), site, name)
    print(f"registration key {name} is revoked")


@app.command("refresh")
def refresh(
    site: Site,
    namespace: Namespace = "",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the process servers.")] = 60.0,
) -> None:
    """Let the site's process servers renew their credentials, and show their contact, at once."""
    from farshore_operator.api import ProcessServer
    from farshore_operator.api.processserver import REFRESH_ANNOTATION
    from farshore_operator.kube.connection import current_namespace
    from farshore_operator.kube.resources import PROCESS_SERVER, SITE

    client, where = _client(), namespace or current_namespace()
    if client.get(SITE, where, site) is None:
        raise StopFault(f"there is no Site {where}/{site}", "Check the name and the namespace")
    servers = [ProcessServer.of(body) for body in client.list_all(PROCESS_SERVER, where)]
    names = [server.metadata.name for server in servers if server.spec.site_ref.name == site]
    if not names:
        raise StopFault(f"site {site} has no process server", f"Run `farshore site registration-key {site}`")
    asked = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    for name in names:
        client.merge(PROCESS_SERVER, where, name, {"metadata": {"annotations": {REFRESH_ANNOTATION: asked}}})
    silent = _await_echo(client, where, names, asked, timeout)
    if silent:
        raise WaitFault(
            f"{', '.join(silent)} did not answer within {timeout:.0f} s",
            "Check that it runs and reaches the Kubernetes API; it refreshes as soon as it does",
        )


@app.command("discover")
def discover(
    site: Site,
    namespace: Namespace = "",
    output: Annotated[Format, typer.Option("--output", "-o", help="How to show it.")] = Format.TABLE,
    manifests: Annotated[
        Path | None, typer.Option(help="Directory for a ProtectedVM of each machine that nothing protects.")
    ] = None,
    policy: Annotated[str, typer.Option(help="ReplicationPolicy of the manifests. Default: the only one.")] = "",
    vault: Annotated[str, typer.Option(help="RecoveryVault of the manifests. Default: the only one.")] = "",
    target: Annotated[str, typer.Option(help="Site of recovery in the manifests. Default: the only other one.")] = "",
    require_protected: Annotated[
        bool, typer.Option("--require-protected", help="End with exit code 1 if a machine is not protected.")
    ] = False,
) -> None:
    """List the machines of an Azure Stack Hub: address, system, disks, state, and what protects them."""
    import json

    from rich.console import Console

    from farshore_cli.discovering import Wishes, discovered, written
    from farshore_cli.discovery import as_json, page
    from farshore_operator.kube.connection import current_namespace

    wishes = Wishes(namespace or current_namespace(), policy, vault, target)
    found, texts = discovered(_client(), site, wishes)
    if output is Format.JSON:
        print(json.dumps(as_json(found), indent=2))
    else:
        Console(highlight=False).print(page(found))
    if manifests is not None:
        for line in written(manifests, texts):
            print(line, file=sys.stderr)
    if require_protected and found.unprotected:
        raise typer.Exit(1)


def _await_echo(client: Client, namespace: str, names: list[str], asked: str, timeout: float) -> list[str]:
    """Print each process server when it has refreshed; return those that have not in time."""
    from farshore_operator.api import ProcessServer
    from farshore_operator.kube.resources import PROCESS_SERVER

    waiting, deadline = list(names), time.monotonic() + timeout
    while waiting and time.monotonic() < deadline:
        for name in list(waiting):
            body = client.get(PROCESS_SERVER, namespace, name)
            server = ProcessServer.of(body) if body else None
            report = server.status.appliance if server else None
            if server is not None and report is not None and report.refreshed == asked:
                waiting.remove(name)
                print(_line(server))
        time.sleep(0.5)
    return waiting


def _line(server: ProcessServer) -> str:
    report, registration = server.status.appliance, server.status.registration
    if report is None:
        return f"{server.metadata.name}: refreshed"
    ends = registration.certificate_expires if registration else None
    until = f", certificate until {ends:%Y-%m-%d}" if ends else ""
    return (
        f"{server.metadata.name}: last contact {report.last_contact:%Y-%m-%d %H:%M:%S} UTC, "
        f"clock {report.clock_skew_seconds:+.1f} s, {report.machines} machines{until}"
    )


def _client() -> Client:
    from farshore_operator.kube.client import Client
    from farshore_operator.kube.connection import from_environment

    return Client(from_environment(), "farshore-cli")
