"""Prepares a guest's mounted file tree: a process of its own, in a mount namespace that goes away with it.

Reads a `Plan` (JSON) on standard input, and prints what it changed. It dies with its parent, so that nothing stays
mounted when that is killed.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from farshore_engine.contract.tasks import GuestPreparation
from farshore_engine.guest.agent import detach_agent
from farshore_engine.guest.azure import prepare_azure
from farshore_engine.guest.network import is_managed, restore_network, set_network
from farshore_engine.guest.tree import NOTE, Tree

CLONE_NEWNS = 0x20000
MS_REC, MS_PRIVATE = 0x4000, 0x40000
PR_SET_PDEATHSIG = 1
SAFE = "nosuid,nodev,noexec"
SYSTEM_MARKS = ("/etc/fstab", "/etc/os-release", "/usr/lib/os-release")


def prepare(tree: Tree, wanted: GuestPreparation) -> list[str]:
    """Carry a preparation out in a tree; returns each change, and notes. A second time there is none to make."""
    changes: list[str] = []
    if wanted.restore_network:
        changes += restore_network(tree)
    if wanted.network is not None:
        changes += set_network(tree, wanted.network)
    if wanted.detach_agent:
        changes += detach_agent(tree)
    if wanted.azure:
        changes += prepare_azure(tree)
    return changes


def main() -> int:
    """Mount what the plan names, prepare it, unmount."""
    plan: dict[str, Any] = json.load(sys.stdin)
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if libc.unshare(CLONE_NEWNS) != 0 or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0:
        raise OSError(ctypes.get_errno(), "a mount namespace cannot be made")
    wanted = GuestPreparation.model_validate(plan["preparation"])
    with tempfile.TemporaryDirectory(prefix="farshore-guest-") as place:
        lines, managed = _carry_out(plan["systems"], place, wanted)
        print(json.dumps({"lines": lines, "network": managed}))
    return 0


def _carry_out(systems: list[dict[str, str]], place: str, wanted: GuestPreparation) -> tuple[list[str], bool]:
    """Prepare the root file system among `systems` ({node, kind, mount_point}, "" where it is not known).

    Returns what there is to say, and whether the guest has the network settings that were wanted.
    """
    said: list[str] = []
    for system in sorted(systems, key=lambda s: s["mount_point"] != "/"):
        if system["mount_point"] not in ("/", ""):
            continue
        if problem := _mount(system, place):
            said.append(f"{NOTE}{problem}")
            continue
        mounted = [place]
        try:
            tree = Tree(place)
            try:
                if not any(tree.exists(mark) for mark in SYSTEM_MARKS):
                    continue
                mounted += _mount_below(systems, place, said)
                said += prepare(tree, wanted)
                return said, wanted.network is not None and is_managed(tree)
            finally:
                tree.close()
        finally:
            for point in reversed(mounted):
                subprocess.run(["umount", point], check=True)
    return [*said, f"{NOTE}no system is on these disks: nothing to prepare"], False


def _mount_below(systems: list[dict[str, str]], place: str, said: list[str]) -> list[str]:
    """Mount the other file systems of the guest in their places, where those are within its tree."""
    mounted = []
    for system in sorted(systems, key=lambda s: s["mount_point"]):
        inner = system["mount_point"].strip("/")
        if not inner:
            continue
        point = os.path.realpath(Path(place) / inner)
        if not point.startswith(f"{place}/") or not Path(point).is_dir():
            continue
        if problem := _mount(system, point):
            said.append(f"{NOTE}{problem}")
        else:
            mounted.append(point)
    return mounted


def _mount(system: dict[str, str], point: str) -> str:
    """Mount a file system, with its journal replayed; returns what went wrong."""
    options = f"{SAFE},nouuid" if system["kind"] == "xfs" else SAFE
    command = ["mount", "-t", system["kind"], "-o", options, system["node"], point]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return f"{system['node']} ({system['kind']}) cannot be mounted: {done.stderr.strip()}" if done.returncode else ""


if __name__ == "__main__":
    sys.exit(main())
