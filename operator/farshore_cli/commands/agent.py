"""`farshore agent`: the bundle and the one-time tokens of manual installs, for those who do not allow push."""

from __future__ import annotations

import base64
import secrets
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from farshore_operator.kube.client import Client

app = typer.Typer(name="agent", help="Install agents by hand, where push is not allowed.", no_args_is_help=True)


@app.command("bundle")
def bundle(file: Annotated[Path, typer.Argument(help="Where to write it (tar, gzip).")]) -> None:
    """Write the agent bundle. In the machine: unpack it and run `sh install.sh --server … --token …` as root."""
    from farshore_engine.bundle import build_bundle

    built = build_bundle()
    new = file.with_name(f".{file.name}.new")
    shutil.copyfile(built.path, new)
    new.replace(file)
    kernel = ".".join(map(str, built.kernel))
    print(f"agent {built.id}, {built.archive_bytes >> 20} MiB, sha256 {built.sha256}: {file}")
    print(f"it needs Linux {kernel} or newer on x86-64, and tar and gzip to unpack it", file=sys.stderr)


@app.command("token")
def token(
    vm: Annotated[str, typer.Argument(help="Name of the ProtectedVM, which has `install: Manual`.")],
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the current context's.")] = "",
    hours: Annotated[float, typer.Option("--hours", min=0.1, max=240, help="How long it is good for.")] = 24.0,
) -> None:
    """Issue a one-time token with which the machine enrols itself; it is printed to standard output."""
    from farshore_operator.kube.client import Client
    from farshore_operator.kube.connection import current_namespace, from_environment

    where = namespace or current_namespace()
    text, address = issue(Client(from_environment(), "farshore-cli"), where, vm, int(time.time() + hours * 3600))
    print(text)
    print(f"good once, for {hours:g} hours. In the machine, in the unpacked bundle, as root:", file=sys.stderr)
    print(f"  sh install.sh --server {address or 'PROCESS-SERVER:9443'} --token TOKEN", file=sys.stderr)


def issue(client: Client, namespace: str, vm: str, expires: int) -> tuple[str, str]:
    """Put a new token into the machine's Secret; returns it and the address of the machine's data port, if known.

    Raises:
        StopFault: there is no such machine, it is installed by push, or the operator has made no authority yet.
    """
    from farshore_engine.agent.enrol import Token
    from farshore_engine.contract.assignment import InstallMode
    from farshore_operator.act.authority import CERTIFICATE, SECRET_NAME
    from farshore_operator.api import ProtectedVM
    from farshore_operator.decide.naming import MACHINE_LABEL, enrolment_secret, label, machine_id
    from farshore_operator.kube.resources import PROTECTED_VM, SECRET

    body = client.get(PROTECTED_VM, namespace, vm)
    if body is None:
        raise StopFault(f"there is no ProtectedVM {vm} in namespace {namespace}", "`farshore status` lists them")
    machine = ProtectedVM.of(body)
    if machine.spec.source.install is not InstallMode.MANUAL:
        raise StopFault(f"the agent of {vm} is installed by push", "Set spec.source.install: Manual to do it by hand")
    authority = client.get(SECRET, namespace, SECRET_NAME)
    if authority is None:
        raise StopFault(
            f"the operator has made no certificate authority in namespace {namespace} yet",
            "Apply a Site there, and check that the operator runs",
        )
    ca = base64.b64decode(authority["data"][CERTIFICATE]).decode()
    made = Token.issue(machine_id(namespace, vm), ca, expires)
    name = enrolment_secret(vm)
    found = client.ensure(
        SECRET, namespace, {"metadata": {"name": name, "labels": {MACHINE_LABEL: label(vm)}}, "type": "Opaque"}
    )
    stale = dict.fromkeys(expired_keys(found.get("data") or {}, time.time()))
    fresh = {f"token-{secrets.token_hex(4)}": base64.b64encode(made.text().encode()).decode()}
    client.merge(SECRET, namespace, name, {"data": {**stale, **fresh}})
    return made.text(), _data_port(client, namespace, machine)


def expired_keys(data: Mapping[str, str], now: float) -> list[str]:
    """Return the keys of a Secret's data (base64) whose tokens are too old at `now`."""
    from farshore_engine.agent.enrol import expired

    return [key for key, value in data.items() if expired(base64.b64decode(value).decode(errors="replace"), now)]


def _data_port(client: Client, namespace: str, machine: object) -> str:
    from farshore_operator.api import ProcessServer, ProtectedVM
    from farshore_operator.kube.resources import PROCESS_SERVER

    assert isinstance(machine, ProtectedVM)
    assignment = machine.status.assignment
    if assignment is None:
        return ""
    body = client.get(PROCESS_SERVER, namespace, assignment.process_server)
    report = ProcessServer.of(body).status.appliance if body else None
    return f"{report.address}:{report.data_port}" if report else ""
