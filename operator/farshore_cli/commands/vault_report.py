"""`farshore vault report`: read, verify and take out the signed reports of drills and failovers, without a cluster."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farshore_cli.commands.vault import Machine, open_place
from farshore_cli.commands.vault import app as vault_app
from farshore_cli.vaultplace import Place, vault_command
from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from farshore_engine.vault.machine import MachineVault
    from farshore_engine.vault.reports import SignedReport

app = typer.Typer()


@vault_app.command("report")
@vault_command
def report(
    place: Place,
    vm: Machine,
    run: Annotated[str, typer.Argument(help="FailoverRun. Without: list the machine's reports.")] = "",
    number: Annotated[
        int, typer.Option("--number", help="Which report of the run, from 0. Default: the newest, which has the notes.")
    ] = -1,
    html: Annotated[Path | None, typer.Option("--html", help="Write the page here; - prints it.")] = None,
    signed: Annotated[
        Path | None, typer.Option("--signed", help="Write the signed report here, to be verified later; - prints it.")
    ] = None,
    verify: Annotated[
        Path | None, typer.Option("--verify", help="Verify a signed report that was written before, and print it.")
    ] = None,
) -> None:
    """Print the report of a drill or failover of a machine, after its signature was verified.

    A report says what was asked and answered, each step with its times, the recovery point, RPO and RTO, what was
    cleaned up, and the notes. It is signed with a key that only this vault's key opens.
    """
    opened = open_place(place)
    vault = opened.open(opened.named(vm))
    try:
        if verify is not None:
            found = _from_file(vault, verify)
        elif not run:
            _list(vault)
            return
        else:
            found = _from_vault(vault, run, number)
    finally:
        vault.close()
    if html is not None:
        _write(html, found.page.encode())
    if signed is not None:
        _write(signed, found.encode())
    if html is None and signed is None:
        print(json.dumps(json.loads(found.report), indent=2, ensure_ascii=False))
    print(f"report {found.name} of {found.machine}: the signature verifies", file=sys.stderr)


def _from_vault(vault: MachineVault, run: str, number: int) -> SignedReport:
    numbers = vault.reports.numbers(run)
    wanted = number if number >= 0 else max(numbers, default=-1)
    if wanted not in numbers:
        machine = vault.access.names.machine
        known = (
            ", ".join(map(str, numbers))
            or f"none of this run; reports of {', '.join(vault.reports.runs()) or 'no run'}"
        )
        which = f"report {number} of run {run}" if number >= 0 else f"report of run {run}"
        raise StopFault(f"{machine} has no {which}", f"It has: {known}", reason="NoReport")
    return vault.reports.read(run, wanted)


def _from_file(vault: MachineVault, path: Path) -> SignedReport:
    from farshore_engine.vault.reports import SignedReport

    try:
        data = sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
        found = SignedReport.decode(data)
    except OSError as error:
        raise StopFault(f"{path} cannot be read: {error.strerror}", "Check the path", reason="BadOptions") from error
    except ValueError as error:
        raise StopFault(
            f"{path} is no signed report: {error}", "Give one that --signed has written", reason="BadOptions"
        ) from error
    found.verify(vault.access.keys)
    return found


def _list(vault: MachineVault) -> None:
    runs = vault.reports.runs()
    for run in runs:
        for number in vault.reports.numbers(run):
            fields = json.loads(vault.reports.read(run, number).report)
            print(f"{run} {number} {fields.get('result', '')} {fields.get('startedAt', '')}".rstrip())
    if not runs:
        print(f"{vault.access.names.machine} has no report", file=sys.stderr)


def _write(path: Path, data: bytes) -> None:
    if str(path) == "-":
        sys.stdout.buffer.write(data)
        return
    try:
        path.write_bytes(data)
    except OSError as error:
        raise StopFault(f"{path} cannot be written: {error.strerror}", "Check the path", reason="BadOptions") from error
