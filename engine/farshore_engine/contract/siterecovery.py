"""What the driver of Azure Site Recovery says of a vault: `status.siteRecovery` of a RecoveryVault."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from farshore_engine.contract.model import Status
from farshore_engine.contract.operation import Operation
from farshore_engine.contract.replication import Check

SWITCH = "SwitchToModernized"
"""Name of the check that tells of a machine's move from one experience of Site Recovery to the other."""


class ApplianceFacts(Status):
    """A configuration server or replication appliance that is registered with the vault."""

    name: str
    """Its name."""
    scenario: str
    """InMageAzureV2 (configuration server) or InMageRcm (replication appliance)."""
    connected: bool
    """Whether Site Recovery hears of it."""
    last_heartbeat: datetime | None = None
    """When it was last heard of."""
    version: str = ""
    """Its version."""
    process_servers: Annotated[tuple[str, ...], Field(max_length=256)] = ()
    """Names of its process servers."""


class PlanMark(Status):
    """A recovery plan of Site Recovery that is the driver's own: only such a plan is changed or deleted."""

    name: str
    """Its name in the vault."""
    plan: str
    """The FailoverPlan that it is made from."""
    operation: Operation | None = None
    """Its deletion, while that goes on."""


class RecoveryPlanReport(Status):
    """`status.siteRecovery` of a FailoverPlan, owned by the operator's driver of Site Recovery."""

    vault: str
    """The RecoveryVault that has the recovery plan."""
    name: str
    """Name of the recovery plan in the vault."""
    in_place: bool = False
    """Whether the recovery plan is there, as the FailoverPlan says, with all its machines."""
    reason: str = ""
    """CamelCase word for what is in the way; empty when nothing is."""
    message: str = ""
    """What is going on, or what is in the way."""
    remedy: str = ""
    """What a person should do next; empty when nothing is to be done."""
    groups: int = 0
    """Groups that the recovery plan is to have."""
    machines: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    """Machines that the recovery plan is to have."""
    missing: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    """Machines that will be in it once Site Recovery protects them."""
    left_out: Annotated[tuple[str, ...], Field(max_length=1000)] = ()
    """What the FailoverPlan says and a recovery plan of Site Recovery cannot do."""
    seen: str = ""
    """Digest of what was last seen in place, by which a change from outside is told from one of the FailoverPlan."""
    changed: str = ""
    """What was last changed outside of Farshore, and put back."""
    changed_at: datetime | None = None
    """When that was noticed."""
    operation: Operation | None = None
    """What was begun for it and is not seen to be over."""


class SiteRecoveryReport(Status):
    """`status.siteRecovery` of a RecoveryVault, owned by the operator's driver of Site Recovery."""

    exists: bool | None = None
    """Whether the Recovery Services vault exists; absent until it was looked for."""
    reason: str = ""
    """CamelCase word for what is in the way; empty when nothing is."""
    message: str = ""
    """What is going on, or what is in the way and where."""
    remedy: str = ""
    """What a person should do next; empty when nothing is to be done."""
    waits: bool = False
    """Whether what is in the way heals by itself or by what is being done."""
    appliances: Annotated[tuple[ApplianceFacts, ...], Field(max_length=64)] = ()
    """The configuration servers and appliances of the vault."""
    checks: Annotated[tuple[Check, ...], Field(max_length=64)] = ()
    """Health errors of the vault's infrastructure, with the cause and the remedy that Microsoft gives."""
    operations: Annotated[tuple[Operation, ...], Field(max_length=64)] = ()
    """What was begun for the whole vault and is not seen to be over."""
    plans: Annotated[tuple[PlanMark, ...], Field(max_length=512)] = ()
    """The recovery plans of the vault that were made from FailoverPlans."""
    refreshed: str = ""
    """The last refresh request that was carried out (annotation farshore.dev/refresh)."""
