"""The supervisor of a machine outlives what goes wrong around it, and forgets no token that was used."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import SecretBytes
from tests.machine.memory_controlplane import assignment

from farshore_engine.contract.assignment import (
    Desired,
    DirectoryAccess,
    Policy,
    VaultAccess,
)
from farshore_engine.processserver import machine as module
from farshore_engine.processserver import memory as memories
from farshore_engine.processserver.budget import SpoolBudget
from farshore_engine.processserver.deployment import Deployment
from farshore_engine.processserver.installer import DataPort
from farshore_engine.processserver.machine import MachineSupervisor, Surroundings
from farshore_engine.processserver.metrics import Metrics
from farshore_engine.processserver.replica import Shared
from farshore_engine.processserver.reporting import Cadence

WAIT = 60.0


def supervisor(directory: Path, reported: threading.Event) -> MachineSupervisor:
    vault = VaultAccess(name="v", storage=DirectoryAccess(path=directory / "v"), key=SecretBytes(b"k" * 32))
    return MachineSupervisor(
        assignment("vm", vault, Policy(), desired=Desired.STOP),
        Surroundings(
            state_dir=directory,
            shared=Shared("ps", SpoolBudget(1), cast(Any, None), Metrics()),
            installer=cast(Any, SimpleNamespace(bundle_version=lambda: "1")),
            ca=lambda: "ca",
            data_port=lambda source: DataPort("ps", 9443),
            report=lambda name, report: reported.set(),
            cadence=Cadence(),
        ),
    )


def test_a_supervisor_goes_on_after_a_look_that_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk ended its thread without a word, and the machine was never looked after again."""
    reported, failed = threading.Event(), threading.Event()
    monkeypatch.setattr(module, "AFTER_ERROR", 0.01)
    served = supervisor(tmp_path, reported)

    def once(*_: object) -> None:
        if not failed.is_set():
            failed.set()
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(served._deployment, "renew", once)
    served.start()
    try:
        assert reported.wait(WAIT)
        assert failed.is_set()
    finally:
        served.stop()


def test_an_agent_is_told_the_disks_that_its_cloud_tells_apart(tmp_path: Path) -> None:
    known: list[tuple[str, str]] = []
    told: list[object] = []
    outcome = SimpleNamespace(version="1", host_key="")
    installer = SimpleNamespace(
        bundle_version=lambda: "1",
        install=lambda source, identity, progress: (told.append(identity.disk_names), outcome)[1],
    )
    around = replace(
        supervisor(tmp_path, threading.Event())._around,
        installer=cast(Any, installer),
        disk_names=lambda source: tuple(known),
        learn_disks=lambda wanted: known.append(("dos-1", "disk-os")),
    )
    wanted = supervisor(tmp_path, threading.Event()).assignment.model_copy(update={"certificate": "PEM"})
    Deployment("demo.vm", around).install(wanted, lambda sentence: None)
    assert told == [(("dos-1", "disk-os"),)]


def test_a_used_token_stays_used_whatever_else_is_remembered_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An installation's note was saved behind the enrolment's, as it was before: the token was good again."""
    served = supervisor(tmp_path, threading.Event())
    saving, enrolled = threading.Event(), threading.Event()
    save = memories.save

    def slow_once(path: Path, memory: memories.Memory) -> None:
        if not saving.is_set():
            saving.set()
            enrolled.wait(0.3)
        save(path, memory)

    monkeypatch.setattr(memories, "save", slow_once)
    with ThreadPoolExecutor(1) as other:
        note = other.submit(served._deployment.remember, version="1")
        assert saving.wait(WAIT)
        served._deployment.remember(tokens=("used",))
        enrolled.set()
        note.result(WAIT)
    kept = memories.load(memories.path(tmp_path, "demo.vm"))
    assert (kept.tokens, kept.version) == (("used",), "1")


def test_a_machine_that_is_given_up_is_hung_up_on_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A push may take a quarter of an hour; until it ended, the agent went on feeding the server that had lost it."""
    served = supervisor(tmp_path, threading.Event())
    pushing, pushed, closed = threading.Event(), threading.Event(), threading.Event()

    def push() -> bool:
        pushing.set()
        pushed.wait(WAIT)
        return False

    monkeypatch.setattr(served, "_turn", push)
    served._replica = cast(Any, SimpleNamespace(close=lambda reason: closed.set()))
    served.start()
    assert pushing.wait(WAIT)
    with ThreadPoolExecutor(1) as other:
        stopped = other.submit(served.stop)
        try:
            assert closed.wait(WAIT)
            assert not stopped.done()
        finally:
            pushed.set()


def test_what_was_installed_is_forgotten_when_the_machine_moves_away(tmp_path: Path) -> None:
    """Home again it has the recovered machine's disks, so its process server waited for an agent that never dialled."""
    reported = threading.Event()
    served = supervisor(tmp_path, reported)
    served._deployment.remember(installed="as it was", host_key="ssh-ed25519 AAAA")
    served.start()
    try:
        assert reported.wait(WAIT)
    finally:
        served.stop()
    kept = supervisor(tmp_path, reported)._deployment.memory
    assert (kept.installed, kept.host_key) == ("", "ssh-ed25519 AAAA")
