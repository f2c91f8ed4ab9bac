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
    if item.phase is Phase.PROTECTED:
        # Hyper-V: ReplicationProtectedItems_Get. RepairReplication: ReplicationProtectedItems_ResolveHealthErrors
        first = ["PlannedFailover"] if item.provider == HYPERV else ["RepairReplication"] if item.resync else []
        return [*first, *PROTECTED]
    return known.get(item.phase, [])


def switch_blockers(item: Item) -> list[str]:
    """What stands in the way of a switch to the modernized experience (it is not listed in allowedOperations [spec
    example _UpdateMobilityService]).

    Source: doc "Move from classic to modernized": agents and configuration server 9.50 or later, managed disks, initial
    replication done, health not critical.
    """
    found = []
    if item.machine is not None and _old(item.machine.agent_version):
        found.append("The Mobility service is older than 9.50.")
    if _old(item.fabric.version):
        found.append("The configuration server is older than 9.50.")
    if not item.target.managed:
        found.append("The machine replicates to storage accounts, not to managed disks.")
    if item.phase is not Phase.PROTECTED:
        found.append("Initial replication is not finished.")
    return found


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
    return [health_error(one, now, entity=item.name) for one in dict.fromkeys(codes)]


def replication_health(item: Item, now: datetime) -> str:
    """Normal, Warning or Critical: a missed RPO threshold is a warning (tutorial: it only issues an alert)."""
    found = health_errors(item, now)
    if item.phase is Phase.FAILOVER_CANCELLED or any(one["errorLevel"] == "Error" for one in found):
        return "Critical"
    threshold = item.policy.threshold_minutes
    late = threshold and item.phase is Phase.PROTECTED and rpo(item, now) > threshold * 60
    return "Warning" if found or late else "Normal"


def replicates(item: Item) -> bool:
    """Whether data of the source machine still goes to Azure."""
    return item.phase in (Phase.SYNCING, Phase.PROTECTED)


def rpo(item: Item, now: datetime) -> int:
    """Seconds between now and the last data that arrived."""
    return int((now - item.last_data).total_seconds()) if item.last_data else 0


def active_location(item: Item) -> str:
    """Primary, and Recovery from the end of a failover on [spec examples]."""
    there = (
        Phase.COMMIT_PENDING,
        Phase.COMMITTING,
        Phase.COMMITTED,
        Phase.PLANNED_COMMIT_PENDING,
        Phase.PLANNED_COMMITTED,
    )
    return "Recovery" if item.phase in there else "Primary"


def matches(item: Item, instance: str) -> bool:
    """Whether a provider input of this instance type is for the item."""
    return instance == item.provider or (instance.endswith("Input") and item.provider == HYPERV)


__all__ = [
    "CLASSIC", "HYPERV", "MODERN", "active_location", "allowed", "health_error", "health_errors", "matches",
    "replicates",
    "replication_health", "rpo", "switch_blockers",
]  # fmt: skip
