"""What Site Recovery says, in types of our own. States are free text there: unknown ones are carried along."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.replication import Disk
from farshore_operator.engines.siterecovery.target import TargetWish


class Scenario(StrEnum):
    """The two experiences, by the names of their replication providers."""

    CLASSIC = "InMageAzureV2"
    MODERN = "InMageRcm"


class Allowed(StrEnum):
    """What an item may allow, as far as it is asked for here."""

    TEST_FAILOVER = "TestFailover"
    CLEANUP = "TestFailoverCleanup"
    FAILOVER = "UnplannedFailover"
    CHANGE_POINT = "ChangePit"
    COMMIT = "Commit"
    DISABLE = "DisableProtection"


@dataclass(frozen=True)
class Problem:
    """An error of Site Recovery in Microsoft's words. `severe` tells errors from warnings."""

    code: str
    message: str
    causes: str = ""
    remedy: str = ""
    severe: bool = True

    @property
    def told(self) -> str:
        """What happened and why, as one line."""
        why = f" Possible causes: {self.causes}" if self.causes else ""
        return f"{self.code}: {self.message}{why}"


@dataclass(frozen=True)
class ProcessServerFacts:
    """A process server of a configuration server or an appliance."""

    id: str
    name: str
    health: str = ""


@dataclass(frozen=True)
class Appliance:
    """A configuration server or replication appliance, which Site Recovery calls a fabric.

    Attributes:
        accounts: the ids of the accounts for push installation, by name.
        site_id: resource id of the discovery site, of an appliance.
        providers: the names of its recovery services providers, which a refresh addresses.
        identity: the id by which a move to it names an appliance.
    """

    name: str
    friendly: str
    scenario: Scenario
    container: str
    connected: bool
    heartbeat: datetime | None = None
    version: str = ""
    process_servers: tuple[ProcessServerFacts, ...] = ()
    accounts: Mapping[str, str] = field(default_factory=dict)
    site_id: str = ""
    providers: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    identity: str = ""


@dataclass(frozen=True)
class Item:
    """A replicated item. `job` is the id of the job that works on it now, empty if none does; `percent` of a copy;
    `blockers` are what Site Recovery says against a move to the modernized experience."""

    id: str
    name: str
    fabric: str
    container: str
    friendly: str
    scenario: str
    address: str
    state: str
    state_text: str
    location: str
    drill: str
    allowed: frozenset[str]
    health: str
    policy: str
    job: str = ""
    doing: str = ""
    problems: tuple[Problem, ...] = ()
    percent: int | None = None
    resync: bool = False
    agent_version: str = ""
    heartbeat: datetime | None = None
    disks: tuple[Disk, ...] = ()
    failover_point: str = ""
    last_drill: datetime | None = None
    last_failover: datetime | None = None
    target_name: str = ""
    target_address: str = ""
    protectable: str = ""
    switched_to: str = ""
    blockers: tuple[Problem, ...] = ()
    windows: bool = False
    target: TargetWish | None = None

    @property
    def recovered(self) -> bool:
        """Whether the machine runs in Azure."""
        return self.location == "Recovery"


@dataclass(frozen=True)
class Protectable:
    """A machine that was discovered: id of the protectable item, or of the machine at the discovery site."""

    id: str
    name: str
    item: str = ""
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True)
class Job:
    """A job. `over` once nothing more happens by itself; `failed` has the errors."""

    id: str
    scenario: str
    state: str
    text: str = ""
    problems: tuple[Problem, ...] = ()
    percent: int | None = None
    failed_tasks: tuple[str, ...] = ()
    started: datetime | None = None
    allowed: frozenset[str] = frozenset()

    @property
    def failed(self) -> bool:
        """Whether it ended without what it was for."""
        return self.state in ("Failed", "Cancelled")

    @property
    def over(self) -> bool:
        """Whether it ended; a test failover's job is suspended until its clean-up."""
        return self.failed or self.state in ("Succeeded", "CompletedWithInformation", "Suspended", "PartiallySucceeded")


@dataclass(frozen=True)
class PolicyFacts:
    """A replication policy; `ready` once it is mapped to the container."""

    id: str
    name: str
    mapped: frozenset[str] = frozenset()
    keep_minutes: int = 0
    app_minutes: int = 0


@dataclass(frozen=True)
class PlanStep:
    """What a recovery plan does before or after a group; `kind` is Microsoft's, `types` are kinds of failover."""

    name: str
    kind: str
    text: str = ""
    types: frozenset[str] = frozenset()
    directions: frozenset[str] = frozenset()


@dataclass(frozen=True)
class PlanGroup:
    """A group of a recovery plan: Shutdown, Failover or Boot; `items` are ids of replicated items."""

    kind: str
    items: tuple[str, ...] = ()
    before: tuple[PlanStep, ...] = ()
    after: tuple[PlanStep, ...] = ()


@dataclass(frozen=True)
class PlanFacts:
    """A recovery plan as the vault has it; `doing` is what is under way with it, empty if nothing is."""

    name: str
    fabric: str
    groups: tuple[PlanGroup, ...]
    doing: str = ""

    @property
    def items(self) -> frozenset[str]:
        """The ids of all its machines, in lower case."""
        return frozenset(one.lower() for group in self.groups for one in group.items)


@dataclass(frozen=True)
class Points:
    """The recovery points of an item as users see them, oldest first, and their ids by name."""

    all: tuple[RecoveryPoint, ...] = ()
    ids: Mapping[str, str] = field(default_factory=dict)
