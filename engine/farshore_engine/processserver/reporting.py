"""When a machine's report is worth sending: the API must not be flooded, and nothing that matters may come late."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from farshore_engine.contract.replication import ReplicationReport, State

Key = tuple[object, ...]


@dataclass(frozen=True)
class Cadence:
    """Seconds between two reports of a machine: while it copies or a point was made, and at rest."""

    active: float = 15.0
    rest: float = 300.0


class Reporter:
    """Sends reports of one machine: transitions at once, progress and points seldom, the rest every few minutes."""

    def __init__(self, send: Callable[[ReplicationReport], None], cadence: Cadence, jitter: random.Random) -> None:
        """`send` publishes; `jitter` spreads the reports of many machines."""
        self._send = send
        self._cadence = cadence
        self._jitter = jitter
        self._sent_at = float("-inf")
        self._rest = cadence.rest
        self._sent: ReplicationReport | None = None

    def offer(self, report: ReplicationReport, now: float) -> bool:
        """Send the report if it is time; return whether it was sent. `now` is monotonic, in seconds."""
        age = now - self._sent_at
        if self._sent is not None and _hard(report) == _hard(self._sent):
            changed = _soft(report) != _soft(self._sent)
            if age < (self._cadence.active if changed else self._rest):
                return False
        self._send(report)
        self._sent, self._sent_at = report, now
        self._rest = self._cadence.rest * self._jitter.uniform(0.8, 1.2)
        return True


def _hard(report: ReplicationReport) -> Key:
    """What is told at once when it changes."""
    agent = report.agent
    return (
        report.state,
        report.reason,
        report.epoch,
        report.vault_epoch,
        report.checks,
        report.disks,
        report.resync_reason,
        report.churn is not None and report.churn.outruns_link,
        report.last_point is None,
        report.initial_seconds > 0,
        report.state is State.BLOCKED and report.message,
        agent and (agent.connected, agent.version, agent.host_key, agent.certificate_request, agent.tracker),
    )


def _soft(report: ReplicationReport) -> Key:
    """What is told when it changes, but not too often."""
    return (report.message, report.progress, report.last_point, report.point_count, report.group, report.churn)
