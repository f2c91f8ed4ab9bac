"""What is worth writing: a report that differs only in when something was last heard is written every few minutes."""

from __future__ import annotations

from datetime import datetime, timedelta

from farshore_engine.contract.replication import ReplicationReport
from farshore_engine.contract.siterecovery import SiteRecoveryReport

REST = timedelta(minutes=5)
"""How often a report is written again that tells nothing new."""


def machine(old: ReplicationReport | None, new: ReplicationReport) -> bool:
    """Tell whether the report of a machine is to be written."""
    if old is None or old.updated_at is None or new.updated_at is None:
        return True
    return _still(old) != _still(new) or (new.updated_at - old.updated_at >= REST and old.agent != new.agent)


def vault(old: SiteRecoveryReport, new: SiteRecoveryReport) -> bool:
    """Tell whether the report of a vault is to be written."""
    beats = zip(old.appliances, new.appliances, strict=False)
    later = any(_later(a.last_heartbeat, b.last_heartbeat) for a, b in beats)
    return later or _quiet(old) != _quiet(new)


def _later(old: datetime | None, new: datetime | None) -> bool:
    return new is not None and (old is None or new - old >= REST)


def _still(report: ReplicationReport) -> ReplicationReport:
    agent = report.agent.model_copy(update={"last_seen": None}) if report.agent is not None else None
    return report.model_copy(update={"updated_at": None, "agent": agent})


def _quiet(report: SiteRecoveryReport) -> SiteRecoveryReport:
    servers = tuple(one.model_copy(update={"last_heartbeat": None}) for one in report.appliances)
    return report.model_copy(update={"appliances": servers})
