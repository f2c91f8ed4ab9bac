"""What the executors for Azure begin with: the cloud, the machine's place in it, and what is there of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from farshore_engine.azure.cleanup import groups_with
from farshore_engine.azure.cloud import Cloud, cloud_of
from farshore_engine.azure.machines import find_machine
from farshore_engine.azure.place import POINT, RUN, Place
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import TaskAssignment
from farshore_engine.processserver.identity import write_private
from farshore_engine.processserver.tasks.context import TaskContext

NOTE = "azure.json"


@dataclass(frozen=True)
class Scene:
    """A task's cloud and place, and the directory of the machine on this host."""

    cloud: Cloud
    place: Place
    directory: Path

    @classmethod
    def of(cls, task: TaskAssignment, context: TaskContext) -> Scene:
        """Return the scene of a task."""
        place = Place.of(task)
        if not place.name:
            raise StopFault("the task names no machine", "This is a bug of the operator", reason="BadTask")
        return cls(cloud_of(task.site), place, context.machines_dir / place.name)

    def machine(self) -> Any:
        """Return the machine in Azure that has the name, whoever made it; None if there is none."""
        return next((found for found in map(self._find, self.groups()) if found is not None), None)

    def recovered(self) -> Any:
        """Return the machine of that name that was recovered here, also where nobody has noted its resource group."""
        for groups in (self.groups, self.everywhere):
            found = next((one for one in map(self._find, groups()) if self._is_recovered(one)), None)
            if found is not None:
                return found
        return None

    def _is_recovered(self, found: Any) -> bool:
        return found is not None and self.place.is_machines(found)

    def _find(self, group: str) -> Any:
        return find_machine(self.cloud, group, self.place.name)

    def made(self) -> Any:
        """Return the machine if it was made by this very run from this point, None otherwise."""
        found = self.machine()
        return found if found is not None and self.is_made_by_run(found) else None

    def is_made_by_run(self, found: Any) -> bool:
        """Tell whether the machine was made by this run, from this point."""
        tags = found.tags or {}
        wanted = (self.place.run, self.place.point)
        return self.place.is_machines(found) and (tags.get(RUN), tags.get(POINT)) == wanted

    def check_name(self, replaces: str) -> Any:
        """Return the machine that the run named `replaces` made, None if the name is free or the machine is ours.

        Raises:
            StopFault: something else has the name.
        """
        found = self.machine()
        if found is None or self.is_made_by_run(found):
            return None
        if replaces and self.place.is_machines(found) and (found.tags or {}).get(RUN) == replaces:
            return found
        self.place.check_own("machine", found)
        return None

    def groups(self) -> tuple[str, ...]:
        """Return the resource groups where the machine may be: the target's, the one that was noted, the site's."""
        return _distinct((self.place.group, self._noted(), self.place.site.resource_group))

    def everywhere(self) -> tuple[str, ...]:
        """Return in addition each resource group of the subscription that has something of the machine.

        Whoever sends it home is not told the place that it was given, and a new process server has noted none.
        """
        return _distinct((*self.groups(), *groups_with(self.cloud, self.place)))

    def note(self, **facts: Any) -> None:
        """Write down where the machine is made, and what else is known of it, for tasks that do not say it."""
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        known = {**noted(self.directory), "group": self.place.group, **facts}
        write_private(self.directory / NOTE, json.dumps(known).encode())

    def _noted(self) -> str:
        return str(noted(self.directory).get("group", self.place.group))


def _distinct(groups: Iterable[str]) -> tuple[str, ...]:
    """Return each resource group once; Azure does not mind how their names are written."""
    found: dict[str, str] = {}
    for group in groups:
        found.setdefault(group.lower(), group)
    return tuple(found.values())


def noted(directory: Path) -> dict[str, Any]:
    """Return what was written down of a machine: `group`, `address`, `disks` (ids in the vault by contents' names)."""
    try:
        found = json.loads((directory / NOTE).read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def disk_names(machines_dir: Path, address: str) -> tuple[tuple[str, str], ...]:
    """Return name of the content and id of the disks of the machine that was recovered at an address, for its agent."""
    for note in sorted(machines_dir.glob(f"*/{NOTE}")):
        found = noted(note.parent)
        if found.get("address") == address and isinstance(found.get("disks"), dict):
            return tuple(sorted((str(name), str(disk)) for name, disk in found["disks"].items()))
    return ()


def telling(context: TaskContext, sentence: str) -> Callable[[], None]:
    """Return what reports a sentence while an operation goes on, and finds out whether the task was called off."""
    return lambda: context.progress(None, sentence)
