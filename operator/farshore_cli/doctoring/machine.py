"""The checks of a machine: from its process server by a Task, or from here without a cluster."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from farshore_engine.contract.faults import StopFault, WaitFault

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from farshore_engine.contract.assignment import Source
    from farshore_engine.contract.replication import Check
    from farshore_engine.processserver.installer import DataPort
    from farshore_operator.kube.client import Client


def from_here(source: Source, data_port: DataPort | None) -> Sequence[Check]:
    """Check a machine from this host; raises Fault."""
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


def parse_data_port(text: str) -> DataPort | None:
    """Return what `HOST:PORT` says, None for nothing; raises StopFault."""
    from farshore_engine.agent.enrol import parse_server
    from farshore_engine.processserver.installer import DataPort

    if not text:
        return None
    server = parse_server(text)
    return DataPort(server.host, server.port)


def from_process_server(vm: str, namespace: str, timeout: float) -> Sequence[Check]:
    """Let the process server of a machine check it, and return what it found; raises Fault."""
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
