"""Asks a machine everything at once, each probe again until it is answered as it should be or its own time is up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass

from farshore_engine.contract.faults import Fault, StopFault
from farshore_engine.contract.tasks import ProbeKind, ProbeResult, ProbeSpec
from farshore_engine.processserver.probes.http import ask_http
from farshore_engine.processserver.probes.question import Logins, Place, Question
from farshore_engine.processserver.probes.sql import ask_sql
from farshore_engine.processserver.probes.ssh import ask_ssh
from farshore_engine.processserver.probes.tcp import ask_tcp

PAUSE = 0.5  # seconds between two questions
ONCE = 30.0  # seconds that one question may take at most
REFUSALS = 3  # after so many an account might be locked
LOOK = 0.5  # seconds between two looks whether the task was called off

QUESTIONS: dict[ProbeKind, Question] = {
    ProbeKind.TCP: ask_tcp,
    ProbeKind.HTTP: ask_http,
    ProbeKind.SSH: ask_ssh,
    ProbeKind.SQL: ask_sql,
}

Reach = Callable[[int], AbstractContextManager[tuple[str, int]]]
"""Opens a way to a port of the machine, and tells where it is reached."""


@dataclass(frozen=True)
class Machine:
    """The machine that is asked.

    Attributes:
        started: seconds since the machine was started, asked when a probe is answered; None if that is not known.
    """

    reach: Reach
    logins: Logins
    started: Callable[[], float | None]


def ask_all(
    specs: Sequence[ProbeSpec], machine: Machine, tell: Callable[[tuple[str, ...]], None]
) -> tuple[ProbeResult, ...]:
    """Ask side by side and return the answers in the order of the probes.

    `tell` is called every now and then with the names of those that are not answered yet; what it raises ends the
    asking.
    """
    calling_off = threading.Event()
    with ThreadPoolExecutor(max_workers=max(1, len(specs)), thread_name_prefix="probe") as pool:
        asked = [pool.submit(_ask, spec, machine, calling_off) for spec in specs]
        try:
            for open_ones in _pending(asked):
                tell(tuple(spec.name for spec, one in zip(specs, asked, strict=True) if one in open_ones))
        finally:
            calling_off.set()
    return tuple(one.result() for one in asked)


def _pending(asked: Sequence[Future[ProbeResult]]) -> Iterator[set[Future[ProbeResult]]]:
    while True:
        _, pending = wait(asked, timeout=LOOK)
        if not pending:
            return
        yield pending


def _ask(spec: ProbeSpec, machine: Machine, calling_off: threading.Event) -> ProbeResult:
    deadline = time.monotonic() + spec.timeout_seconds
    refusals = 0
    attempts = 0
    while True:
        attempts += 1
        left = max(1.0, deadline - time.monotonic())
        try:
            with machine.reach(spec.port) as (address, port):
                answer = QUESTIONS[spec.kind](spec, Place(address, port), machine.logins, min(left, ONCE))
        except Fault as fault:
            refusals += isinstance(fault, StopFault)
            met = fault
        else:
            return ProbeResult(name=spec.name, passed=True, answer=answer, seconds=machine.started())
        over = time.monotonic() + PAUSE >= deadline or refusals >= REFUSALS
        if over or calling_off.wait(PAUSE):
            said = f"{met} (asked {attempts} times in {spec.timeout_seconds} s)" if refusals < REFUSALS else str(met)
            return ProbeResult(name=spec.name, passed=False, answer=said, seconds=None)
