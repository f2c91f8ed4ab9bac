"""What a Recovery Services vault tells by reading: states, jobs, points, errors of what it protects already."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from statistics import median
from typing import Any

from azure.core.rest import HttpRequest

from farshore_cli.live.items import RARE, WRITES, Answer, Item, cannot_tell, compared, confirmed, contradicted
from farshore_engine.contract.points import Consistency
from farshore_operator.engines.siterecovery import reading, translate
from farshore_operator.engines.siterecovery.client import VaultClient
from farshore_operator.engines.siterecovery.facts import Appliance
from farshore_operator.engines.siterecovery.facts import Item as Protected
from farshore_operator.engines.siterecovery.faults import translated

VERSION = "2025-08-01"
DISK = re.compile(r"/dev/[a-z]+\d*|\{?[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}?", re.IGNORECASE)
ABOUT_FIVE = (240.0, 660.0)
"""Seconds between crash-consistent points; where one was not taken, it is twice as long."""
STATES: dict[str, tuple[str, frozenset[str]]] = {
    "UnprotectedStatesBegin": ("Primary", frozenset()),
    "EnablingFailed": ("Primary", frozenset({"DisableProtection"})),
    "InitialReplicationInProgress": ("Primary", frozenset({"DisableProtection"})),
    "Protected": ("Primary", frozenset({"UnplannedFailover", "DisableProtection", "TestFailover"})),
    "UnplannedFailoverInitiated": ("Primary", frozenset()),
    "UnplannedFailoverFailed": ("Primary", frozenset({"UnplannedFailover", "DisableProtection", "TestFailover"})),
    "UnplannedFailoverCancelled": ("Primary", frozenset({"DisableProtection"})),
    "UnplannedFailoverCommitPendingStatesBegin": (
        "Recovery", frozenset({"CompleteMigration", "Commit", "DisableProtection", "ChangePit"}),
    ),
    "UnplannedFailoverCommitted": ("Recovery", frozenset({"ReverseReplicate", "DisableProtection"})),
}  # fmt: skip
"""The docs' table: where an item in a state is active, and what it may allow. While something is under way it allows
nothing."""
MORE = {"Protected": frozenset({"RepairReplication", "TestFailoverCleanup"})}
"""What rows of the table allow that have the same state and another drill or resynchronisation."""
INFERRED = ("EnableDr", "DisableDr", "IrCompletion", "ApplyRecoveryPoint", "SwitchProvider", "DiscoverPhysicalMachine")
"""Names of scenarios that no example has."""
LOST, EXPIRES = "25012", "25015"


@dataclass
class Service:
    """A vault that exists, as it is read once for all points."""

    client: VaultClient

    @cached_property
    def items(self) -> tuple[Protected, ...]:
        """The replicated items, each with all its parts."""
        found = (reading.item(self.client, one) for one in reading.items(self.client))
        return tuple(one for one in found if one is not None)

    @cached_property
    def servers(self) -> tuple[Appliance, ...]:
        """The registered configuration servers and appliances."""
        return reading.appliances(self.client)

    @cached_property
    def jobs(self) -> tuple[Any, ...]:
        """The jobs of the last days, as the SDK has them, newest first as the service lists them."""
        with translated(f"listing the jobs of vault {self.client.settings.vault}"):
            return tuple(self.client.site.replication_jobs.list(*self.client.at))

    def details(self) -> Iterator[Any]:
        """Yield the provider's own part of each item."""
        with translated("listing the replicated items"):
            for one in self.client.site.replication_protected_items.list(*self.client.at):
                yield one.properties.provider_specific_details


def states(service: Service) -> Answer:
    """Compare items with the table of states."""
    good, bad = Counter[str](), Counter[str]()
    for one in service.items:
        known = STATES.get(one.state)
        allowed = known[1] | MORE.get(one.state, frozenset()) if known is not None else frozenset()
        fits = known is not None and one.location == known[0] and one.allowed <= allowed
        told = (
            one.state if fits else f"{one.state} at {one.location} allows {', '.join(sorted(one.allowed)) or 'nothing'}"
        )
        (good if fits else bad)[told] += 1
    return compared("states of replicated items", good, bad)


