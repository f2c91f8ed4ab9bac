"""Names and tags of what is made in a cloud: the same for every repetition of a step, and told apart from all else.

Whatever is made carries the tags; nothing is changed or removed that does not.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.site import CloudSite, CloudTarget
from farshore_engine.contract.tasks import TaskAssignment

OWNER, RUN, MACHINE, NAME, POINT = (
    "farshore-owner",
    "farshore-run",
    "farshore-machine",
    "farshore-name",
    "farshore-point",
)
US = "farshore"
DISK = "farshore-disk"  # id of the disk in the vault
CONTENT = "farshore-content"  # what the disk's content is called, by which its agent knows it in Azure
STEM = 50  # characters of a machine's name in the names of its parts


def same_region(one: str, other: str) -> bool:
    """Tell whether two names mean the same region: Azure takes, and gives back, "West Europe" for westeurope."""
    return one.replace(" ", "").lower() == other.replace(" ", "").lower()


@dataclass(frozen=True)
class Place:
    """A recovered machine's place: where it is made, what it is called, whose it is.

    Attributes:
        group: resource group of all that is made.
        name: of the machine; its parts' names begin with it.
        run, machine_id, point: what it is made for and from.
    """

    site: CloudSite
    group: str
    name: str
    run: str
    machine_id: str
    point: str = ""
    target: CloudTarget = field(default_factory=CloudTarget)

    @classmethod
    def of(cls, task: TaskAssignment) -> Place:
        """Return the place that a task is about."""
        if task.site is None:
            raise StopFault("the task names no site", "This is a bug of the operator", reason="BadTask")
        target = task.input.target or CloudTarget()
        given = task.input
        name = given.machine_name or given.source_machine
        group = target.resource_group or task.site.resource_group
        return cls(task.site, group, name, task.run, given.machine_id, given.point, target)

    @property
    def key(self) -> str:
        """What tells parts of one run and machine from those of another."""
        return hashlib.sha256(f"{self.run}/{self.machine_id}/{self.point}".encode()).hexdigest()[:10]

    @property
    def tags(self) -> dict[str, str]:
        """What everything carries that is made for the machine."""
        own = {OWNER: US, RUN: self.run, MACHINE: self.machine_id, NAME: self.name, POINT: self.point}
        return {**self.target.tags, **own}

    def nic(self, number: int) -> str:
        """Name of network interface `number` of the target, from 0."""
        return f"{self.name[:STEM]}-{self.key}-nic{f'-{number}' if number else ''}"

    def disk(self, number: int) -> str:
        """Name of the disk that is number `number` in the point, from 0."""
        return f"{self.name[:STEM]}-{self.key}-disk-{number}"

    def check_own(self, kind: str, found: Any) -> None:
        """Refuse what has our name and is not ours: made by nobody of us, for another machine or by another run.

        Raises:
            StopFault: it is not.
        """
        tags = found.tags or {}
        if self.is_machines(found) and tags.get(RUN) == self.run and tags.get(POINT) == self.point:
            return
        whose = f"run {tags[RUN]} of {tags.get(MACHINE, '?')}" if RUN in tags else "somebody else"
        raise StopFault(
            f"there is a {kind} {found.name} in resource group {self.group} already, made by {whose}",
            "Clean it up or rename it first, or give this machine another name: spec.target.name of the ProtectedVM",
            reason="MachineConflict",
        )

    def is_machines(self, found: Any) -> bool:
        """Tell whether something was made by us for this machine under this name, by whichever run."""
        tags = found.tags or {}
        return (tags.get(OWNER), tags.get(MACHINE), tags.get(NAME)) == (US, self.machine_id, self.name)
