"""The keeper of warm replicas in a process server: what it tells, what it mends, when it stays away."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
from prometheus_client import generate_latest
from tests.azure.provider.warmscene import WarmScene, change, same

from farshore_engine.azure.keeping import PIN
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.assignment import RecoveryTarget
from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.replication import WarmReplica
from farshore_engine.contract.tasks import TaskKind
from farshore_engine.processserver import warmreplicas
from farshore_engine.processserver.metrics import Metrics
from farshore_engine.processserver.warmreplicas import WarmReplicas

PATIENCE = 300.0


@pytest.fixture(autouse=True)
def fast(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PACE", "AGAIN", "LOOK_EVERY", "GIVE_WAY"):
        monkeypatch.setattr(warmreplicas, name, 0.05)


class Keeper:
    """The keeper of a process server; `busy` plays tasks at work."""

    def __init__(self) -> None:
        self.busy = threading.Event()
        self.metrics = Metrics()
        self.replicas = WarmReplicas(lambda: "ps-1", self.busy.is_set, self.metrics)

    def until(self, wanted: Callable[[WarmReplica], bool]) -> WarmReplica:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            found = self.replicas.report()
            if found and wanted(found[0]):
                return found[0]
            time.sleep(0.05)
        raise AssertionError(self.replicas.report())


@pytest.fixture
def keeper() -> Iterator[Keeper]:
    made = Keeper()
    yield made
    made.replicas.stop()
    if made.replicas._thread is not None:  # what it would meet when the cloud is gone is no part of any test
        made.replicas._thread.join(PATIENCE)


def target(warm: WarmScene, interval: timedelta = timedelta(0)) -> RecoveryTarget:
    access = warm.access.model_copy(update={"interval": interval})
    return RecoveryTarget(
        machine_id="shop.web", vault=warm.vault, name="web", site=warm.site, target=warm.target, replica=access
    )


def test_the_replica_follows_is_shown_and_goes_when_it_is_not_wanted_any_more(warm: WarmScene, keeper: Keeper) -> None:
    first = warm.take_point()
    keeper.replicas.take([target(warm)])
    keeper.until(lambda one: (one.point, one.bytes_behind, one.message) == (first, 0, ""))
    change(warm, "disk-data", 8, 3)
    second = warm.take_point()
    shown = keeper.until(lambda one: (one.point, one.bytes_behind, one.message) == (second, 0, ""))
    assert shown.point_time is not None and shown.updated_at is not None and not shown.remedy
    same(warm)
    assert b'farshore_warm_replica_point_seconds{machine="shop.web"}' in generate_latest(keeper.metrics.registry)
    warm.wanted = False
    keeper.replicas.take([target(warm)])
    deadline = time.monotonic() + PATIENCE
    while b"replica_point_seconds{" in generate_latest(keeper.metrics.registry):
        assert time.monotonic() < deadline, warm.names()
        time.sleep(0.05)
    assert not warm.names() and not any(PIN in pins for pins in warm.pins().values())
    assert keeper.replicas.report() == ()


def test_between_two_updates_it_tells_how_far_behind_it_is_and_sends_nothing(warm: WarmScene, keeper: Keeper) -> None:
    first = warm.take_point()
    warm.keep()
    change(warm, "disk-data", 8, 3)
    change(warm, "disk-os", 0, 4)
    warm.take_point()
    keeper.replicas.take([target(warm, timedelta(hours=1))])
    shown = keeper.until(lambda one: one.bytes_behind is not None)
    assert (shown.point, shown.bytes_behind) == (first, 2 * BLOCK_SIZE)
    warm.store.requests.clear()
    time.sleep(0.3)
    assert warm.store.written() == 0


def test_it_gives_way_to_tasks_and_says_what_is_in_the_way(warm: WarmScene, keeper: Keeper) -> None:
    warm.take_point()
    warm.store.requests.clear()
    keeper.busy.set()
    keeper.replicas.take([target(warm)])
    time.sleep(0.4)
    assert not warm.store.requests and keeper.replicas.report() == ()
    warm.store.refuse = lambda _: (403, "AuthorizationFailure")
    keeper.busy.clear()
    shown = keeper.until(lambda one: bool(one.remedy))
    assert "access refused" in shown.message and "firewall" in shown.remedy
    warm.store.refuse = lambda _: None
    keeper.until(lambda one: bool(one.point) and not one.remedy)


def test_two_process_servers_never_write_to_one_replica(warm: WarmScene) -> None:
    warm.take_point()
    said: list[str] = []

    def second(request: object) -> None:
        if getattr(request, "writes", False) and not said:
            said.append("")
            with pytest.raises(WaitFault, match="somebody else writes") as told:
                warm.keep("ps-2")
            said[0] = told.value.reason

    warm.store.refuse = second
    warm.keep("ps-1")
    assert said == ["BlobInUse"]
    same(warm)


@pytest.mark.parametrize("damage", ["vanished", "cut", "cleared", "forgotten", "base gone"])
def test_a_replica_that_vanished_or_was_spoiled_comes_again(warm: WarmScene, damage: str) -> None:
    warm.disks = {"disk-data": warm.disks["disk-data"]}
    warm.take_point()
    warm.keep()
    (name,) = warm.names()
    blob = warm.blobs.get_blob_client(name)
    if damage == "vanished":
        blob.delete_blob()
    elif damage == "cut":
        blob.resize_blob(4 << 20)
    elif damage == "cleared":
        blob.clear_page(offset=0, length=blob.get_blob_properties().size)
    elif damage == "forgotten":
        blob.set_blob_metadata({})
    else:
        state = blob.get_blob_properties().metadata["farshore"].replace('"p-', '"q-')
        blob.set_blob_metadata({"farshore": state})
        change(warm, "disk-data", 2, 1)
        warm.take_point()
    warm.keep()
    same(warm)


def test_a_disk_that_the_machine_has_no_more_is_not_kept(warm: WarmScene) -> None:
    warm.take_point()
    warm.keep()
    assert len(warm.names()) == 2
    del warm.disks["disk-data"]
    warm.take_point()
    warm.keep()
    same(warm)
    assert len(warm.names()) == 1


def test_a_disk_that_does_not_change_follows_by_name_so_that_retention_may_take_older_points(warm: WarmScene) -> None:
    """It went on naming a point that was not pinned any more, and would have been sent anew with its next change."""
    warm.take_point()
    warm.keep()
    change(warm, "disk-os", 3, 1)
    newest = warm.take_point()
    assert warm.keep().written == BLOCK_SIZE
    assert set(warm.points_held().values()) == {newest}
    same(warm)


def test_a_spoiled_replica_is_found_out_before_a_machine_is_made_of_it(warm: WarmScene) -> None:
    warm.disks = {"disk-os": warm.disks["disk-os"]}
    warm.point = warm.take_point()
    warm.keep()
    (name,) = warm.names()
    blob = warm.blobs.get_blob_client(name)
    size = blob.get_blob_properties().size - 512
    for at in range(0, size, 4 << 20):
        blob.upload_page(b"x" * min(4 << 20, size - at), offset=at, length=min(4 << 20, size - at))
    hydrated = warm.do(TaskKind.HYDRATE)
    assert "does not hold what it says" in hydrated.evidence
    warm.check_disks(warm.do(TaskKind.UPLOAD_DISKS).disk_paths)


def test_a_first_copy_that_takes_longer_than_points_take_to_come_gets_there(warm: WarmScene) -> None:
    warm.take_point()
    warm.store.refuse = lambda request: (403, "AuthenticationFailed") if request.writes and cut(warm) else None
    for _ in range(3):
        warm.store.requests.clear()
        with pytest.raises(Exception, match="refused"):
            warm.keep()
        change(warm, "disk-data", 1, 7)
        warm.take_point()
    warm.store.refuse = lambda _: None
    warm.keep()
    same(warm)
    assert len([pins for pins in warm.pins().values() if PIN in pins]) == 1


def cut(warm: WarmScene) -> bool:
    return sum(one.writes for one in warm.store.requests) > 2
