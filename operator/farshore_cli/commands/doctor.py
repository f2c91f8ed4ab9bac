"""`farshore doctor`: every preflight check of a machine, from its process server or from here, changing nothing."""

from __future__ import annotations

import json
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from farshore_cli.formats import Format
from farshore_engine.contract.faults import StopFault, WaitFault

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Group

    from farshore_engine.contract.assignment import Source
    from farshore_engine.contract.replication import Check
    from farshore_engine.processserver.installer import DataPort
    from farshore_operator.kube.client import Client

app = typer.Typer()


@app.command("doctor")
def doctor(
    vm: Annotated[str, typer.Argument(help="Name of the ProtectedVM, or `site` and a Site's name.")] = "",
    name: Annotated[str, typer.Argument(help="Name of the Site, behind `site`.")] = "",
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Default: the current context's.")] = "",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds to wait for the process server.")] = 180.0,
    output: Annotated[Format, typer.Option("--output", "-o", help="How to show it.")] = Format.TABLE,
    address: Annotated[str, typer.Option(help="Check this machine from here, without a cluster.")] = "",
    port: Annotated[int, typer.Option(help="SSH port, with --address.")] = 22,
    user: Annotated[str, typer.Option(help="Login, with --address.")] = "root",
    key: Annotated[Path | None, typer.Option(help="File with the private key, with --address.")] = None,
    ask_password: Annotated[
        bool, typer.Option(help="Ask for the password, with --address; piped input works.")
    ] = False,
    data_port: Annotated[str, typer.Option(help="HOST:PORT that the machine must reach, with --address.")] = "",
) -> None:
    """Run all checks of a machine, or of a site in Azure (`doctor site NAME`), and say what to do about what fails.

    Exit code 1: there are errors.
    """
    from farshore_cli.sitedoctor import site_checks

    if name and (vm != "site" or address):
        raise StopFault(
            f"{vm} {name} is nothing that can be checked", "farshore doctor VM, or farshore doctor site NAME"
        )
    if name:
        checks: Sequence[Check] = site_checks(name, namespace)
        _show(f"site {name}", checks, output, ("machines can be recovered to", "machines cannot be recovered to"))
        return
    if bool(vm) == bool(address):
        raise StopFault("name a ProtectedVM, or give --address, not both", "`farshore status` lists the machines")
    if address:
        checks = _from_here(source_of(address, port, user, key, ask_password), _parse_data_port(data_port))
    else:
        checks = _from_process_server(vm, namespace, timeout)
    _show(vm or address, checks, output)


def _show(name: str, checks: Sequence[Check], output: Format, verdicts: tuple[str, str] | None = None) -> None:
    """Print a checklist; ends with exit code 1 if there are errors."""
    from rich.console import Console

    from farshore_engine.contract.replication import CheckResult

    if output is Format.JSON:
        print(json.dumps([check.model_dump(mode="json", by_alias=True) for check in checks], indent=2))
    else:
        Console(highlight=False).print(page(name, checks, verdicts))
    if any(check.result is CheckResult.ERROR for check in checks):
        raise typer.Exit(1)


def page(name: str, checks: Sequence[Check], verdicts: tuple[str, str] | None = None) -> Group:
    """Return the checklist as a table, a remedy under each check that needs one, and a verdict.

    Args:
        verdicts: what is said before the name, without errors and with some; by default, of protecting a machine.
    """
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    from farshore_engine.contract.replication import CheckResult

    marks = {
        CheckResult.PASSED: ("ok", "green"),
        CheckResult.WARNING: ("warning", "yellow"),
        CheckResult.ERROR: ("ERROR", "bold red"),
        CheckResult.SKIPPED: ("skipped", "bright_black"),
    }
    table = Table("CHECK", "RESULT", "WHAT WAS FOUND", box=None)
    for check in checks:
        what = Text(check.message)
        if check.remedy and check.result in (CheckResult.WARNING, CheckResult.ERROR):
            what.append(f"\n→ {check.remedy}", "bold")
        table.add_row(check.name, Text(*marks[check.result]), what)
    errors = sum(check.result is CheckResult.ERROR for check in checks)
    warnings = sum(check.result is CheckResult.WARNING for check in checks)
    good, bad = (
        (f"{word} {name}" for word in verdicts)
        if verdicts
        else (
            f"{name} can be protected",
            f"{name} cannot be protected yet",
        )
    )
    verdict = Text(f"{bad}: {_count(errors, 'error')}", "bold red") if errors else Text(good, "bold green")
    if warnings:
        verdict.append(f", {_count(warnings, 'warning')}", "yellow")
    return Group(table, Text(""), verdict)


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _from_here(source: Source, data_port: DataPort | None) -> Sequence[Check]:
    from farshore_engine.processserver.push import PushInstaller

    return PushInstaller().preflight(source, data_port).checks


