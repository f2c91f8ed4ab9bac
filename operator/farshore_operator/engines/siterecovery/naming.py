"""Names that the driver gives: the same after every restart, so that what it made is found again."""

from __future__ import annotations

import hashlib
import re
import uuid
from datetime import timedelta

from farshore_engine.contract.assignment import Policy

PREFIX = "siterecovery-"
PLAN_PREFIX = "farshore-"
_SPACE = uuid.UUID("6c1b8f0e-5d0b-4f6e-9c5a-0f5e1c0a7d21")


def driver(vault: str) -> str:
    """Return the name under which machines and tasks of a RecoveryVault are assigned to the operator's driver."""
    return f"{PREFIX}{vault}"


def is_driver(name: str) -> bool:
    """Tell whether machines or tasks with this process server are the driver's."""
    return name.startswith(PREFIX)


def item(machine_id: str) -> str:
    """Return the name of a machine's replicated item, a GUID."""
    return str(uuid.uuid5(_SPACE, machine_id))


def policy(scenario: str, wished: Policy) -> str:
    """Return the name of the policy that has these settings: Site Recovery's cannot be edited while machines use it."""
    hours = minutes(wished.retention.keep_all)
    app = minutes(wished.app_consistent_interval) if wished.app_consistent_interval else 0
    kind = "v2a" if scenario == "InMageAzureV2" else "rcm"
    return f"farshore-{kind}-keep{hours}m-app{app}m"


def mapping(policy_name: str) -> str:
    """Return the name of the mapping of a container to a policy."""
    return re.sub(r"[^A-Za-z0-9-]", "-", f"{policy_name}-azure")


def plan(namespace: str, name: str) -> str:
    """Return the name of the recovery plan that is made from a FailoverPlan: letters, digits and hyphens."""
    word = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40].strip("-")
    return f"{PLAN_PREFIX}{word}-{hashlib.sha256(f'{namespace}/{name}'.encode()).hexdigest()[:8]}"


def minutes(span: timedelta) -> int:
    """Return whole minutes, at least one: the API counts in minutes, though portal and PowerShell show hours."""
    return max(1, int(span.total_seconds() // 60))


def last(resource_id: str) -> str:
    """Return the last part of a resource id."""
    return resource_id.rstrip("/").rpartition("/")[2]
