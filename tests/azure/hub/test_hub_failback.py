"""A machine comes home to a Hub: on its own disks, only what differs, whatever dies or fails on the way."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.azure.hub.conftest import GROUP
from tests.azure.hub.failback_world import ADDRESS, CHANGED, TAGS, Killed, Vault, World, make_vault
from tests.azuresim import AzureSim, seeds
from tests.azuresim.compute.state import compute
from tests.azuresim.hub import hub

from farshore_engine.azurestack.definition import MOST_TAGS, definition_of, from_tags, to_tags
from farshore_engine.azurestack.machine import read_machine
from farshore_engine.blocks.grid import BLOCK_SIZE
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.site import CloudTarget
from farshore_engine.contract.tasks import TaskKind

CHANGES = ("PUT", "PATCH", "POST", "DELETE")


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    return make_vault(tmp_path_factory.mktemp("vault") / "v")


@pytest.fixture(scope="module")
def running() -> Iterator[AzureSim]:
    with hub() as sim:
        yield sim


@pytest.fixture
def world(running: AzureSim, vault: Vault, tmp_path: Path) -> Iterator[World]:
    running.reset()
    running.pace.polls = 0
    compute(running).power.clear()
    made = World.made(running, vault, tmp_path / "state")
    yield made


def test_only_what_differs_is_written_and_the_machine_is_the_same_again(world: World) -> None:
    world.seed()
    result = world.step(TaskKind.WRITE_BACK)
    assert result.bytes_written == sum(map(len, CHANGED.values())) * BLOCK_SIZE
    assert 0 < (result.bytes_moved or 0) < BLOCK_SIZE, "what crosses to the site is compressed"
    assert result.disks_verified and "taken apart" in result.evidence
    started = world.step(TaskKind.START_SOURCE)
    assert (started.machine_kind, started.address, started.port) == ("azureStackHub", ADDRESS, 22)
    world.check_home()
    machine = compute(world.sim).machine("shop")
    assert [one["lun"] for one in machine.properties["storageProfile"]["dataDisks"]] == [0]


def test_steps_that_come_again_change_nothing(world: World) -> None:
    world.seed()
    first = world.step(TaskKind.WRITE_BACK)
    world.step(TaskKind.START_SOURCE)
    changes = len([one for one in world.sim.calls if one.method in CHANGES and one.plane == "arm"])
    assert world.step(TaskKind.WRITE_BACK) == first
    world.step(TaskKind.START_SOURCE)
    assert len([one for one in world.sim.calls if one.method in CHANGES and one.plane == "arm"]) == changes
    world.check_home()


def test_a_machine_that_runs_is_left_alone(world: World) -> None:
    world.seed()
    compute(world.sim).power[compute(world.sim).machine("shop").id.lower()] = "running"
    with pytest.raises(StopFault) as found:
        world.step(TaskKind.WRITE_BACK)
    assert found.value.reason == "MachineRuns" and "Power it off" in found.value.remedy
    assert compute(world.sim).disk_path("shop-system").read_bytes() == world.vault.before["system"]
    assert not [one for one in world.sim.calls if one.method in CHANGES and one.plane == "arm"]


def test_another_machine_that_has_the_address_now_is_left_alone(world: World) -> None:
    world.seed()
    machine = compute(world.sim).machine("shop")
    world.sim.seed("DELETE", machine.id)
    nic = machine.properties["networkProfile"]["networkInterfaces"][0]["id"]
    other = seeds.disk(world.sim, GROUP, "stranger-os", os_type="Linux")
    seeds.machine(world.sim, GROUP, "stranger", other, [nic], size="Standard_D2_v2", running=False)
    with pytest.raises(StopFault) as found:
        world.step(TaskKind.WRITE_BACK)
    assert found.value.reason == "AnotherMachine" and "spec.source.machine: stranger" in found.value.remedy
    assert compute(world.sim).power_of("stranger") == "deallocated"


def test_a_machine_with_other_disks_is_left_alone(world: World) -> None:
    world.seed()
    disk = compute(world.sim).disk("shop-data")
    compute(world.sim).machine("shop").properties["storageProfile"]["dataDisks"][0]["diskSizeGB"] = 8
    disk.properties.update(diskSizeGB=8, diskSizeBytes=8 << 30)
    with pytest.raises(StopFault) as found:
        world.step(TaskKind.WRITE_BACK)
    assert found.value.reason == "DisksDiffer" and "shop-data 8 GiB" in found.value.message
    assert compute(world.sim).power_of("shop") == "stopped"


def test_a_machine_of_whose_disks_it_cannot_be_told_which_are_replicated_is_left_alone(world: World) -> None:
    """It was taken apart first, and then it was found that nothing could be written."""
    world.seed()
    machine = compute(world.sim).machine("shop")
    scratch = seeds.disk(world.sim, GROUP, "shop-scratch")
    ids = [one["managedDisk"]["id"] for one in machine.properties["storageProfile"]["dataDisks"]]
    disks = [
        {"lun": lun, "createOption": "Attach", "managedDisk": {"id": one}} for lun, one in enumerate([*ids, scratch])
    ]
    world.sim.seed("PATCH", machine.id, {"properties": {"storageProfile": {"dataDisks": disks}}})
    with pytest.raises(StopFault) as found:
        world.step(TaskKind.WRITE_BACK)
    assert found.value.reason == "DisksDiffer" and "not replicated" in found.value.remedy
    assert compute(world.sim).power_of("shop") == "stopped"


def test_there_is_no_machine_to_start_while_its_disks_are_half_written(world: World) -> None:
    world.seed()
    world.step(TaskKind.WRITE_BACK)
    assert [one.name for one in world.sim.store.of("Microsoft.Compute/virtualMachines")] == ["ps"]
    nic = world.sim.store.need(
        f"/subscriptions/{world.sim.subscription}/resourceGroups/{GROUP}"
        "/providers/Microsoft.Network/networkInterfaces/shop-nic"
    )
    kept = from_tags(nic.tags)
    assert kept is not None and kept.name == "shop" and kept.body["tags"] == TAGS


def test_another_process_server_goes_on_from_the_tags(world: World, tmp_path: Path) -> None:
    world.seed()
    world.step(TaskKind.WRITE_BACK)
    shutil.rmtree(world.state)
    other = world.other_server(tmp_path / "other")
    assert other.step(TaskKind.WRITE_BACK).bytes_written == 0
    other.step(TaskKind.START_SOURCE)
    other.check_home()


def test_a_definition_whose_disks_are_gone_is_not_believed(world: World) -> None:
    world.seed()
    world.step(TaskKind.WRITE_BACK)
    seeds_path = f"/subscriptions/{world.sim.subscription}/resourceGroups/{GROUP}/providers/Microsoft.Compute"
    world.sim.seed("PATCH", f"{seeds_path}/virtualMachines/ps", {"properties": {"storageProfile": {"dataDisks": []}}})
    world.sim.seed("DELETE", f"{seeds_path}/disks/shop-data")
    with pytest.raises(StopFault) as found:
        world.step(TaskKind.START_SOURCE)
    assert found.value.reason == "MachineUnknown"


@pytest.mark.parametrize("target", [{}, {"size": "Standard_DS3_v2", "disk_type": "Premium_LRS"}], ids=["own", "asked"])
def test_a_machine_that_is_gone_is_made_in_the_same_place(target: dict[str, str], world: World) -> None:
    world.seed(machine=False)
    given = CloudTarget(**target)
    result = world.step(TaskKind.WRITE_BACK, target=given)
    assert "was gone" in result.evidence and result.disks_verified
    world.step(TaskKind.START_SOURCE, target=given)
    world.check_home(fresh=True)
    machine = compute(world.sim).machine("shop")
    assert machine.properties["hardwareProfile"]["vmSize"] == target.get("size", "Standard_D2_v2")
    assert machine.tags["farshore-run"] == world.run and machine.tags["farshore-owner"] == "demo.shop"


def test_the_interface_of_a_machine_that_is_gone_is_used_again(world: World) -> None:
    world.seed(machine=False)
    subnet = f"/subscriptions/{world.sim.subscription}/resourceGroups/{GROUP}/providers/Microsoft.Network"
    seeds.nic(world.sim, GROUP, "shop-nic", f"{subnet}/virtualNetworks/vnet/subnets/default", ADDRESS)
    world.step(TaskKind.WRITE_BACK)
    world.step(TaskKind.START_SOURCE)
    world.check_home(fresh=True)


def test_a_machine_with_several_interfaces_comes_home_with_all_of_them(world: World) -> None:
    world.seed()
    machine, subnet = compute(world.sim).machine("shop"), _default(world)
    nic = seeds.nic(world.sim, GROUP, "shop-nic2", subnet, "10.1.0.9")
    references = machine.properties["networkProfile"]["networkInterfaces"]
    machine.properties["networkProfile"]["networkInterfaces"] = before = [
        {"id": nic, "properties": {"primary": False}}, {"id": references[0]["id"], "properties": {"primary": True}},
    ]  # fmt: skip
    world.step(TaskKind.WRITE_BACK)
    started = world.step(TaskKind.START_SOURCE)
    assert started.address == ADDRESS, "the primary one's"
    after = compute(world.sim).machine("shop").properties["networkProfile"]["networkInterfaces"]
    assert [(one["id"], one["properties"]["primary"]) for one in after] == [
        (one["id"], one["properties"]["primary"]) for one in before
    ]
    assert not any("farshore-machine" in one.tags for one in world.sim.store.of("Microsoft.Network/networkInterfaces"))


@pytest.mark.parametrize("kept", [True, False], ids=["its second interface is left", "nothing is left"])
def test_a_machine_that_is_gone_gets_all_interfaces_again_that_the_network_has(
    kept: bool, world: World, tmp_path: Path
) -> None:
    interfaces = (("eth0", ADDRESS), ("eth1", "10.1.0.9"), ("docker0", "172.17.0.1"))
    world.vault = make_vault(tmp_path / "more", interfaces)
    world.seed(machine=False)
    if kept:
        seeds.nic(world.sim, GROUP, "shop-nic2", _default(world), "10.1.0.9")
    for kind in (TaskKind.WRITE_BACK, TaskKind.START_SOURCE):
        world.step(kind)
    assert compute(world.sim).as_machine(compute(world.sim).machine("shop")).addresses == (ADDRESS, "10.1.0.9")
    names = [one.name for one in world.sim.store.of("Microsoft.Network/networkInterfaces")]
    assert len(names) == 3 and ("shop-nic2" in names) is kept


def _default(world: World) -> str:
    network = f"/subscriptions/{world.sim.subscription}/resourceGroups/{GROUP}/providers/Microsoft.Network"
    return f"{network}/virtualNetworks/vnet/subnets/default"


class Death:
    """Kills once, at a moment: each change has one before it and one behind it."""

    def __init__(self, at: int) -> None:
        self.at, self.seen = at, 0

    def __call__(self, method: str, path: str, done: bool) -> None:
        if method in CHANGES:
            self.seen += 1
            if self.seen == self.at + 1:
                raise Killed


@pytest.mark.parametrize("machine", [True, False], ids=["there", "gone"])
def test_the_process_server_may_die_at_every_call(machine: bool, world: World) -> None:
    """Before and after each call that changes something; what was asked is done or not, and the next try finds out."""
    count, total = 0, 99
    while count < total:
        world.sim.reset()
        compute(world.sim).power.clear()
        shutil.rmtree(world.state, ignore_errors=True)
        world.seed(machine=machine)
        world.connection.die = death = Death(count)  # type: ignore[method-assign]
        for kind in (TaskKind.WRITE_BACK, TaskKind.START_SOURCE):
            world.patiently(kind)
        world.check_home(fresh=not machine)
        count, total = count + 1, death.seen
    assert total > 10


def _throttle(sim: AzureSim, method: str, nth: int) -> None:
    sim.faults.throttle(method, "*", nth=nth, times=4, retry_after=0)


def _conflict(sim: AzureSim, method: str, nth: int) -> None:
    sim.faults.conflict(method, "*", nth=nth)


def _broken(sim: AzureSim, method: str, nth: int) -> None:
    sim.faults.server_error(method, "*", nth=nth, times=4)


def _lost_answer(sim: AzureSim, method: str, nth: int) -> None:
    sim.faults.lose_response(method, "*", nth=nth)


def _lost_request(sim: AzureSim, method: str, nth: int) -> None:
    sim.faults.lose_request(method, "*", nth=nth, times=4)


def _fails(sim: AzureSim, method: str, nth: int) -> None:
    sim.faults.fail_at_end(method, "*", "InternalExecutionError", "An internal error occurred.", nth=nth)


def _canceled(sim: AzureSim, method: str, nth: int) -> None:
    sim.faults.cancel_at_end(method, "*", nth=nth)


def _expired(sim: AzureSim, method: str, nth: int) -> None:
    sim.faults.expire_token(method, "*", nth=nth, revoke=True)


def _policy(sim: AzureSim, method: str, nth: int) -> None:
    sim.faults.policy(method, "*", nth=nth)


PLANS = (_throttle, _conflict, _broken, _lost_answer, _lost_request, _fails, _canceled, _expired, _policy)


@pytest.mark.parametrize("plan", PLANS, ids=[one.__name__.strip("_") for one in PLANS])
def test_every_fault_at_every_change_ends_well_or_is_told(
    plan: Callable[[AzureSim, str, int], None], world: World
) -> None:
    """A person who is told starts the step anew: it goes on."""
    for method in CHANGES:
        nth = 0
        while True:
            nth += 1
            world.sim.reset()
            compute(world.sim).power.clear()
            shutil.rmtree(world.state, ignore_errors=True)
            world.seed()
            plan(world.sim, method, nth)
            for kind in (TaskKind.WRITE_BACK, TaskKind.START_SOURCE):
                for _ in range(8):
                    try:
                        world.step(kind)
                        break
                    except Fault as fault:
                        assert fault.reason and (fault.remedy or isinstance(fault, WaitFault)), fault
                        assert "secret" not in str(fault)
                        world.sim.settle()
                else:
                    pytest.fail(f"{kind} at {method} {nth} does not end")
            world.check_home()
            if not world.sim.faults.struck:
                break
        assert nth > 1


def test_slow_operations_are_waited_for(world: World) -> None:
    world.seed()
    world.sim.pace.polls = 3
    world.step(TaskKind.WRITE_BACK)
    world.step(TaskKind.START_SOURCE)
    world.check_home()


def test_a_process_server_elsewhere_says_so(world: World) -> None:
    world.seed()
    compute(world.sim)
    nic = f"/subscriptions/{world.sim.subscription}/resourceGroups/{GROUP}/providers/Microsoft.Network"
    world.sim.store.need(f"{nic}/networkInterfaces/ps-nic").properties["ipConfigurations"][0]["properties"][
        "privateIPAddress"
    ] = "10.1.0.200"
    with pytest.raises(StopFault) as found:
        world.step(TaskKind.WRITE_BACK)
    assert found.value.reason == "NotAtTheHub" and "10.1.0.100" in found.value.message


def test_the_machine_is_shut_down_in_order_and_confirmed(world: World) -> None:
    world.seed()
    compute(world.sim).power[compute(world.sim).machine("shop").id.lower()] = "running"
    for _ in range(2):
        result = world.step(TaskKind.SHUTDOWN_SOURCE)
        assert result.confirmed and "stopped" in result.evidence
    offs = [one for one in world.sim.calls if one.path.endswith("/powerOff")]
    assert len(offs) == 1 and "skipShutdown" not in offs[0].query


def test_what_a_hub_does_not_do_is_refused_by_name(world: World) -> None:
    for kind in (TaskKind.HYDRATE, TaskKind.START_MACHINE):
        with pytest.raises(StopFault, match="by failback only"):
            world.step(kind)


def test_a_definition_fits_into_tags_or_nothing_is_touched(world: World) -> None:
    world.seed()
    body = compute(world.sim).machine("shop").body
    machine = read_machine(body, {})
    definition = definition_of(machine)
    tags = to_tags(definition, 1)
    assert len(tags) + 1 <= MOST_TAGS and all(len(one) <= 256 for one in tags.values())
    assert from_tags(tags) == definition
    assert from_tags({name: tag for name, tag in tags.items() if name != "farshore-definition-0"}) is None
    with pytest.raises(StopFault, match="not touched"):
        to_tags(definition, MOST_TAGS)


def test_no_secret_and_no_token_is_logged_on_the_way(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    world.seed()
    world.sim.faults.throttle("PATCH", "*", retry_after=0)
    world.step(TaskKind.WRITE_BACK)
    world.step(TaskKind.START_SOURCE)
    told = caplog.text + "".join(world.said)
    assert told and world.sim.me.secret not in told
    assert not [one for one in world.sim.tokens.given if one in told]
