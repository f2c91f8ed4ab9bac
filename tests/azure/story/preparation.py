"""Steps 1, 3 and 4 of the tutorial: the machines are found and suit, the process server is where it should be, and the
target lacks nothing. What `farshore doctor` says of it is said by the same code."""

from __future__ import annotations

from collections.abc import Iterable

from tests.azure.story.clouds import AZURE_GROUP, NETWORK, SERVER
from tests.azure.story.runs import AZURE, HUB
from tests.azure.story.tutorial import Story

from farshore_engine.azure.readiness import check_machine, check_site
from farshore_engine.azurestack.machines import Machines
from farshore_engine.azurestack.mastertarget import MasterTarget
from farshore_engine.azurestack.setting import HubSetting
from farshore_engine.azurestack.support import examine
from farshore_engine.contract.assignment import RecoveryTarget
from farshore_engine.contract.replication import Check, CheckResult
from farshore_engine.contract.site import CloudTarget


def prepare(story: Story, at_the_hub: HubSetting) -> None:
    """Go through the steps; raises AssertionError with what is missing."""
    stage = story.stage
    with at_the_hub.connect(stage.sites[HUB]) as manager:
        machines = Machines(manager)
        for actor in story.clouds.actors:
            found = machines.at((actor.home,))
            assert found is not None and found.name == actor.name, "Step 1: the private address tells the machine"
            _nothing_lacks(examine(found))
        assert MasterTarget(machines, at_the_hub.host).own().name == SERVER, "Step 3"
    _nothing_lacks(check_site(stage.sites[AZURE], CloudTarget(network=NETWORK)))
    for actor in story.clouds.actors:
        wished = CloudTarget(network=NETWORK, private_ip=actor.away, resource_group=AZURE_GROUP)
        target = RecoveryTarget(
            machine_id=actor.machine_id, vault=stage.vault, name=actor.at_azure, site=stage.sites[AZURE], target=wished
        )
        _nothing_lacks(check_machine(target, actor.described(), 2))


def _nothing_lacks(checks: Iterable[Check]) -> None:
    wrong = [f"{one.name}: {one.message}. {one.remedy}" for one in checks if one.result is CheckResult.ERROR]
    assert not wrong, wrong
