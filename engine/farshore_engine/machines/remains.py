"""Looks for what a machine that was taken away may have left on this host, without asking any record of it.

Everything that a machine has here is named after the machine, so it can be looked for when nobody remembers it any
more: that is what makes a clean-up believable after a crash in the middle of one.
"""

from __future__ import annotations

from pathlib import Path

from farshore_engine.machines import loop
from farshore_engine.machines.directory import MachineDirectory
from farshore_engine.machines.network import Network, Port, Tap, link_exists, namespaces
from farshore_engine.machines.qemu_command import pidfile


def remains(directory: MachineDirectory, network: str, disks: Path) -> list[str]:
    """Return what is left of a machine, in words; empty when it is gone without a trace.

    Args:
        directory: where the machine was on record.
        network: name of the network that it was in; that too must be gone if nothing is plugged into it.
        disks: the directory of its disks.
    """
    base = f"{disks.resolve()}/"
    found = [f"directory {path}" for path in (directory.path, disks) if path.exists()]
    found += [f"loop device {one.device} of {one.backing}" for one in loop.attached() if one.backing.startswith(base)]
    found += [f"mount {place}" for place in _mounts() if place.startswith((base, f"{directory.path.resolve()}/"))]
    return found + _network(Network(directory.scope, network), directory.name) + _processes(directory)


def looked_for(directory: MachineDirectory, network: str, disks: Path) -> tuple[str, ...]:
    """Return what `remains` looks for, for people."""
    return (
        f"machine {directory.name} and its processes",
        f"disks in {disks} and their loop devices and mounts",
        f"its place in network {network}, and the network if nobody is left in it",
    )


def _network(network: Network, machine: str) -> list[str]:
    port, tap = Port(network, machine), Tap(network, machine)
    found = [f"network namespace {port.netns}"] if port.netns in namespaces() else []
    found += [f"interface {name}" for name in (port.veth, tap.interface) if link_exists(name)]
    if link_exists(network.bridge) and not network.ports():
        found.append(f"bridge {network.bridge} of network {network.name}")
    return found


def _mounts() -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line.split(" ")[1].encode().decode("unicode_escape") for line in lines]


def _processes(directory: MachineDirectory) -> list[str]:
    """QEMU by its pid file on the command line, process 1 of a namespace machine by the console that it writes."""
    mark = f"\0-pidfile\0{pidfile(directory)}\0".encode()
    consoles = (str(directory.console), f"{directory.console} (deleted)")
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line = (entry / "cmdline").read_bytes()
            output = str((entry / "fd/1").readlink())
        except OSError:
            continue  # it ended meanwhile
        if mark in line or (b"namespace_init.py" in line and output in consoles):
            found.append(f"process {entry.name}")
    return found
