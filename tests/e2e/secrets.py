"""Looks for secrets where none may be: command lines of every process, logs, events, and every object but Secrets."""

from __future__ import annotations

import base64
import json
import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from tests.demo.scenario import NAMESPACED, Scenario
from tests.demo.stage import SYSTEM, Stage
from tests.e2e.conftest import command_lines


class CommandLines:
    """Collects the command lines of all processes, five times a second, until it is closed."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop collecting."""
        self._end.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._end.wait(0.2):
            self.seen.update(command_lines())


def secrets_of(stage: Stage, scenario: Scenario) -> dict[str, str]:
    """Return everything that must stay secret, by what it is."""
    listed = stage.kube.everywhere("secrets")
    found: dict[str, str] = {"the SSH password": scenario.source.password}
    for secret in json.loads(listed)["items"]:
        if secret["metadata"]["namespace"] not in (SYSTEM, stage.kube.namespace):
            continue
        for key, value in (secret.get("data") or {}).items():
            raw = base64.b64decode(value)
            if key in ("username", "ca.crt") or len(raw) < 12:
                continue
            name = f"{secret['metadata']['name']}/{key}"
            found[f"{name}, base64"] = value[:40]
            found[f"{name}, hex"] = raw.hex()[:40]
            lines = [line for line in raw.decode(errors="ignore").splitlines() if "----" not in line]
            found[f"{name}, a line of it"] = max(lines, key=len, default=value)[:40]
    for place in ("ps-stack", "ps-shore"):
        for name, text in contents(stage.directory / place, "*token*"):
            found[f"{place} {name}"] = text.strip()[-40:]
        for name, text in contents(stage.directory / place, "*key*.pem"):
            found[f"{place} {name}"] = text.splitlines()[1][:40]
    kubeconfig = (stage.directory / "farshore-operator.kubeconfig").read_text()
    found["the operator's token"] = kubeconfig.partition("token: ")[2].split()[0][-40:]
    return found


def contents(directory: Path, pattern: str) -> Iterator[tuple[str, str]]:
    """Give name and content of the files below a directory that somebody works in: what goes meanwhile is left out."""
    for folder, _, names in os.walk(directory):  # not rglob, which fails when a directory goes
        for name in names:
            if fnmatch(name, pattern):
                with suppress(FileNotFoundError):
                    yield name, Path(folder, name).read_text()


def places(stage: Stage, scenario: Scenario, command_lines: CommandLines) -> dict[str, str]:
    """Return every text in which no secret may be, by where it is."""
    texts = {str(log.name): log.read_text(errors="replace") for log in stage.directory.glob("*.log")}
    for kind in NAMESPACED:
        texts[f"kubectl get {kind}"] = stage.kube.everywhere(kind, "--show-managed-fields")
    texts["command lines"] = "\n".join(command_lines.seen)
    if scenario.watching():  # until the failover shuts it down
        inside = scenario.source.exec("cat /var/log/farshore-agent.log /run/*.log 2>/dev/null", check=False)
        texts["logs in the machine"] = inside.stdout
    return texts


def leaks(secrets: dict[str, str], texts: dict[str, str]) -> list[str]:
    """Return a sentence for each secret that was found; the secret itself is not in it."""
    return [
        f"{what} is in {where}" for where, text in texts.items() for what, secret in secrets.items() if secret in text
    ]
