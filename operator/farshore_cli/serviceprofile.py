"""What `farshore profile` knows and shows of a machine that Azure Site Recovery protects."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from farshore_engine.contract.assignment import Retention
from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from rich.console import Group

    from farshore_cli.servicesizing import ServiceSizing
    from farshore_cli.sizing import Assumptions
    from farshore_engine.contract.replication import ReplicationReport

GIB = 1 << 30


@dataclass(frozen=True)
class ServiceMachine:
    """A ProtectedVM in a vault of engine siteRecovery: where it is, and what Site Recovery says of its points.

    Attributes:
        age: of the newest recovery point, None where there is none.
    """

    address: str
    port: int
    points: int
    age: timedelta | None
    retention: Retention | None


def find(vm: str, namespace: str) -> ServiceMachine | None:
    """Return a machine of engine siteRecovery; None for one of another engine, or one that there is not."""
    from farshore_cli.status import utc_now
    from farshore_operator.api import ProtectedVM, RecoveryVault, ReplicationPolicy
    from farshore_operator.engines.capabilities import FACTS, Capability
    from farshore_operator.kube.client import Client
    from farshore_operator.kube.connection import current_namespace, from_environment
    from farshore_operator.kube.resources import BY_KIND

    client, where = Client(from_environment(), "farshore-cli"), namespace or current_namespace()
    body = client.get(BY_KIND["ProtectedVM"], where, vm)
    if body is None:
        return None
    machine = ProtectedVM.of(body)
    vault = client.get(BY_KIND["RecoveryVault"], where, machine.spec.vault_ref.name)
    if vault is None or Capability.OWN_SERVERS in FACTS[RecoveryVault.of(vault).spec.engine].capabilities:
        return None
    policy = client.get(BY_KIND["ReplicationPolicy"], where, machine.spec.policy_ref.name)
    kept = ReplicationPolicy.of(policy).spec.retention.keep_all if policy is not None else None
    source = machine.spec.source
    retention = Retention(keep_all=kept) if kept is not None else None
    return of(source.address, source.port, machine.status.replication, retention, utc_now())


def of(
    address: str, port: int, report: ReplicationReport | None, retention: Retention | None, now: datetime
) -> ServiceMachine:
    """Return a machine by what its status says."""
    last = report.last_point if report is not None else None
    age = now - last.time if last is not None else None
    return ServiceMachine(address, port, report.point_count if report is not None else 0, age, retention)


def not_told(vm: str, known: ServiceMachine) -> StopFault:
    """Return why nothing can be sized yet."""
    return StopFault(
        f"Site Recovery does not tell how fast {vm} changes ({_points(known)})",
        f"Measure it over SSH at {known.address}: give --user and --key, or --ask-password, and a --period",
        reason="NotMeasured",
    )


def service_page(found: ServiceSizing, given: Assumptions, known: ServiceMachine | None) -> Group:
    """Return the answer for people: what Site Recovery takes."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table("WITH SITE RECOVERY", "SIZE", "FROM", box=None)
    if known is not None:
        table.add_row("now", _points(known), "its status")
    table.add_row("cache storage account", f"{found.day / GIB:.1f} GiB a day", "all changes at their average")
    if found.processors is not None:
        server = f"{found.processors} processors, {found.memory_gb} GB, cache {found.cache_gb} GB"
        table.add_row("process server, appliance", server, f"alone; {found.share:.1%} of a largest one among others")
    if found.disk is not None:
        table.add_row("target disk, at least", found.disk, "all changes on one disk at the busiest time")
    table.add_row("managed disks", f"{found.target / GIB:.1f} GiB", "the disks, whole")
    table.add_row("recovery points", f"{found.points / GIB:.1f} GiB", f"every point of {given.retention.keep_all}")
    table.add_row("licences", f"{found.licences} protected machine", "by the month")
    if found.cost_month is not None:
        cost = f"{found.cost_month:.2f} {given.prices.currency}".strip()
        table.add_row("cost of 30 days", cost, "licence and disks, as far as priced; without what is sent")
    return Group(table, *(Text(note, style="yellow") for note in found.notes))


def _points(known: ServiceMachine) -> str:
    if known.age is None:
        return "it has no recovery point yet"
    return f"{known.points} recovery points, the newest {round(known.age.total_seconds() / 60)} min old"
