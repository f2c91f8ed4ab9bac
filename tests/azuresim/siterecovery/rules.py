"""What a protected machine allows in each state, and how well it is.

Source: the table of states in docs/azure-unverified.md, with the example that each row is from.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from tests.azuresim.siterecovery.catalog import KNOWN, health_error
from tests.azuresim.siterecovery.state import CLASSIC, HYPERV, MODERN, Drill, Item, Phase

PROTECTED = ["UnplannedFailover", "DisableProtection", "TestFailover"]
"""Row ★: ReplicationProtectedItems_UpdateMobilityService."""
PENDING = ["CompleteMigration", "Commit", "DisableProtection", "ChangePit"]
"""ReplicationProtectedItems_UnplannedFailover."""

STILL = timedelta(minutes=15)
"""Without data for so long, the service reports that there is no heartbeat [inf]."""


def allowed(item: Item) -> list[str]:
    """`allowedOperations` of the item."""
    if item.busy:
        return []  # an operation is under way [inf]
    if item.drill is Drill.WAITING:
        return ["TestFailoverCleanup"]
    if item.switched and item.phase is Phase.PROTECTED:
        # [doc: "Move from classic to modernized"]: failover continues to be available until the points expire
        return ["UnplannedFailover", "DisableProtection"]
    known = {
        Phase.ENABLE_FAILED: ["DisableProtection"],  # [inf]
        Phase.SYNCING: ["DisableProtection"],  # [inf]
        Phase.FAILOVER_CANCELLED: ["DisableProtection"],  # tutorial: it won't replicate again
        Phase.COMMIT_PENDING: PENDING,
        Phase.PLANNED_COMMIT_PENDING: PENDING,
        Phase.COMMITTED: ["ReverseReplicate", "DisableProtection"],  # [inf]
        # ReplicationProtectedItems_FailoverCommit
        Phase.PLANNED_COMMITTED: ["CompleteMigration", "DisableProtection", "Failback"],
    }
    if item.phase is Phase.FAILOVER_FAILED:
        return list(PROTECTED)  # [MIGRATE]
    if item.phase is Phase.PROTECTED:
        # Hyper-V: ReplicationProtectedItems_Get. RepairReplication: ReplicationProtectedItems_ResolveHealthErrors
        first = ["PlannedFailover"] if item.provider == HYPERV else ["RepairReplication"] if item.resync else []
        return [*first, *PROTECTED]
    return known.get(item.phase, [])


def switch_blockers(item: Item) -> list[str]:
    """What of the machine and its server stands in the way of a switch to the modernized experience.

    Source: doc "Move from classic to modernized", "Prepare classic Recovery Services vault". It is not listed in
    allowedOperations [spec example _UpdateMobilityService].
    """
    found = {
        "The Mobility service is older than 9.50.": item.machine is not None and _old(item.machine.agent_version),
        "The configuration server is older than 9.50.": _old(item.fabric.version),
        "The configuration server has no heartbeat.": item.fabric.heartbeat is not None,
        "The machine replicates to storage accounts, not to managed disks.": not item.target.managed,
        "Initial replication is not finished, or the machine is failed over.": item.phase is not Phase.PROTECTED,
        "The machine is resynchronised.": item.resync,
        "The machine was switched before.": bool(item.switched),
    }
    return [why for why, stands in found.items() if stands]


def _old(version: str) -> bool:
    major, minor = (int(one) for one in version.split(".")[:2])
    return (major, minor) < (9, 50)


def health_errors(item: Item, now: datetime) -> list[dict[str, Any]]:
    """`healthErrors` of the item: its machine's, its process server's, and what follows from silence."""
    machine, codes = item.machine, []
    if machine is not None and replicates(item):
        codes += machine.errors
        quiet = item.last_data is not None and now - item.last_data > STILL
        if quiet and not machine.talks and "78174" not in codes:
            codes.append("78174")
        if not machine.app_consistent and item.policy.app_minutes:
            codes.append("78144")
    server = next((one for one in item.fabric.servers if one.id == item.process_server), None)
    if server is not None and replicates(item):
        codes += [one for one in server.errors if one in KNOWN]
    if item.provider == MODERN and item.last_drill is None and item.phase is not Phase.ENABLING:
        codes.append("161011")  # [MIGRATE]: a warning of the failover health
    return [health_error(one, now, entity=item.name) for one in dict.fromkeys(codes)]


def failover_health(item: Item, now: datetime) -> str:
    """Warning while no test failover has succeeded [MIGRATE]; of the classic provider nothing is known: Normal
    [inf]."""
    return "Warning" if any(one["errorCategory"] == "TestFailover" for one in health_errors(item, now)) else "Normal"


def replication_health(item: Item, now: datetime) -> str:
    """Normal, Warning or Critical: a missed RPO threshold is a warning (tutorial: it only issues an alert)."""
    found = [one for one in health_errors(item, now) if one["errorCategory"] != "TestFailover"]
    if item.phase is Phase.FAILOVER_CANCELLED or any(one["errorLevel"] == "Error" for one in found):
        return "Critical"
    threshold = item.policy.threshold_minutes
    late = threshold and item.phase is Phase.PROTECTED and rpo(item, now) > threshold * 60
    return "Warning" if found or late else "Normal"


def replicates(item: Item) -> bool:
    """Whether data of the source machine still goes to Azure."""
    return item.phase in (Phase.SYNCING, Phase.PROTECTED, Phase.FAILOVER_FAILED) and not item.switched


def rpo(item: Item, now: datetime) -> int:
    """Seconds between now and the last data that arrived."""
    return int((now - item.last_data).total_seconds()) if item.last_data else 0


def active_location(item: Item) -> str:
    """Primary, and Recovery from the end of a failover on [spec examples]."""
    there = (
        Phase.COMMIT_PENDING,
        Phase.COMMITTED,
        Phase.PLANNED_COMMIT_PENDING,
        Phase.PLANNED_COMMITTED,
    )
    return "Recovery" if item.phase in there else "Primary"


def matches(item: Item, instance: str) -> bool:
    """Whether a provider input of this instance type is for the item."""
    return instance == item.provider or (instance.endswith("Input") and item.provider == HYPERV)


__all__ = [
    "CLASSIC", "HYPERV", "MODERN", "active_location", "allowed", "failover_health", "health_error", "health_errors",
    "matches",
    "replicates",
    "replication_health", "rpo", "switch_blockers",
]  # fmt: skip
