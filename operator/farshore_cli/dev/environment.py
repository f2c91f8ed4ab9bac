"""One development environment that outlives the shell that started it: a control plane and Azurite in a directory.

What else runs in it, such as the demo's operator and machines, is handed over with `keep`, so that one command takes
all of it down again.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from farshore_cli.dev import tools
from farshore_cli.dev.azurite import Azurite
from farshore_cli.dev.cache import Progress, only_one, silent
from farshore_cli.dev.checkout import checkout
from farshore_cli.dev.controlplane import ControlPlane
from farshore_cli.dev.processes import Process, load, save
from farshore_engine.contract.faults import StopFault


@dataclass(frozen=True)
class Part:
    """One program of the environment, and where it is reached."""

    process: Process
    url: str
    log: Path


class Environment:
    """The development environment of one directory.

    Attributes:
        directory: holds everything that belongs to it.
        control_plane: detached; runs until `down`.
        azurite: detached likewise.
    """

    def __init__(self, directory: Path, progress: Progress = silent) -> None:
        self.directory = directory.absolute()
        self.control_plane = ControlPlane(self.directory / "control-plane", detached=True, progress=progress)
        self.azurite = Azurite(self.directory / "azurite", detached=True, progress=progress)
        self._kept = self.directory / "kept.json"
        self._cleaners = self.directory / "cleaners.json"
        self._progress = progress

    @property
    def kubeconfig(self) -> Path:
        """File for an administrator of the control plane."""
        return self.control_plane.kubeconfig

    @property
    def bin(self) -> Path:
        """Directory with a kubectl and a Helm that suit the control plane."""
        return self.directory / "bin"

    @property
    def exists(self) -> bool:
        """Tell whether anything was started here and not taken down."""
        return any(self.directory.glob("*/process*.json")) or self._kept.exists() or self._cleaners.exists()

    @property
    def alive(self) -> bool:
        """Tell whether the control plane and Azurite run."""
        return self.control_plane.alive and self.azurite.alive

    def parts(self) -> list[Part]:
        """Give what was started, dead or alive, in order of start."""
        plane, store = self.control_plane, self.azurite
        parts = [Part(one, plane.url(name), plane.log(name)) for name, one in plane.processes.items()]
        if store.process is not None:
            parts.append(Part(store.process, store.account_url, store.log))
        return [*parts, *(Part(one, "", self.directory) for one in load(self._kept))]

    def up(self) -> None:
        """Start what does not run, on the data that is there. Raises the faults of ControlPlane and Azurite."""
        with self._alone():
            self.bin.mkdir(exist_ok=True)
            for name, path in (("kubectl", tools.kubectl(self._progress)), ("helm", tools.helm(self._progress))):
                (self.bin / name).unlink(missing_ok=True)
                (self.bin / name).symlink_to(path)
            self.control_plane.start()
            self.azurite.start()

    def down(self) -> None:
        """Stop all of it and remove its data.

        Raises StopFault if a cleaner fails: then everything is stopped, and a second `down` repeats the cleaner.
        """
        if not self.directory.is_dir():
            return
        with self._alone():
            for process in reversed(load(self._kept)):
                self._progress(f"stopping {process.name}")
                process.stop()
            self._kept.unlink(missing_ok=True)
            failed = self._clean()
            self._progress("stopping Azurite and the control plane")
            self.azurite.stop()
            self.control_plane.stop()
            # By name: the directory may be one that the user gave, and holds other things of theirs.
            for owned in (self.azurite.directory, self.control_plane.directory, self.bin):
                shutil.rmtree(owned, ignore_errors=True)
        if failed:
            raise StopFault("Not all of the environment could be removed: " + "; ".join(failed), "Run this again")

    def keep(self, process: Process) -> None:
        """Hand over a process that runs in this environment: `status` shows it and `down` stops it, newest first."""
        save([*load(self._kept), process], self._kept)

    def clean_with(self, command: Sequence[str]) -> None:
        """Have `down` run a command (absolute path first, repeatable) after the kept processes ended, newest first."""
        self._write_cleaners([*self._read_cleaners(), list(command)])

    def _clean(self) -> list[str]:
        """Run the cleaners, forget those that succeed, and give a sentence for each that does not."""
        left: list[list[str]] = []
        failed: list[str] = []
        for command in reversed(self._read_cleaners()):
            ran = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
            if ran.returncode:
                left.insert(0, command)
                failed.append(f"`{' '.join(command)}`: {(ran.stderr or ran.stdout).strip()}")
        self._write_cleaners(left)
        return failed

    def _read_cleaners(self) -> list[list[str]]:
        commands: list[list[str]] = json.loads(self._cleaners.read_text()) if self._cleaners.is_file() else []
        return commands

    def _write_cleaners(self, commands: list[list[str]]) -> None:
        if commands:
            self._cleaners.write_text(json.dumps(commands, indent=2))
        else:
            self._cleaners.unlink(missing_ok=True)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep another `up` or `down` of this directory waiting."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        waiting = f"waiting for another farshore that works in {self.directory}"
        with only_one(self.directory / ".lock", lambda: self._progress(waiting)):
            yield


def default_directory() -> Path:
    """Give `build/dev` of the repository."""
    return checkout() / "build" / "dev"
