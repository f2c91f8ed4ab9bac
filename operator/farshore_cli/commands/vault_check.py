"""`farshore vault check`: is everything there that the points need, and is it what was written?

Exit code 0: all is well. 3: something is spoiled; the output names it. 1: it cannot be told, because the store is
away, the key is not the right one, and so on.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from farshore_cli.commands.vault import OpenPlace, Output, app, open_place
from farshore_cli.formats import Format
from farshore_cli.vaultplace import Place, vault_command
from farshore_engine.contract.faults import Fault, StopFault

if TYPE_CHECKING:
    from farshore_engine.vault.check import CheckProgress, CheckReport, Finding
    from farshore_engine.vault.machine import MachineVault, StoredPoint

SPOILED = 3
CANNOT_TELL = 1
RUNS_SHOWN = 5
SPOILS_ALL = ("KeyDamaged", "NoMachine", "VaultDamaged", "NoVault")
"""Reasons for which nothing opens although store and key are right: a damaged or missing vault.json or key.json."""


@dataclass(frozen=True)
class Verdict:
    """What became of one machine: a report, or the fault that prevents one; `spoiled` if that is damage."""

    machine: str
    report: CheckReport | None = None
    fault: Fault | None = None
    erased: bool = False

    @property
    def spoiled(self) -> bool:
        """Whether something is known to be damaged."""
        damaged = isinstance(self.fault, StopFault) and self.fault.reason in SPOILS_ALL
        return damaged or bool(self.report and self.report.findings)


@app.command("check")
@vault_command
def check(
    place: Place,
    vm: Annotated[str, typer.Argument(help="Machine to check. Without: all of them.")] = "",
    read_data: Annotated[bool, typer.Option("--read-data", help="Read and verify every byte.")] = False,
    point: Annotated[
        str, typer.Option("--point", help="Check this point only: its name, a time, or a word such as Latest.")
    ] = "",
    threads: Annotated[int, typer.Option("--threads", min=1, max=64, help="Requests at once with --read-data.")] = 4,
    output: Output = Format.TABLE,
) -> None:
    """Check that everything is there that the recovery points need. Exit code 3: something is spoiled; 1: unknown."""
    if point and not vm:
        raise StopFault("--point needs a machine", "Name the machine before the options")
    opened = open_place(place)
    verdicts = []
    for machine in [opened.named(vm)] if vm else opened.machines():
        verdict = _check(opened, machine, point, read_data, threads)
        verdicts.append(verdict)
        if output is Format.TABLE:
            _show(verdict)
    if output is Format.JSON:
        print(json.dumps({"machines": [_document(verdict) for verdict in verdicts]}, indent=2))
    if any(verdict.spoiled for verdict in verdicts):
        raise typer.Exit(SPOILED)
    if any(verdict.fault is not None and not verdict.erased for verdict in verdicts):
        raise typer.Exit(CANNOT_TELL)


def _check(opened: OpenPlace, machine: str, point: str, read_data: bool, threads: int) -> Verdict:
    from farshore_engine.vault.check import check_machine

    try:
        vault = opened.open(machine)
    except Fault as fault:
        return Verdict(machine, fault=fault, erased=fault.reason == "Erased")
    try:
        chosen = chosen_point(vault, point) if point else None
        with _progress(machine) as report:
            found = check_machine(vault, read_data=read_data, point=chosen, threads=threads, report=report)
        return Verdict(machine, found)
    except Fault as fault:
        return Verdict(machine, fault=fault)
    finally:
        vault.close()


def chosen_point(vault: MachineVault, selector: str) -> StoredPoint:
    """Return the point that a name, a time or a word such as Latest means; raises StopFault."""
    from farshore_cli.status import utc_now
    from farshore_engine.contract.points import resolve

    catalogue = vault.catalogue()
    if any(selector == point.manifest.name for point in catalogue.points):
        return vault.find(selector)
    return vault.find(resolve(selector, catalogue.summaries(), utc_now()).name)


@contextmanager
def _progress(machine: str) -> Iterator[Any]:
    """Show how far it is on a terminal; say nothing where there is none."""
    from farshore_engine.vault.check import silent

    if not sys.stderr.isatty():
        yield silent
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(machine, total=None)

        def report(now: CheckProgress) -> None:
            if now.read:
                bar.update(task, description=f"{machine}: reading", completed=now.read, total=now.of_bytes)
            else:
                bar.update(task, description=f"{machine}: point {now.points} of {now.of_points}")

        yield report


def _show(verdict: Verdict) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, soft_wrap=True)
    machine, report = verdict.machine, verdict.report
    if verdict.fault is not None:
        word = "erased" if verdict.erased else "SPOILED" if verdict.spoiled else "cannot be checked"
        console.print(Text(f"{machine}: {word}: {verdict.fault.message}", "" if verdict.erased else "red"))
        if verdict.fault.remedy and not verdict.erased:
            console.print(f"  what to do: {verdict.fault.remedy}")
    if report is None:
        return
    for finding in report.findings:
        console.print(Text(f"{machine}: SPOILED: {_sentence(finding)}", "red"))
    for note in report.notes:
        console.print(f"{machine}: {note}")
    console.print(Text(f"{machine}: {_summary(report)}", "red" if report.findings else "green"))


def _sentence(finding: Finding) -> str:
    what = ""
    if finding.point:
        runs = [str(first) if count == 1 else f"{first}-{first + count - 1}" for first, count in finding.runs]
        more = f" and {len(runs) - RUNS_SHOWN} more runs" if len(runs) > RUNS_SHOWN else ""
        blocks = f"{finding.blocks} blocks ({', '.join(runs[:RUNS_SHOWN])}{more})"
        what = f"point {finding.point}, disk {finding.disk}, {blocks}: "
    return f"{what}{finding.why} [{finding.name}]"


def _summary(report: CheckReport) -> str:
    from farshore_cli.pointtable import size_text

    points = f"{len(report.points)} points, {len(report.spoiled)} of them spoiled, {report.packs} packs"
    spare = ""
    if report.spare_packs is not None and report.spare_packs[0]:
        count, size = report.spare_packs
        spare = f", {count} packs ({size_text(size)}) that no point needs now (a copy under way, or to be pruned)"
    data = f", {size_text(report.read)} of data read" if report.read else ", data not read"
    return f"{points}{spare}{data}"


def _document(verdict: Verdict) -> dict[str, Any]:
    found: dict[str, Any] = {"machine": verdict.machine, "spoiled": verdict.spoiled}
    if verdict.fault is not None:
        found |= {"fault": verdict.fault.message, "remedy": verdict.fault.remedy, "reason": verdict.fault.reason}
    report = verdict.report
    if report is not None:
        found |= {"points": list(report.points), "spoiledPoints": list(report.spoiled), "packs": report.packs}
        found |= {"bytesRead": report.read, "notes": list(report.notes)}
        if report.spare_packs is not None:
            found |= {"sparePacks": report.spare_packs[0], "sparePackBytes": report.spare_packs[1]}
        found["findings"] = [_finding(one) for one in report.findings]
    return found


def _finding(finding: Finding) -> dict[str, Any]:
    runs = [{"first": first, "count": count} for first, count in finding.runs]
    return {"object": finding.name, "why": finding.why, "point": finding.point, "disk": finding.disk, "blocks": runs}
