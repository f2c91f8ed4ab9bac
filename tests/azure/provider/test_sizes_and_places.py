"""What a machine becomes in Azure: its size when Azure is short of it, its generation, its network, its second life."""

from __future__ import annotations

import pytest
from tests.azure.provider.scene import Scene, data_disk, ours
from tests.azuresim import AzureSim, seeds

from farshore_engine.azure.cloud import cloud_of
from farshore_engine.azure.sizes import Needs, Size, choose, list_sizes
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.site import CloudInterface, CloudTarget
from farshore_engine.contract.tasks import ProbeKind, ProbeSpec, TaskFailed, TaskKind

VNET = "/resourceGroups/rg/providers/Microsoft.Network/virtualNetworks/shore"


def machine_of(sim: AzureSim, name: str = "web-01") -> dict[str, object]:
    return sim.parts["compute"].machine(name).properties


def test_the_smallest_size_that_fits_is_taken_and_another_where_azure_has_none_left(
    scene: Scene, sim: AzureSim
) -> None:
    compute = sim.parts["compute"]
    first = scene.recover()
    assert machine_of(sim)["hardwareProfile"]["vmSize"] in first.evidence  # type: ignore[index]
    smallest = machine_of(sim)["hardwareProfile"]["vmSize"]  # type: ignore[index]
    scene.do(TaskKind.CLEAN_UP)
    compute.no_capacity.add(smallest.lower())
    second = scene.recover()
    assert machine_of(sim)["hardwareProfile"]["vmSize"] != smallest  # type: ignore[index]
    assert f"others were not to be had: {smallest}" in second.evidence and "AllocationFailed" in second.evidence
    assert len(list(sim.store.of("Microsoft.Compute/virtualMachines"))) == 1
    scene.check_disks(second.disk_paths)


def test_when_no_size_is_to_be_had_it_says_which_were_tried_and_what_to_do(scene: Scene, sim: AzureSim) -> None:
    sim.parts["compute"].limits["cores"] = 1
    scene.do(TaskKind.HYDRATE)
    scene.do(TaskKind.UPLOAD_DISKS)
    with pytest.raises(StopFault, match="no size is to be had") as told:
        scene.do(TaskKind.START_MACHINE)
    assert told.value.reason == "QuotaExceeded" and "quota raised" in told.value.remedy
    scene.do(TaskKind.CLEAN_UP)
    assert ours(sim) == []


def test_a_point_is_changed_by_a_new_machine_in_the_place_of_the_old(scene: Scene, sim: AzureSim) -> None:
    scene.target = CloudTarget(private_ip="127.55.0.99")
    old = scene.recover()
    changed = Scene(
        sim, scene.directory, disks={**scene.disks, "disk-data": data_disk() * 2},
        run="change-2", target=scene.target,
    )  # fmt: skip
    changed.do(TaskKind.HYDRATE, replaces="failover-1")
    changed.do(TaskKind.UPLOAD_DISKS)
    assert sim.parts["compute"].power_of("web-01") == "running", "the old one runs until the new disks are there"
    new = changed.do(TaskKind.START_MACHINE, replaces="failover-1")
    assert new.address == old.address == "127.55.0.99"
    changed.check_disks(new.disk_paths)
    assert len(ours(sim)) == 4, "nothing of the old machine is left"
    again = changed.do(TaskKind.START_MACHINE, replaces="failover-1")
    assert (again.address, again.disk_paths, again.evidence) == (new.address, new.disk_paths, new.evidence)


def test_a_drill_without_a_network_gets_one_that_lets_nothing_out_and_leaves_none(scene: Scene, sim: AzureSim) -> None:
    scene.target = CloudTarget(network="drill-7", isolated=True)
    scene.recover()
    (vnet,) = [one for one in sim.store.of("Microsoft.Network/virtualNetworks") if one.name == "drill-7"]
    (guard,) = sim.store.of("Microsoft.Network/networkSecurityGroups")
    assert guard.properties["securityRules"][0]["properties"]["access"] == "Deny"
    assert "isolated" in scene.do(TaskKind.PROBE_MACHINE).evidence
    asked = ProbeSpec(name="web", kind=ProbeKind.TCP, port=80)
    with pytest.raises(TaskFailed, match="isolated") as told:
        scene.do(TaskKind.PROBE_MACHINE, probes=(asked,))
    assert "drillNetwork" in told.value.remedy
    removed = scene.do(TaskKind.CLEAN_UP).removed
    assert f"virtual network rg/{vnet.name}" in removed and ours(sim) == []


