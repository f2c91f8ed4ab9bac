"""Where the replicated item of a machine is: in its vault, or still in the one that it moves from."""

from __future__ import annotations

from dataclasses import dataclass

from farshore_engine.contract.replication import ReplicationReport
from farshore_engine.contract.siterecovery import SiteRecoveryReport
from farshore_engine.contract.tasks import TaskReport
from farshore_operator.engines.siterecovery import naming, reading
from farshore_operator.engines.siterecovery.client import VaultClient
from farshore_operator.engines.siterecovery.facts import Appliance, Item, Job, Points, PolicyFacts
from farshore_operator.engines.siterecovery.finding import find
from farshore_operator.engines.siterecovery.origins import Origins
from farshore_operator.engines.siterecovery.wishes import MachineWish, VaultWish

ReportOf = ReplicationReport | TaskReport | None


@dataclass(frozen=True)
class Scene:
    """A vault as it was read in this look: what machines and tasks are decided from."""

    client: VaultClient
    wish: VaultWish
    appliance: Appliance | None
    policies: dict[str, PolicyFacts]
    items: tuple[Item, ...]
    report: SiteRecoveryReport
    origins: Origins


@dataclass(frozen=True)
class Place:
    """Where the item of a machine was found, if it was: `away` in the vault that the machine moves from."""

    client: VaultClient
    item: Item | None = None
    away: bool = False


def place_of(scene: Scene, wish: MachineWish, report: ReportOf) -> tuple[Place, Job | None]:
    """Find the item of a machine, and the job that was recorded. The job is read first: the item shows what it made.

    Raises:
        Fault: one of the vaults cannot be read.
    """
    job = job_of(scene.client, report)
    unseen = job is None and report is not None and report.operation is not None and report.operation.job
    if unseen and wish.origin is not None and wish.origin.settings is not None:
        job = job_of(scene.origins.client(wish.origin), report)
    item = item_of(scene, wish.machine_id, wish.address, job)
    if item is not None or wish.origin is None:
        return Place(scene.client, item), job
    listed = scene.origins.listed(wish)
    if listed is None:
        return Place(scene.client), job
    moved = next((one for one in scene.items if one.id.lower() == listed.switched_to.lower()), None)
    if moved is not None:
        return Place(scene.client, reading.item(scene.client, moved)), job
    client = scene.origins.client(wish.origin)
    return Place(client, reading.item(client, listed), away=True), job


def item_of(scene: Scene, machine_id: str, address: str, job: Job | None) -> Item | None:
    """Return the item of a machine in its vault with all its parts."""
    listed = find(scene.items, machine_id, address)
    if listed is None and job is not None and job.over:  # it may have ended after the items were listed
        listed = find(reading.items(scene.client), machine_id, address)
    return reading.item(scene.client, listed) if listed is not None else None


def job_of(client: VaultClient, report: ReportOf) -> Job | None:
    """Return the job that was recorded, None if there is none or the vault does not know it."""
    recorded = report.operation if report is not None else None
    return reading.job(client, recorded.job) if recorded is not None and recorded.job else None


def points_of(place: Place, epoch: int, vault: str) -> Points:
    """Return the recovery points of an item; `vault` is the RecoveryVault that reports them."""
    if place.item is None:
        return Points()
    return reading.points(place.client, place.item, epoch=epoch, writer=naming.driver(vault))
