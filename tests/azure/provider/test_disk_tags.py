"""A process server that was built anew knows the disks of a machine in Azure by their tags."""

from __future__ import annotations

from pathlib import Path

from tests.azure.provider.scene import Scene, ours

from farshore_engine.azure.cloud import cloud_of
from farshore_engine.azure.disknames import learn_disks
from farshore_engine.azure.tasks.scene import disk_names
from farshore_engine.contract.assignment import RecoveryTarget
from farshore_engine.contract.tasks import TaskKind


def test_the_disks_are_known_by_their_tags_when_the_notes_are_gone(scene: Scene, tmp_path: Path) -> None:
    """The names were on the old process server's disk only, so reprotect copied all disks anew."""
    scene.disks["disk-os"][440:444] = (0x11, 0x22, 0x33, 0x44)
    result = scene.recover()
    known = disk_names(scene.context.machines_dir, result.address)
    assert [disk for _, disk in known] == ["disk-os"]
    anew = tmp_path / "anew" / "state" / "machines"
    site, place = scene.site, scene.target
    target = RecoveryTarget(machine_id="shop.web", vault=scene.vault, name="web-01", site=site, target=place)
    assert learn_disks(cloud_of(site), target, result.address, anew)
    assert disk_names(anew, result.address) == known
    other = target.model_copy(update={"machine_id": "shop.other"})
    assert not learn_disks(cloud_of(site), other, "127.55.0.99", anew)
    scene.own = tmp_path / "anew"
    scene.do(TaskKind.CLEAN_UP)
    assert ours(scene.sim) == [] and disk_names(anew, result.address) == ()


def test_a_principal_that_may_not_list_the_subscription_looks_where_the_machine_should_be(
    scene: Scene, tmp_path: Path
) -> None:
    scene.disks["disk-os"][440:444] = (0x11, 0x22, 0x33, 0x44)
    result = scene.recover()
    target = RecoveryTarget(machine_id="shop.web", vault=scene.vault, name="web-01", site=scene.site)
    scene.sim.faults.refuse("GET", "*/resources", 403, "AuthorizationFailed", "may not")
    assert learn_disks(cloud_of(scene.site), target, result.address, tmp_path)
    assert scene.sim.faults.struck
    assert disk_names(tmp_path, result.address) == disk_names(scene.context.machines_dir, result.address)
