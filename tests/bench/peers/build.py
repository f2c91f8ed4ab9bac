"""Builds the peers that are Go modules, at exact versions: distributions carry older ones, or none.

`restic/` and `kopia/` hold a go.mod and go.sum each. What is built is cached outside of the tree.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from farshore_cli.dev.cache import cached, fingerprint

HERE = Path(__file__).resolve().parent
PATIENCE = 1500.0  # seconds for downloads and build together
LAST_LINES = 5


class NotBuilt(Exception):
    """The peer cannot be had; the text says why."""


@dataclass(frozen=True)
class GoPeer:
    """A program of a Go module: the directory with its go.mod, its package, and its version."""

    name: str
    package: str
    version: str


RESTIC = GoPeer("restic", "github.com/restic/restic/cmd/restic", "0.18.1")
KOPIA = GoPeer("kopia", "github.com/kopia/kopia", "0.22.3")


@cache
def program(peer: GoPeer) -> Path:
    """Return the built program; minutes for the first time. Raises NotBuilt."""
    source = HERE / peer.name
    modules = [(source / name).read_bytes() for name in ("go.mod", "go.sum")]
    key = f"{peer.version}-{fingerprint(*modules, platform.machine())}"
    return cached(f"peers-{peer.name}", key, lambda to: _build(peer, source, to / peer.name)) / peer.name


def _build(peer: GoPeer, source: Path, target: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise NotBuilt("there is no Go here: install Go 1.24 or newer")
    command = [go, "build", "-mod=readonly", "-trimpath", "-buildvcs=false", "-o", str(target), peer.package]
    try:
        done = subprocess.run(
            ["nice", "-n", "10", *command],
            cwd=source, env={**os.environ, "GOFLAGS": ""}, capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise NotBuilt(f"the build took longer than {PATIENCE:.0f} s") from error
    if done.returncode:
        raise NotBuilt("\n".join(done.stderr.strip().splitlines()[-LAST_LINES:]))
