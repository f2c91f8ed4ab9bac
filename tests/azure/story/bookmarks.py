"""A place in the story to which one returns: both clouds, the vault, the process servers, and where machines stand."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.azure.story.runs import Run
from tests.azure.story.tutorial import Story
from tests.azuresim import AzureSim
from tests.azuresim.compute.state import compute

KEPT = ("files", "sizes", "access", "blobs", "etags")
"""What a simulator remembers of the bytes of disks."""
STANDS = ("epoch", "base", "content", "points")
"""What changes of an actor."""


@dataclass(repr=False)
class Bookmark:
    """Everything as it was when it was made. `directories` are those of the vault and of the process servers."""

    story: Story
    directory: Path
    directories: tuple[Path, ...]
    memory: dict[str, Run]
    _undo: list[Callable[[], None]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True)
        clouds = self.story.clouds
        for sim in (clouds.hub, clouds.azure):
            self._undo.append(_cloud(sim))
        self._copies = [
            (one, self.directory / str(number))
            for number, one in enumerate((*self.directories, *(_disks(sim) for sim in (clouds.hub, clouds.azure))))
        ]
        for here, there in self._copies:
            _copy(here, there)
        for actor in clouds.actors:
            self._undo.append(_fields(actor, STANDS))
        self._runs = list(self.story.stage.runs)

    def go_back(self) -> dict[str, Run]:
        """Make everything as it was; returns the runs that there were, by act."""
        clouds = self.story.clouds
        for sim in (clouds.hub, clouds.azure):
            sim.faults.clear()
            sim.settle()
        for here, there in self._copies:
            _copy(there, here)
        for undo in self._undo:
            undo()
        self.story.stage.runs[:] = self._runs
        clouds.trouble.clear()
        clouds.answer_again()
        clouds.trouble.clear()
        return dict(self.memory)


def _cloud(sim: AzureSim) -> Callable[[], None]:
    found, power = copy.deepcopy(sim.store.found), dict(compute(sim).power)
    files: dict[str, dict[Any, Any]] = {name: copy.deepcopy(getattr(compute(sim).files, name)) for name in KEPT}

    def undo() -> None:
        with sim.lock:
            sim.reset()
            sim.store.found.update(copy.deepcopy(found))
            state = compute(sim)
            state.power.clear()
            state.power.update(power)
            for name, known in files.items():
                one = getattr(state.files, name)
                one.clear()
                one.update(copy.deepcopy(known))

    return undo


def _fields(owner: object, names: tuple[str, ...]) -> Callable[[], None]:
    known = {name: copy.copy(getattr(owner, name)) for name in names}

    def undo() -> None:
        for name, value in known.items():
            setattr(owner, name, copy.copy(value))

    return undo


def _disks(sim: AzureSim) -> Path:
    return compute(sim).files.directory


def _copy(source: Path, target: Path) -> None:
    """Make `target` the same as `source`, holes included."""
    subprocess.run(["rm", "-rf", str(target)], check=True)
    source.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--sparse=always", str(source), str(target)], check=True)
