"""Runs what a Deployment describes as a local process, for a control plane that has no kubelet.

The process gets exactly the container's command, arguments and plain environment variables, and what a pod would get
to identify itself: a token of the Deployment's ServiceAccount, in a kubeconfig of its own. So the permissions that a
chart grants are the ones that its program has in development too.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from farshore_cli.dev.controlplane import ControlPlane
from farshore_cli.dev.processes import Process, start
from farshore_engine.contract.faults import StopFault

TOKEN_LIFE = "24h"


@dataclass(frozen=True)
class Workload:
    """A Deployment's only container, ready to be started: command line and kubeconfig."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    kubeconfig: Path
    log: Path

    def start(self, *, stdin: int | None = None) -> Process:
        """Start it; its output goes to `log`. `stdin` as in `processes.start`."""
        variables = {**self.environment, "KUBECONFIG": str(self.kubeconfig)}
        return start(self.name, self.command, self.log, stdin=stdin, environment=variables)


def workload(
    plane: ControlPlane, namespace: str, deployment: str, directory: Path, *, replace: Mapping[str, str] | None = None
) -> Workload:
    """Read a Deployment and make a token for its ServiceAccount.

    Args:
        plane: where the Deployment is.
        namespace: of the Deployment.
        deployment: its name.
        directory: receives the kubeconfig (mode 0600) and the log.
        replace: arguments to exchange, such as a port that several processes of one host would fight for.

    Raises StopFault if it has not exactly one container, or that one's program is not installed here.
    """
    found = json.loads(plane.kubectl("-n", namespace, "get", "deployment", deployment, "-o", "json").stdout)
    pod = found["spec"]["template"]["spec"]
    if len(pod["containers"]) != 1:
        raise StopFault(f"Deployment {namespace}/{deployment} has {len(pod['containers'])} containers, not one")
    container = pod["containers"][0]
    words = [*container.get("command", []), *container.get("args", [])]
    swaps = dict(replace or {})
    command = (_program(words[0]), *(swaps.get(word, word) for word in words[1:]))
    kubeconfig = directory / f"{deployment}.kubeconfig"
    write_kubeconfig(plane, namespace, pod.get("serviceAccountName", "default"), kubeconfig)
    return Workload(
        deployment, command, _environment(container, namespace), kubeconfig, directory / f"{deployment}.log"
    )


def write_kubeconfig(plane: ControlPlane, namespace: str, account: str, path: Path) -> None:
    """Write a kubeconfig (mode 0600) that acts as a ServiceAccount, with a fresh token of 24 hours."""
    token = plane.kubectl("-n", namespace, "create", "token", account, "--duration", TOKEN_LIFE).stdout.strip()
    config = yaml.safe_load(plane.kubeconfig.read_text())
    config["users"] = [{"name": account, "user": {"token": token}}]
    for context in config["contexts"]:
        context["context"] |= {"user": account, "namespace": namespace}
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        yaml.safe_dump(config, file)


def _program(name: str) -> str:
    """Find a program beside this interpreter (the virtual environment may not be on PATH), else on PATH."""
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        raise StopFault(f"{name} is not installed here", "Install the distribution: pip install -e .")
    return found


def _environment(container: Mapping[str, Any], namespace: str) -> dict[str, str]:
    """Give the container's variables; of the downward API only the namespace has a meaning without a pod."""
    variables = {}
    entries: Sequence[Mapping[str, Any]] = container.get("env", [])
    for entry in entries:
        if "value" in entry:
            variables[entry["name"]] = entry["value"]
        elif entry.get("valueFrom", {}).get("fieldRef", {}).get("fieldPath") == "metadata.namespace":
            variables[entry["name"]] = namespace
    return variables
