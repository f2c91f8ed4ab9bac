"""Runs the host's own tools (ip, losetup, mount, ...) and turns their failures into faults, in one place."""

from __future__ import annotations

import json
import shlex
import subprocess
from collections.abc import Sequence
from typing import Any

from farshore_engine.contract.faults import StopFault, WaitFault


def run(command: Sequence[str], *, stdin: str | None = None, timeout: float = 60) -> str:
    """Run a host tool and give its standard output.

    Args:
        command: program and arguments; never holds a secret (command lines are public), give those by `stdin`.
        timeout: seconds.

    Raises:
        StopFault: the tool is missing (`ToolMissing`) or failed (`CommandFailed`).
        WaitFault: it did not end in time (`CommandTimeout`).
    """
    code, output, errors = attempt(command, stdin=stdin, timeout=timeout)
    if code != 0:
        said = (errors.strip() or output.strip() or "no output")[-800:]
        raise StopFault(
            f"`{shlex.join(command)}` ended with code {code}: {said}",
            "Read what the tool says; run it by hand as root to see it again",
            reason="CommandFailed",
        )
    return output


def attempt(command: Sequence[str], *, stdin: str | None = None, timeout: float = 60) -> tuple[int, str, str]:
    """Run a host tool whose failure is an answer: exit code, standard output, standard error."""
    try:
        done = subprocess.run(
            command,
            input=stdin if stdin is not None else "",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as missing:
        raise StopFault(
            f"the program {command[0]} is not installed on this host",
            f"Install the Debian package that holds {command[0]}",
            reason="ToolMissing",
        ) from missing
    except subprocess.TimeoutExpired as late:
        raise WaitFault(
            f"`{shlex.join(command)}` did not end within {timeout:.0f} s",
            "It is tried again; look for a stuck device if it repeats",
            reason="CommandTimeout",
        ) from late
    return done.returncode, done.stdout, done.stderr


def run_json(command: Sequence[str]) -> Any:
    """Run a host tool that prints JSON; nothing printed is an empty list."""
    output = run(command).strip()
    return json.loads(output) if output else []
