"""`farshore doctor --live` of a site at a Hub: what a Hub says of itself, by reading."""

from __future__ import annotations

import pytest
from tests.azuresim import AzureSim

from farshore_cli.live import hub
from farshore_cli.live.items import Area, Told
from farshore_cli.live.report import read
from farshore_engine.azurestack.resourcemanager import ResourceManager


def test_a_hub_is_read_and_its_versions_are_known(sim: AzureSim, manager: ResourceManager, subnet: str) -> None:
    sim.calls.clear()
    lines = {one.name: one.answer for one in read(Area.HUB, hub.ITEMS, manager)}
    assert (lines["Metadata"].told, lines["Versions"].told) == (Told.CONFIRMED, Told.CONFIRMED), lines
    assert "virtualMachines" in lines["Versions"].seen
    assert {one.method for one in sim.calls if one.plane == "arm"} == {"GET"}


@pytest.mark.parametrize("kind", ["Microsoft.Compute/disks"])
def test_a_hub_of_another_profile_is_told(sim: AzureSim, manager: ResourceManager, kind: str) -> None:
    sim.arm.limit(kind, ["2015-01-01"])
    lines = {one.name: one.answer for one in read(Area.HUB, hub.ITEMS, manager)}
    assert lines["Versions"].told is Told.CONTRADICTED and kind in lines["Versions"].seen
