"""A machine on its way home: its definition is kept, the machine is taken away, its disks and interfaces stay.

Why it is taken away, and not its OS disk swapped: deleting a machine while keeping its disks and interfaces, and making
it anew on them, is what Microsoft documents for a Hub ("Azure Stack Hub managed disks: differences and
considerations"); swapping is documented for Azure only and would need a second disk of the same size. Besides, nobody
can start a machine that is not there on disks that are half written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from farshore_engine.azurestack.definition import TAG, Definition, definition_of, from_tags, to_tags, without
from farshore_engine.azurestack.machine import Machine, PowerState
from farshore_engine.azurestack.machines import NICS, TRANSIENT, Machines
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.processserver.identity import write_private

RUNS = (PowerState.RUNNING, PowerState.STARTING)


class TakenApart:
    """What a process server keeps of machines that are taken apart. Every method may be cut off and repeated."""

    def __init__(self, machines: Machines, directory: Path) -> None:
        """Keep notes in `directory`, one file for each machine."""
        self._machines = machines
        self._manager = machines.manager
        self._directory = directory

    def take(self, machine: Machine) -> Definition:
        """Keep the machine's definition in both places, then take the machine away; its disks and interfaces stay.

        Raises:
            StopFault: it runs, or its definition cannot be kept: it is left as it is.
            WaitFault: it is being switched, or the Hub is busy.
        """
        if machine.power in RUNS:
            raise StopFault(
                f"the machine {machine.name} runs on the disks that are to be written",
                "Power it off: what it has written since the failover is replaced by the point",
                reason="MachineRuns",
            )
        if machine.power in TRANSIENT:
            raise WaitFault(f"the machine {machine.name} is {machine.power.value}", reason="HubBusy")
        self._machines.deallocate(machine)
        definition = definition_of(machine)
        self.keep(definition)
        self._manager.delete(machine.id)
        if self._manager.find(machine.id) is not None:
            raise WaitFault(f"the machine {machine.name} is still there after it was deleted", reason="HubBusy")
        return definition

    def keep(self, definition: Definition) -> None:
        """Keep a definition on this host and with its primary network interface."""
        write_private(self._note(definition.name), definition.dump().encode())
        tags = self._tags(definition.nics[0])
        self._tag(definition.nics[0], {**without(tags), **to_tags(definition, len(without(tags)))})

    def kept(self, name: str) -> Definition | None:
        """Return the definition of a machine that is taken apart, None if none is kept or what it needs is gone."""
        for definition in (self._noted(name), self._tagged(name)):
            if definition is not None and self._whole(definition):
                return definition
        return None

    def forget(self, machine: Machine) -> None:
        """Keep a definition no longer, because the machine is there again."""
        for nic in machine.nics:
            tags = self._tags(nic.id)
            if TAG in tags:
                self._tag(nic.id, without(tags))
        self._note(machine.name).unlink(missing_ok=True)

    def _noted(self, name: str) -> Definition | None:
        try:
            return Definition.load(self._note(name).read_text())
        except (FileNotFoundError, ValueError, KeyError):
            return None

    def _tagged(self, name: str) -> Definition | None:
        path = f"/subscriptions/{self._machines.site.subscription}/providers/{NICS}"
        for body in self._manager.all(path):
            tags: Mapping[str, str] = body.get("tags") or {}
            if tags.get(TAG, "").lower() == name.lower() and (found := from_tags(tags)) is not None:
                return found
        return None

    def _whole(self, definition: Definition) -> bool:
        needed = [disk.id for disk in definition.disks if disk.id] + list(definition.nics)
        return all(self._manager.find(one) is not None for one in needed)

    def _tags(self, nic: str) -> dict[str, str]:
        body = self._manager.find(nic)
        if body is None:
            raise StopFault(f"the network interface {nic} does not exist", "Attach another one", reason="HubNotFound")
        return dict(body.get("tags") or {})

    def _tag(self, nic: str, tags: dict[str, str]) -> None:
        self._manager.patch(nic, {"tags": tags})

    def _note(self, name: str) -> Path:
        return self._directory / f"{Path(name).name.lower()}.json"


def is_noted(path: Path) -> dict[str, Any]:
    """Read a note of a step that ended; empty where there is none."""
    try:
        found = json.loads(path.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