def source_of(address: str, port: int, user: str, key: Path | None, ask_password: bool) -> Source:
    """Return a machine with its login, as options name it."""
    from pydantic import SecretStr

    from farshore_engine.contract.assignment import Source, SSHCredentials

    password = None
    if ask_password:
        text = typer.prompt("Password", hide_input=True, err=True) if sys.stdin.isatty() else sys.stdin.readline()
        password = SecretStr(text.rstrip("\n"))
    if key is None and password is None:
        raise StopFault("there is nothing to log in with", "Give --key FILE or --ask-password")
    private = SecretStr(key.read_text(encoding="utf-8")) if key else None
    credentials = SSHCredentials(username=user, password=password, private_key=private)
    return Source(address=address, port=port, credentials=credentials)


def _parse_data_port(text: str) -> DataPort | None:
    from farshore_engine.agent.enrol import parse_server
    from farshore_engine.processserver.installer import DataPort

    if not text:
        return None
    server = parse_server(text)
    return DataPort(server.host, server.port)


def _from_process_server(vm: str, namespace: str, timeout: float) -> Sequence[Check]:
    from farshore_operator.api import ProtectedVM
    from farshore_operator.decide.naming import DOCTOR_ANNOTATION
    from farshore_operator.decide.protectedvm import preflight_name
    from farshore_operator.kube.client import Client
    from farshore_operator.kube.connection import current_namespace, from_environment
    from farshore_operator.kube.resources import PROTECTED_VM

    client, where = Client(from_environment(), "farshore-cli"), namespace or current_namespace()
    body = client.get(PROTECTED_VM, where, vm)
    if body is None:
        raise StopFault(f"there is no ProtectedVM {vm} in namespace {where}", "`farshore status` lists them")
    if ProtectedVM.of(body).status.assignment is None:
        raise WaitFault(
            f"{vm} has no process server yet",
            f"Register one for its site (farshore site registration-key), or see: kubectl describe protectedvm {vm}",
        )
    request = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
    client.merge(PROTECTED_VM, where, vm, {"metadata": {"annotations": {DOCTOR_ANNOTATION: request}}})
    return _await_task(client, where, preflight_name(vm, request), timeout)


def _await_task(client: Client, namespace: str, name: str, timeout: float) -> Sequence[Check]:
    """Wait for the Task that answers the request.

    Raises:
        StopFault: the task failed.
        WaitFault: there is no answer in time; says whether operator or process server is silent.
    """
    from farshore_engine.contract.tasks import TaskPhase
    from farshore_operator.api import Task
    from farshore_operator.kube.resources import TASK

    deadline, task = time.monotonic() + timeout, None
    while time.monotonic() < deadline:
        body = client.get(TASK, namespace, name)
        task = Task.of(body) if body else None
        report = task.status if task else None
        if report and report.phase is TaskPhase.FAILED:
            raise StopFault(f"the checks could not be run: {report.message}", report.remedy)
        if report and report.phase is TaskPhase.SUCCEEDED and report.result is not None:
            return report.result.checks
        time.sleep(0.5)
    if task is None:
        raise WaitFault(f"the operator made no Task within {timeout:.0f} s", "Check that the operator runs")
    raise WaitFault(
        f"process server {task.spec.process_server} did not finish the checks within {timeout:.0f} s",
        f"Check that it runs (`farshore status`); its answer will be in Task {name}",
    )