def test_the_network_of_a_drill_stays_until_its_last_machine_goes(scene: Scene, sim: AzureSim) -> None:
    scene.target = CloudTarget(network="drill-7", isolated=True)
    scene.recover()
    other = Scene(sim, scene.directory, point=scene.point, target=scene.target, machine_name="web-02")
    other.recover()
    scene.do(TaskKind.CLEAN_UP)
    assert sim.parts["compute"].power_of("web-02") == "running"
    other.do(TaskKind.CLEAN_UP)
    assert ours(sim) == []


def test_a_recovered_machine_is_shut_down_and_started_again(scene: Scene, sim: AzureSim) -> None:
    first = scene.recover()
    away = {"machine_name": "", "source_machine": "web-01", "target": None}
    for _ in range(2):
        assert scene.do(TaskKind.SHUTDOWN_SOURCE, **away).confirmed
    assert sim.parts["compute"].power_of("web-01") == "deallocated"
    again = scene.do(TaskKind.START_SOURCE, **away)
    assert (again.address, again.disk_paths) == (first.address, first.disk_paths)
    assert sim.parts["compute"].power_of("web-01") == "running"
    other_run = Scene(sim, scene.directory, point=scene.point, run="abort-3")
    other_run.do(TaskKind.SHUTDOWN_SOURCE, **away)
    assert other_run.do(TaskKind.START_MACHINE, target=None).disk_paths == first.disk_paths
    other_run.do(TaskKind.CLEAN_UP, target=None)
    assert ours(sim) == []


def test_a_machine_in_a_group_of_its_own_is_found_again_by_a_process_server_that_knows_nothing(
    scene: Scene, sim: AzureSim
) -> None:
    """Who sends it home is not told its target: it was looked for in the site's group only, and left behind."""
    sim.group("Shop")
    scene.target = CloudTarget(resource_group="Shop", network=f"/subscriptions/{sim.subscription}{VNET}")
    scene.recover()
    scene.lose_staged()
    away = {"machine_name": "", "source_machine": "web-01", "target": None}
    other = Scene(sim, scene.directory, point=scene.point, run="commit-3")
    assert other.do(TaskKind.SHUTDOWN_SOURCE, **away).confirmed
    assert sim.parts["compute"].power_of("web-01") == "deallocated"
    assert other.do(TaskKind.START_MACHINE, target=None).address
    assert "resource group Shop" in " ".join(other.do(TaskKind.CLEAN_UP, target=None).looked_for)
    assert ours(sim) == []


def test_availability_set_zone_disk_type_and_tags_are_as_asked(scene: Scene, sim: AzureSim) -> None:
    body = {"location": sim.region, "sku": {"name": "Aligned"}, "properties": {"platformFaultDomainCount": 2}}
    path = f"/subscriptions/{sim.subscription}/resourceGroups/rg/providers/Microsoft.Compute/availabilitySets/pair"
    sim.seed("PUT", path, body)
    scene.target = CloudTarget(availability_set="pair", disk_type="Premium_LRS", size="Standard_D4s_v5")
    scene.recover()
    found = machine_of(sim)
    assert found["availabilitySet"]["id"].endswith("/pair")  # type: ignore[index]
    assert found["hardwareProfile"]["vmSize"] == "Standard_D4s_v5"  # type: ignore[index]
    assert {one.body["sku"]["name"] for one in sim.store.of("Microsoft.Compute/disks")} == {"Premium_LRS"}
    scene.do(TaskKind.CLEAN_UP)
    zonal = Scene(sim, scene.directory, point=scene.point, target=CloudTarget(zone="2"), run="failover-2")
    zonal.recover()
    assert sim.parts["compute"].machine("web-01").body["zones"] == ["2"]


def test_clean_up_leaves_what_it_did_not_make(scene: Scene, sim: AzureSim) -> None:
    seeds.disk(sim, "rg", "database", gib=1, tags={"farshore-machine": "shop.web", "team": "shop"})
    scene.recover()
    scene.do(TaskKind.CLEAN_UP)
    assert [one.name for one in sim.store.of("Microsoft.Compute/disks")] == ["database"]
    assert [one.name for one in sim.store.of("Microsoft.Network/virtualNetworks")] == ["shore"]


def two_subnets(sim: AzureSim) -> None:
    seeds.vnet(sim, "rg", "pair", "127.56.0.0/16", {"front": "127.56.1.0/24", "back": "127.56.2.0/24"})


TWO = (CloudInterface(subnet="front"), CloudInterface(subnet="back", private_ip="127.56.2.9", primary=True))