def operations(service: Service) -> Answer:
    """Look an operation up by the id of its job."""
    settings = service.client.settings
    vault = (
        f"/subscriptions/{settings.subscription}/resourceGroups/{settings.resource_group}/providers/"
        f"Microsoft.RecoveryServices/vaults/{settings.vault}"
    )
    for job in service.jobs[:5]:
        path = f"{vault}/replicationOperationStatus/{job.name}?api-version={VERSION}"
        with translated(f"looking for the operation of job {job.name}"):
            answer = service.client.site.send_request(HttpRequest("GET", path))
        if answer.status_code == 200:
            return confirmed(
                f"the operation of job {job.name} ({job.properties.scenario_name}) is found by the job's id"
            )
    return cannot_tell(f"no operation of the newest {len(service.jobs[:5])} jobs is kept, or it is kept elsewhere")


def jobs(service: Service) -> Answer:
    """Look for jobs of scenarios whose names are inferred, and name those that are there besides."""
    names = Counter(str(one.properties.scenario_name or "no name") for one in service.jobs)
    seen = {name: count for name, count in names.items() if name in INFERRED}
    others = ", ".join(sorted(set(names) - set(INFERRED)))
    if not seen:
        return cannot_tell(f"no job has a name that is inferred; there are {others or 'none'}")
    found = compared("scenarios of jobs", seen, {})
    return confirmed(f"{found.seen}{f'; besides {others}' if others else ''}")


def registration(service: Service) -> Answer:
    """Look which errors servers have that are not heard."""
    good, bad = Counter[str](), Counter[str]()
    for one in service.servers:
        codes = {problem.code for problem in one.problems}
        if not one.connected:
            fits = LOST in codes
            (good if fits else bad)[f"not connected: {', '.join(sorted(codes)) or 'no error'}"] += 1
        elif EXPIRES in codes:
            good[f"a certificate that expires: {EXPIRES}"] += 1
    return compared("servers in trouble", good, bad)


def discovery(service: Service) -> Answer:
    """Look what ids of disks are like."""
    good, bad = Counter[str](), Counter[str]()
    for disk in (disk for one in service.items for disk in one.disks):
        if DISK.fullmatch(disk.id):
            good["/dev/..." if disk.id.startswith("/") else "a GUID"] += 1
        else:
            bad[disk.id] += 1
    return compared("ids of disks", good, bad)


def replication(service: Service) -> Answer:
    """Measure the time between crash-consistent points."""
    for one in service.items[:10]:
        points = reading.points(service.client, one, epoch=0, writer="").all
        times = [point.time for point in points if point.consistency is Consistency.CRASH]
        gaps = [later - earlier for earlier, later in pairwise(times)]
        if len(gaps) < 3:
            continue
        middle = median(gap.total_seconds() for gap in gaps)
        seen = f"{len(times)} crash-consistent points of {one.friendly}, {middle / 60:.1f} min apart"
        return confirmed(seen) if ABOUT_FIVE[0] <= middle <= ABOUT_FIVE[1] else contradicted(seen)
    return cannot_tell("no item has four crash-consistent points")


def modernized(service: Service) -> Answer:
    """Look at items that were switched."""
    good, bad = Counter[str](), Counter[str]()
    for details in service.details():
        state = getattr(details, "switch_provider_state", None) if details is not None else None
        if state and str(state) not in ("None", "NotStarted"):
            fits = str(state) in ("Completed", "InProgress")
            (good if fits else bad)[f"switchProviderState {state}"] += 1
    return compared("items that were switched", good, bad)


def plans(service: Service) -> Answer:
    """Look what recovery plans allow."""
    good, bad = Counter[str](), Counter[str]()
    with translated("listing the recovery plans"):
        found = list(service.client.site.replication_recovery_plans.list(*service.client.at))
    for one in found:
        allowed = set(one.properties.allowed_operations or ())
        of = {str(provider) for provider in one.properties.replication_providers or ()}
        if of and not of & set(translate.FABRICS.values()):
            continue
        fits = "PlannedFailover" not in allowed
        (good if fits else bad)[", ".join(sorted(allowed)) or "nothing"] += 1
    return compared("what plans allow", good, bad)


ITEMS: tuple[Item[Service], ...] = (
    Item("States", states),
    Item("Refusals", why=WRITES),
    Item("Operations", operations),
    Item("When something fails", why=WRITES),
    Item("Jobs", jobs),
    Item("Registration", registration),
    Item("Discovery", discovery),
    Item("Replication", replication),
    Item("Seed disks", why="it is about what the simulator shows; the disks themselves are documented"),
    Item("Failover", why=WRITES),
    Item("Modernized", modernized),
    Item("Plans", plans),
    Item("Vaults", why=WRITES),
    Item("Cache storage", why=RARE),
)
