"""What the driver of Azure Site Recovery says of a vault: `status.siteRecovery` of a RecoveryVault."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field

from farshore_engine.contract.model import Status
from farshore_engine.contract.operation import Operation
from farshore_engine.contract.replication import Check


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
    refreshed: str = ""
    """The last refresh request that was carried out (annotation farshore.dev/refresh)."""
