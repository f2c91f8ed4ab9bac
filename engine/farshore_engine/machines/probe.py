"""The question "does it answer?", asked from outside the machine, and the evidence for the answer."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from enum import StrEnum

from farshore_engine.contract.faults import WaitFault
from farshore_engine.machines.spec import RunningMachine

PAUSE_SECONDS = 0.25
ANSWER_SECONDS = 5.0


class ProbeKind(StrEnum):
    """What counts as an answer: the greeting of an SSH server, or an accepted TCP connection."""

    SSH_BANNER = "ssh-banner"
    TCP = "tcp"


@dataclass(frozen=True)
class ProbeEvidence:
    """What answered.

    Args:
        banner: the SSH server's greeting; empty for TCP.
        latency_seconds: from connecting to the answer.
        attempts: how many connections it took.
    """

    kind: ProbeKind
    address: str
    port: int
    banner: str
    latency_seconds: float
    attempts: int


def probe(
    running: RunningMachine, kind: ProbeKind = ProbeKind.SSH_BANNER, port: int | None = None, timeout: float = 60
) -> ProbeEvidence:
    """Connect until the machine answers.

    Args:
        port: TCP port; by default the machine's sshd. A QEMU machine in user-mode networking has that one only.
        timeout: seconds to keep trying.

    Raises:
        WaitFault: nothing answered (`ProbeUnanswered`); says what the last attempt met.
    """
    target = (running.address, port if port is not None else running.port)
    deadline = time.monotonic() + timeout
    attempts = 0
    while True:
        attempts += 1
        begun = time.monotonic()
        left = max(deadline - begun, 0.1)
        try:
            banner = _ask(target, kind, min(left, ANSWER_SECONDS))
        except OSError as failed:
            met = str(failed) or type(failed).__name__
        else:
            return ProbeEvidence(kind, *target, banner, time.monotonic() - begun, attempts)
        if time.monotonic() + PAUSE_SECONDS >= deadline:
            raise WaitFault(
                f"{running.name} did not answer at {target[0]}:{target[1]} within {timeout:.0f} s, "
                f"{attempts} attempts, the last: {met}",
                f"Read its console, {running.console}",
                reason="ProbeUnanswered",
            )
        time.sleep(PAUSE_SECONDS)


def _ask(target: tuple[str, int], kind: ProbeKind, seconds: float) -> str:
    """The banner (empty for TCP); OSError when there is no answer of that kind."""
    if kind is ProbeKind.TCP:
        with socket.create_connection(target, timeout=seconds):
            return ""
    return greeting(target, seconds)


def greeting(target: tuple[str, int], seconds: float) -> str:
    """What an SSH server greets with; OSError when there is none."""
    # RFC 4253 section 4.2: lines before the one that starts with SSH- are allowed, each of at most 255 bytes.
    with socket.create_connection(target, timeout=seconds) as connection, connection.makefile("rb") as lines:
        for _ in range(20):
            line = lines.readline(256)
            if line.startswith(b"SSH-2.0"):
                return line.decode("utf-8", "replace").strip()
            if not line:
                break
    raise ConnectionError("the port is open, but no SSH server greeted")
