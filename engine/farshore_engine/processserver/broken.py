"""Machines that are assigned here while something that they refer to does not resolve: nothing is done but told."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path

from farshore_engine.contract.assignment import BrokenAssignment
from farshore_engine.contract.replication import AgentReport, ReplicationReport, State
from farshore_engine.processserver import memory as memories
from farshore_engine.processserver.reporting import Cadence, Reporter


class BrokenMachines:
    """Reports them. `send` publishes the report of a machine, by its name."""

    def __init__(self, send: Callable[[str, ReplicationReport], None], state_dir: Path, cadence: Cadence) -> None:
        self._send = send
        self._state_dir = state_dir
        self._cadence = cadence
        self._reporters: dict[str, Reporter] = {}

    def report(self, trouble: BrokenAssignment, server: str, now: datetime, monotonic: float) -> None:
        """Tell what is in the way of a machine, if it is time."""
        name = trouble.name
        if name not in self._reporters:
            self._reporters[name] = Reporter(lambda report: self._send(name, report), self._cadence, random.Random())
        known = memories.load(memories.path(self._state_dir, trouble.machine_id))
        report = ReplicationReport(
            process_server=server,
            epoch=0,
            state=State.WAITING if trouble.waits else State.BLOCKED,
            message=trouble.message,
            remedy=trouble.remedy,
            reason="BrokenReference",
            agent=AgentReport(host_key=known.host_key) if known.host_key else None,  # a pinned key stays pinned
            updated_at=now,
        )
        self._reporters[name].offer(report, monotonic)

    def keep(self, names: Iterable[str]) -> None:
        """Forget all but these."""
        self._reporters = {name: self._reporters[name] for name in names if name in self._reporters}
