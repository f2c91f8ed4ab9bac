"""Devices as files of this host: for tools that want a file, such as losetup, of a disk that is not hydrated.

QEMU's storage daemon asks our NBD server and shows what it gets by FUSE. Nothing of a disk is read but what the tool
reads. What is left by a process that was killed is found by the place's name and taken away first.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from farshore_engine.contract.faults import StopFault
from farshore_engine.machines import loop
from farshore_engine.machines.commands import attempt
from farshore_engine.nbd.device import Device
from farshore_engine.nbd.server import NbdServer

DAEMON, FUSE = "qemu-storage-daemon", Path("/dev/fuse")
READY = 30.0  # seconds within which the files are there
END = 60.0  # seconds for the daemon to write back what it holds
MOUNTS = Path("/proc/self/mounts")
RUN = Path("/run")


@contextmanager
def as_files(devices: Mapping[str, Device], key: str) -> Iterator[dict[str, Path]]:
    """Show devices as files, writable where they are; when it is left, all that was written is in the devices.

    Args:
        devices: by names of letters, digits and dashes.
        key: tells this place from others of the host; the same one again takes away what a killed process left.

    Raises:
        StopFault: this host has no FUSE or no storage daemon of QEMU.
    """
    if shutil.which(DAEMON) is None or not FUSE.exists():
        raise StopFault(
            f"this host cannot show a point as a file: {DAEMON} or {FUSE} is missing",
            "Install qemu-system-common (Debian) on the process server, and give it /dev/fuse",
            reason="NoFuse",
        )
    place = place_of(key)
    clear(place)
    place.mkdir(mode=0o700)
    with ExitStack() as undo:
        undo.callback(clear, place)
        files = {name: place / name for name in devices}
        for file in files.values():
            file.touch(mode=0o600)
        undo.enter_context(NbdServer(devices, place / "nbd"))
        daemon = subprocess.Popen(_command(devices, place), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        undo.callback(_end, daemon)
        _wait(daemon, devices, files)
        yield files


def place_of(key: str) -> Path:
    """Return the directory of a place; its name is short, because a socket is in it, and only root makes it."""
    above = RUN if os.access(RUN, os.W_OK) else Path(tempfile.gettempdir())
    return above / f"farshore-{hashlib.sha256(key.encode()).hexdigest()[:12]}"


def clear(place: Path) -> None:
    """Take away what is left of a place: loop devices on its files, mounts, the directory."""
    for device in loop.attached():
        if device.backing.startswith(f"{place}/"):
            attempt(["losetup", "--detach", device.device])
    for mounted in _mounted(place):
        attempt(["umount", "--lazy", mounted])
    shutil.rmtree(place, ignore_errors=True)


def _command(devices: Mapping[str, Device], place: Path) -> list[str]:
    # It must not outlive us: a file that nobody serves hangs whoever reads it.
    command = ["setpriv", "--pdeathsig", "KILL", DAEMON]
    for number, (name, device) in enumerate(devices.items()):
        writable = "off" if device.read_only else "on"
        command += [
            "--blockdev",
            f"driver=nbd,node-name=disk{number},server.type=unix,server.path={place / 'nbd'},export={name},"
            f"read-only={'on' if device.read_only else 'off'}",
            "--export",
            f"type=fuse,id=file{number},node-name=disk{number},mountpoint={place / name},writable={writable}",
        ]
    return command


def _wait(daemon: subprocess.Popen[bytes], devices: Mapping[str, Device], files: Mapping[str, Path]) -> None:
    deadline = time.monotonic() + READY
    while any(file.stat().st_size != devices[name].size for name, file in files.items()):
        if daemon.poll() is not None or time.monotonic() > deadline:
            daemon.kill()
            said = daemon.communicate()[1].decode(errors="replace").strip()[-300:]
            raise StopFault(
                f"this host cannot show a point as a file: {said or 'nothing came in time'}",
                f"Check that {DAEMON} has FUSE, and that the process server may use {FUSE}",
                reason="NoFuse",
            )
        time.sleep(0.02)


def _end(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.communicate(timeout=END)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.communicate()


def _mounted(place: Path) -> list[str]:
    lines = MOUNTS.read_text().splitlines()
    return [where for where in (line.split()[1] for line in lines) if where.startswith(f"{place}/")]
