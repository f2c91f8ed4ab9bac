"""`farshore doctor` and `farshore agent token` with a real API server; a thread plays operator and process server."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import config
from kubernetes.client import ApiClient, Configuration
from tests.cluster.api_objects import Caller, changed, example, install_kinds

from farshore_cli.dev.controlplane import ControlPlane
from farshore_engine.agent.enrol import Token
from farshore_engine.contract.replication import Check, CheckResult
from farshore_engine.contract.tasks import TaskInput, TaskKind, TaskPhase, TaskReport, TaskResult
from farshore_operator.act.authority import CERTIFICATE, SECRET_NAME
from farshore_operator.api.task import TaskSpec
from farshore_operator.decide.naming import DOCTOR_ANNOTATION, enrolment_secret
from farshore_operator.decide.protectedvm import preflight_name
from farshore_operator.kube.client import Client
from farshore_operator.kube.resources import PROTECTED_VM, SECRET, TASK

Run = Callable[..., subprocess.CompletedProcess[str]]
VM = "web-01"
CA = "-----BEGIN CERTIFICATE-----\nMTIz\n-----END CERTIFICATE-----\n"


@pytest.fixture
def client(control_plane: ControlPlane, namespace: str) -> Client:
    """An administrator's client, in a namespace with the ProtectedVM web-01."""
    install_kinds(control_plane)
    answer = Caller.operator(control_plane).create(
        namespace, changed(example("ProtectedVM"), {"metadata.name": VM, "metadata.namespace": namespace})
    )
    assert answer.status == 201, answer
    settings = Configuration()
    config.load_kube_config(str(control_plane.kubeconfig), client_configuration=settings)
    return Client(ApiClient(settings), "test")


@pytest.fixture
def run(control_plane: ControlPlane, namespace: str) -> Run:
    """Run a command line of `farshore` in the namespace."""

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "farshore_cli.main", *arguments, "-n", namespace]
        environment = {**os.environ, **control_plane.environment(), "COLUMNS": "120"}
        return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300, check=False)

    return command


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that ended with a fault says."""
    assert done.returncode == 1, done
    return done.stderr


def assign(client: Client, namespace: str) -> None:
    status = {"assignment": {"processServer": "ps-1", "epoch": 1}}
    client.apply(PROTECTED_VM, namespace, {"metadata": {"name": VM}, "status": status}, "status")


def answer_doctor(client: Client, namespace: str, report: TaskReport) -> threading.Thread:
    """Answer the next request as operator and process server would."""

    def work() -> None:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline:
            body: dict[str, Any] = client.get(PROTECTED_VM, namespace, VM) or {}
            request = body["metadata"].get("annotations", {}).get(DOCTOR_ANNOTATION)
            if request:
                name = preflight_name(VM, request)
                spec = TaskSpec(kind=TaskKind.PREFLIGHT, process_server="ps-1", protected_vm=VM, input=TaskInput())
                client.create(TASK, namespace, {"metadata": {"name": name}, "spec": spec.dump()})
                status = report.model_dump(mode="json", by_alias=True, exclude_none=True)
                client.apply(TASK, namespace, {"metadata": {"name": name}, "status": status}, "status")
                return
            time.sleep(0.1)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("result", "code", "verdict"),
    [
        pytest.param(CheckResult.WARNING, 0, "web-01 can be protected, 1 warning", id="a warning does not block"),
        pytest.param(CheckResult.ERROR, 1, "web-01 cannot be protected yet: 1 error", id="an error ends with code 1"),
    ],
)
def test_doctor_shows_what_the_process_server_found(
    client: Client, run: Run, namespace: str, result: CheckResult, code: int, verdict: str
) -> None:
    assign(client, namespace)
    checks = (Check(name="Clock", result=result, message="off", remedy="Use a time server"),)
    thread = answer_doctor(client, namespace, TaskReport(phase=TaskPhase.SUCCEEDED, result=TaskResult(checks=checks)))
    done = run("doctor", VM, "--timeout", "150")
    thread.join()
    assert (done.returncode, done.stderr) == (code, "")
    assert verdict in done.stdout
    assert "→ Use a time server" in done.stdout


def test_doctor_says_who_is_silent_or_failed(client: Client, run: Run, namespace: str) -> None:
    assert "no process server yet" in refused(run("doctor", VM))
    assign(client, namespace)
    assert "operator made no Task" in refused(run("doctor", VM, "--timeout", "1"))
    client.merge(PROTECTED_VM, namespace, VM, {"metadata": {"annotations": {DOCTOR_ANNOTATION: None}}})
    failed = TaskReport(phase=TaskPhase.FAILED, message="no credentials", remedy="Name a Secret")
    thread = answer_doctor(client, namespace, failed)
    said = refused(run("doctor", VM, "--timeout", "150"))
    thread.join()
    assert "no credentials" in said
    assert "Name a Secret" in said
    assert "there is no ProtectedVM nobody" in refused(run("doctor", "nobody"))


def test_token_needs_a_manual_machine_and_an_authority(client: Client, run: Run, namespace: str) -> None:
    assert "installed by push" in refused(run("agent", "token", VM))
    client.merge(PROTECTED_VM, namespace, VM, {"spec": {"source": {"install": "Manual"}}})
    assert "no certificate authority" in refused(run("agent", "token", VM))


def test_tokens_are_added_and_expired_ones_removed(client: Client, run: Run, namespace: str) -> None:
    client.merge(PROTECTED_VM, namespace, VM, {"spec": {"source": {"install": "Manual"}}})
    authority = {CERTIFICATE: base64.b64encode(CA.encode()).decode()}
    client.create(SECRET, namespace, {"metadata": {"name": SECRET_NAME}, "data": authority})
    old = base64.b64encode(Token.issue("x.y", CA, int(time.time()) - 5).text().encode()).decode()
    client.create(SECRET, namespace, {"metadata": {"name": enrolment_secret(VM)}, "data": {"token-old": old}})
    printed = [run("agent", "token", VM).stdout.strip() for _ in range(2)]
    found = client.get(SECRET, namespace, enrolment_secret(VM))
    assert found is not None
    assert sorted(base64.b64decode(value).decode() for value in found["data"].values()) == sorted(printed)
    assert {Token.parse(text).machine_id for text in printed} == {f"{namespace}.{VM}"}
