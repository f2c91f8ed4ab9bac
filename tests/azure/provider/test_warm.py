"""A warm replica: it follows the newest point, sends what differs, and a failover to Azure begins with it."""

from __future__ import annotations

import pytest
from tests.azure.provider.scene import MIB, ours
from tests.azure.provider.warmscene import WarmScene, change, same
from tests.azuresim import AzureSim

from farshore_engine.azure import keeping
from farshore_engine.azure.cloud import cloud_of
from farshore_engine.azure.replicas import ReplicaContainer
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.assignment import AzureBlobAccess, ReplicaAccess
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.site import CloudTarget
from farshore_engine.contract.tasks import TaskKind

STEPS = (TaskKind.HYDRATE, TaskKind.UPLOAD_DISKS, TaskKind.START_MACHINE)


def test_the_replica_follows_the_newest_point_and_is_sent_only_what_differs(warm: WarmScene) -> None:
    warm.take_point()
    first = warm.keep()
    same(warm)
    assert first.point is not None and first.written > 3 * MIB
    warm.store.requests.clear()
    assert warm.keep().written == 0 and warm.store.written() == 0, "nothing has changed"
    change(warm, "disk-os", 3, 17)
    change(warm, "disk-data", 9, 18)
    second = warm.take_point()
    kept = warm.keep()
    assert kept.point is not None and (kept.point.manifest.name, kept.written) == (second, 2 * BLOCK_SIZE)
    assert warm.store.written("/replica/") == 2 * (BLOCK_SIZE + 512), "two blocks, and two footers"
    same(warm)
    pinned = [slot for slot, pins in warm.pins().items() if keeping.PIN in pins]
    assert pinned == [kept.point.slot], "the point that is held, and no other, stays in the vault"


@pytest.mark.parametrize(
    ("drill", "older"),
    [pytest.param(False, False, id="failover to a newer point"), pytest.param(True, True, id="drill of an older one")],
)
def test_a_run_moves_what_differs_and_the_replica_is_left_alone(
    warm: WarmScene, sim: AzureSim, *, drill: bool, older: bool
) -> None:
    if drill:
        warm.target = CloudTarget(isolated=True, network="drill-1")
    now, first = dict(warm.disks), warm.take_point()
    if not older:
        warm.keep()
    change(warm, "disk-os", 150, 99)
    warm.point = warm.take_point()
    if older:
        warm.keep()
        warm.point, warm.disks = first, now
    before = {name: warm.replica_bytes(name) for name in warm.disks}
    warm.store.requests.clear()
    hydrated = warm.do(TaskKind.HYDRATE)
    assert hydrated.bytes_written == BLOCK_SIZE and "warm replica" in hydrated.evidence
    uploaded = warm.do(TaskKind.UPLOAD_DISKS)
    warm.do(TaskKind.START_MACHINE)
    warm.check_disks(uploaded.disk_paths)
    assert warm.store.written() < 2 * BLOCK_SIZE, "one block and the footers"
    assert not [one for one in sim.calls if one.plane == "data"], "nothing was uploaded to the managed disks"
    assert {name: warm.replica_bytes(name) for name in warm.disks} == before
    assert not [one for one in warm.names() if "/runs/" in one or "@" in one], "the copies are gone"
    warm.do(TaskKind.CLEAN_UP)
    assert ours(sim) == []


def test_without_a_replica_or_a_right_to_it_the_disks_are_uploaded_and_it_is_said_why(
    warm: WarmScene, sim: AzureSim
) -> None:
    hydrated = warm.do(TaskKind.HYDRATE)
    assert "not used" in hydrated.evidence and "no warm replica" in hydrated.evidence
    warm.check_disks(warm.do(TaskKind.UPLOAD_DISKS).disk_paths)
    warm.do(TaskKind.CLEAN_UP)
    warm.store.refuse = lambda request: (403, "AuthorizationPermissionMismatch")
    refused = warm.do(TaskKind.HYDRATE)
    assert "Storage Blob Data Contributor" in refused.evidence
    with pytest.raises(StopFault, match="access refused"):
        warm.keep()
    warm.do(TaskKind.CLEAN_UP)
    assert ours(sim) == []


def test_a_change_of_the_point_begins_with_the_replica_too(warm: WarmScene, sim: AzureSim) -> None:
    now, first = dict(warm.disks), warm.take_point()
    change(warm, "disk-os", 150, 1)
    warm.point = warm.take_point()
    warm.keep()
    for kind in STEPS:
        result = warm.do(kind)
    warm.check_disks(result.disk_paths)
    warm.disks = now
    warm.run, warm.point = "change-1", first
    warm.store.requests.clear()
    for kind in STEPS:
        result = warm.do(kind, replaces="failover-1")
    warm.check_disks(result.disk_paths)
    assert warm.store.written() < 2 * BLOCK_SIZE
    assert len([one for one in ours(sim) if one.startswith("virtualMachines")]) == 1
    warm.do(TaskKind.CLEAN_UP)
    assert ours(sim) == []


def test_without_a_credential_the_sites_own_login_is_used(warm: WarmScene, sim: AzureSim) -> None:
    storage = AzureBlobAccess(account_url=f"{sim.endpoint}/replicas", container="warm")
    container = ReplicaContainer.open(ReplicaAccess(storage=storage), cloud_of(warm.site))
    sim.calls.clear()
    with pytest.raises(StopFault, match=r"https://storage\.azure\.com") as told:
        container.named("shop.web/")
    assert told.value.reason == "LoginRefused" and [one for one in sim.calls if one.plane == "token"]
