"""A place in a life with Site Recovery to which one returns: manifests and statuses, Azure, and the machines."""

from __future__ import annotations

import copy
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.azure.conformance.service import Service
from tests.azure.siterecovery.scene import Trap
from tests.azuresim.compute.state import compute

from farshore_operator.kube.cache import Cache
from farshore_operator.observe.world import World
from farshore_operator.settings import Timing

KEPT = ("files", "sizes", "access", "blobs", "etags")
"""What the simulator remembers of the bytes of disks."""


class Bookmark:
    """Everything as it was when it was made. Nothing may be under way then."""

    def __init__(self, life: Service, directory: Path) -> None:
        self._life, self._at = life, life.now
        sim, sr = life.cloud.sim, life.cloud.sr
        sim.settle()
        folders = [compute(sim).files.directory, sr.world.folder, life.cloud.folder]
        self._folders = [(one, directory / str(number)) for number, one in enumerate(folders)]
        for here, there in self._folders:
            if here.exists():
                shutil.copytree(here, there)
        state = compute(sim)
        self._azure = copy.deepcopy((sim.store.found, state.power, *(getattr(state.files, one) for one in KEPT)))
        self._service = self._copied((sr.vaults, sr.offazure, sr.world.machines))
        objects = [(kind, body) for kind in (*life.kinds, "Site", "ReplicationPolicy", "Task")
                   for body in life.cache.all(kind)]  # fmt: skip
        self._objects, self._plan = copy.deepcopy(objects), copy.deepcopy(life.plan_spec)

    def go_back(self) -> None:
        """Make everything as it was, the time included."""
        life, sim, sr = self._life, self._life.cloud.sim, self._life.cloud.sr
        sr.clock.ahead = self._at - datetime.now(UTC)
        sim.faults.clear()
        sim.settle()
        for here, there in self._folders:
            shutil.rmtree(here, ignore_errors=True)
            if there.exists():
                shutil.copytree(there, here)
        sim.reset()
        found, power, *files = copy.deepcopy(self._azure)
        state = compute(sim)
        _become(sim.store.found, found)
        _become(state.power, power)
        for name, known in zip(KEPT, files, strict=True):
            _become(getattr(state.files, name), known)
        vaults, offazure, machines = self._copied(self._service)
        _become(sr.vaults, vaults)
        _become(sr.offazure, offazure)
        sr.world.machines[:] = machines
        life.source = {one.name: one for one in machines}
        life.cache = Cache()
        for kind, body in copy.deepcopy(self._objects):
            life.cache.put(kind, body)
        life.world = World(life.cache, life.secrets, life.heartbeats, Timing(), lambda: life.now)  # type: ignore[arg-type]
        life.plan_spec = copy.deepcopy(self._plan)
        life.trap = Trap()
        for memory in (life.told, life.began, life.violations, life.begun, life.called, life.accepted):
            memory.clear()
        life.restart()

    def _copied(self, state: Any) -> Any:
        sim, sr = self._life.cloud.sim, self._life.cloud.sr
        return copy.deepcopy(state, {id(sim): sim, id(sr): sr})


def _become(known: Any, wanted: Any) -> None:
    known.clear()
    known.update(wanted)
