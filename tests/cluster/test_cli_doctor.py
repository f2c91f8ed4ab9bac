"""`farshore doctor plan` and `vault` against a real API server, as an administrator and as somebody who only reads.

What they find is tested in tests/azure/doctor; here it is that the command line gets through.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.moving_scene import PLAN, VM, Scene
from tests.cluster.people import person
from tests.cluster.test_cli_failover import as_person


def lines(text: str) -> dict[str, Any]:
    return {one["name"]: one for one in json.loads(text)}


@pytest.mark.soak
def test_a_plan_and_its_vault_are_checked_through_the_api(scene: Scene, tmp_path: Path) -> None:
    scene.plan()
    space = ("-n", scene.namespace, "-o", "json")
    told = scene.world.farshore("doctor", "plan", PLAN, *space, check=False)
    assert told.returncode in (0, 1), told.stdout + told.stderr
    found = lines(told.stdout)
    assert {"Members", "Standing", "Source", "Names"} <= set(found), told.stdout
    assert VM in found["Members"]["message"] and any(name.startswith(f"{VM}/") for name in found)
    listed = scene.world.plane.kubectl("-n", scene.namespace, "get", "recoveryvaults", "-o", "name").stdout
    told = scene.world.farshore("doctor", "vault", listed.split()[0].partition("/")[2], *space, check=False)
    assert told.returncode in (0, 1), told.stdout + told.stderr
    assert {"StorageSecret", "KeySecret"} <= set(lines(told.stdout)), told.stdout
    person(scene.world.plane, scene.namespace, "rita", "farshore-reader")
    told = as_person(scene, tmp_path, "rita", "doctor", "plan", PLAN, *space)
    assert told.returncode in (0, 1), told.stdout + told.stderr
    assert VM in lines(told.stdout)["Members"]["message"], "a reader is told as much as he may read"