def test_a_machine_has_all_its_interfaces_in_their_order_and_answers_at_the_primary_one(
    scene: Scene, sim: AzureSim
) -> None:
    two_subnets(sim)
    scene.target = CloudTarget(network="pair", interfaces=TWO, tags={"team": "shop"})
    first = scene.recover()
    assert first.address == "127.56.2.9"
    (front, back) = machine_of(sim)["networkProfile"]["networkInterfaces"]  # type: ignore[index]
    assert (front["properties"]["primary"], back["properties"]["primary"]) == (False, True)
    nics = [sim.store.need(one["id"]) for one in (front, back)]
    wanted = [("front", "Dynamic"), ("back", "Static")]
    for nic, (subnet, how) in zip(nics, wanted, strict=True):
        given = nic.properties["ipConfigurations"][0]["properties"]
        assert given["subnet"]["id"].endswith(f"/{subnet}") and given["privateIPAllocationMethod"] == how
        assert nic.tags["team"] == "shop" and nic.tags["farshore-run"] == scene.run
    before = ours(sim)
    assert scene.do(TaskKind.START_MACHINE).address == first.address and ours(sim) == before, "nothing is made twice"
    cleaned = scene.do(TaskKind.CLEAN_UP)
    assert len([one for one in cleaned.removed if one.startswith("network interface")]) == 2 and ours(sim) == []


def test_all_interfaces_of_a_drill_are_in_its_own_network(scene: Scene, sim: AzureSim) -> None:
    scene.target = CloudTarget(network="drill-1", isolated=True, interfaces=(CloudInterface(), CloudInterface()))
    scene.recover()
    nics = sim.store.of("Microsoft.Network/networkInterfaces")
    assert {one.properties["ipConfigurations"][0]["properties"]["subnet"]["id"].split("/")[-3] for one in nics} == {
        "drill-1"
    }
    scene.do(TaskKind.CLEAN_UP)
    assert ours(sim) == []


def test_a_machine_with_more_interfaces_gets_a_size_that_takes_them(scene: Scene, sim: AzureSim) -> None:
    two_subnets(sim)
    scene.target = CloudTarget(network="pair", subnet="front", interfaces=(CloudInterface(),) * 4)
    scene.recover()
    taken = sim.parts["compute"].sizes[str(machine_of(sim)["hardwareProfile"]["vmSize"]).lower()]  # type: ignore[index]
    assert taken.max_nics >= 4
    sizes = list_sizes(cloud_of(scene.site))
    with pytest.raises(StopFault, match="takes 2 network interfaces, and the machine has 4"):
        choose(sizes, Needs(1, 512, nics=4), "Standard_D2s_v5")


def size(name: str, cpus: int, gib: int, **more: object) -> Size:
    given: dict[str, object] = {
        "family": name, "disks": 4, "generations": frozenset({"V1", "V2"}), "premium": True,
        "zones": frozenset({"1"}), "architecture": "x64",
    }  # fmt: skip
    return Size(name=name, cpus=cpus, memory_mib=gib * 1024, **{**given, **more})  # type: ignore[arg-type]


REGION = (
    size("Standard_B2s", 2, 4),
    size("Standard_B2ms", 2, 8),
    size("Standard_D2s_v3", 2, 8),
    size("Standard_D2s_v5", 2, 8),
    size("Standard_D2ps_v5", 2, 8, architecture="Arm64"),
    size("Standard_DC2s_v3", 2, 8),
    size("Standard_D4s_v5", 4, 16, disks=8),
    size("Standard_D4s_v4", 4, 16, restricted="NotAvailableForSubscription"),
)


@pytest.mark.parametrize(
    ("needs", "asked", "expected"),
    [
        pytest.param(Needs(2, 3000), "", "Standard_B2s", id="the smallest"),
        pytest.param(Needs(2, 8000), "", "Standard_D2s_v5", id="of equal ones the newest that is not burstable"),
        pytest.param(Needs(2, 8000, disks=6), "", "Standard_D4s_v5", id="room for the data disks"),
        pytest.param(Needs(1, 512), "standard_d2s_v3", "Standard_D2s_v3", id="the one that is asked for"),
        pytest.param(Needs(1, 512), "Standard_D4s_v4", "Standard_D4s_v5", id="another like it where it is not offered"),
    ],
)
def test_which_size_comes_first(needs: Needs, asked: str, expected: str) -> None:
    assert choose(REGION, needs, asked)[0].name == expected


@pytest.mark.parametrize(
    ("needs", "asked", "said"),
    [
        pytest.param(Needs(64, 1024), "", "no size of the region has 64 CPUs", id="too many CPUs"),
        pytest.param(Needs(1, 1024, zone="3"), "", "in zone 3", id="not in the zone"),
        pytest.param(Needs(1, 1024), "Standard_X1", "no size Standard_X1", id="there is none of that name"),
        pytest.param(Needs(1, 1024, disks=6), "Standard_D2s_v5", "takes 4 data disks", id="too few places for disks"),
    ],
)
def test_a_size_that_cannot_be_had_is_refused_with_a_remedy(needs: Needs, asked: str, said: str) -> None:
    with pytest.raises(StopFault, match=said) as told:
        choose(REGION, needs, asked)
    assert told.value.remedy
