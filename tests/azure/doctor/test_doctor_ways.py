"""How people reach a machine after its failover, and how its site is reached: said before, never in the way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.azure.doctor.played import by_name, errors
from tests.azure.provider.scene import SUBNET, Scene
from tests.azuresim import AzureSim, seeds

from farshore_engine.azure.cloud import cloud_of
from farshore_engine.azure.paths import network_path
from farshore_engine.azure.reach import RDP, Rule, first_rule, ways_in
from farshore_engine.azure.readiness import check_site, place_of
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.replication import Check, CheckResult
from farshore_engine.contract.site import CloudTarget


@pytest.fixture
def scene(sim: AzureSim, tmp_path: Path) -> Scene:
    return Scene(sim, tmp_path)


def prepared(scene: Scene, network: str = "shore") -> Check:
    found = check_site(scene.site, CloudTarget(network=network, subnet="machines"))
    assert errors(found) == set()
    return by_name(found)["PrepareToConnect"]


def network(sim: AzureSim, name: str = "shore") -> str:
    more = {"machines": SUBNET, "GatewaySubnet": "127.55.250.0/27", "AzureBastionSubnet": "127.55.251.0/26"}
    return seeds.vnet(sim, "rg", name, "127.55.0.0/16", more)


def guarded(sim: AzureSim, vnet: str, *rules: dict[str, Any]) -> None:
    """Put a security group with such rules on the machines' subnet."""
    given = [
        {
            "name": f"rule-{number}", "priority": 100 + number, "direction": "Inbound", "protocol": "Tcp",
            "access": "Deny", "sourceAddressPrefix": "*", "sourcePortRange": "*", "destinationAddressPrefix": "*",
            "destinationPortRange": "*", **rule,
        }
        for number, rule in enumerate(rules)
    ]  # fmt: skip
    group = seeds.guard(sim, "rg", "guard", given)
    body = {"properties": {"addressPrefix": SUBNET, "networkSecurityGroup": {"id": group}}}
    sim.seed("PUT", seeds.subnet_id(vnet, "machines"), body)


def test_a_network_that_nobody_comes_into_is_a_warning_with_what_to_do(scene: Scene) -> None:
    found = prepared(scene)
    assert found.result is CheckResult.WARNING and "no public address" in found.message
    assert "Bastion" in found.remedy and "ExpressRoute" in found.remedy


def bastion(sim: AzureSim, vnet: str) -> None:
    seeds.bastion(sim, "rg", "jump", vnet)


def vpn(sim: AzureSim, vnet: str) -> None:
    seeds.gateway(sim, "rg", "vpn", vnet)


def express_route(sim: AzureSim, vnet: str) -> None:
    seeds.gateway(sim, "rg", "er", vnet, "ExpressRoute")


def peering(sim: AzureSim, vnet: str) -> None:
    office = seeds.vnet(sim, "rg", "office", "10.50.0.0/16", {"desks": "10.50.0.0/24"})
    seeds.peering(sim, vnet, office)
    seeds.peering(sim, office, vnet)


@pytest.mark.parametrize(
    ("open_way", "said"),
    [
        pytest.param(bastion, "Bastion jump", id="Bastion"),
        pytest.param(vpn, "VPN gateway vpn (for people; replication over a site-to-site VPN", id="VPN"),
        pytest.param(express_route, "ExpressRoute gateway er", id="ExpressRoute"),
        pytest.param(peering, "peering with office", id="peering"),
    ],
)
def test_each_way_in_is_told(scene: Scene, sim: AzureSim, open_way: Callable[[AzureSim, str], None], said: str) -> None:
    open_way(sim, network(sim))
    found = prepared(scene)
    assert found.result is CheckResult.PASSED and said in found.message
    assert {one.method for one in sim.calls if one.plane == "arm"} == {"GET"}


def test_one_side_of_a_peering_is_no_way(scene: Scene, sim: AzureSim) -> None:
    vnet = network(sim)
    seeds.peering(sim, vnet, seeds.vnet(sim, "rg", "office", "10.50.0.0/16", {"desks": "10.50.0.0/24"}))
    assert prepared(scene).result is CheckResult.WARNING


@pytest.mark.parametrize(
    ("rules", "closed"),
    [
        pytest.param([], "", id="default rules"),
        pytest.param([{"access": "Deny"}], "rule-0", id="all is denied"),
        pytest.param([{"access": "Deny", "destinationPortRange": "20-30"}], "rule-0", id="a range with SSH in it"),
        pytest.param([{"access": "Deny", "destinationPortRange": "80"}], "", id="another port"),
        pytest.param([{"access": "Deny", "protocol": "Udp"}], "", id="another protocol"),
        pytest.param([{"access": "Deny", "direction": "Outbound"}], "", id="the other direction"),
        pytest.param([{"access": "Allow", "destinationPortRange": "22"}, {}], "", id="allowed before"),
        pytest.param([{}, {"access": "Allow", "destinationPortRange": "22"}], "rule-0", id="allowed too late"),
        pytest.param(
            [{"access": "Allow", "destinationPortRange": "22", "sourceAddressPrefix": "10.50.0.0/16"}, {}], "",
            id="allowed to some",
        ),
    ],
)  # fmt: skip
def test_rules_of_the_subnet(scene: Scene, sim: AzureSim, rules: list[dict[str, Any]], closed: str) -> None:
    vnet = network(sim)
    bastion(sim, vnet)
    guarded(sim, vnet, *rules)
    found = prepared(scene)
    assert found.result is (CheckResult.WARNING if closed else CheckResult.PASSED), found
    assert closed in found.message and (not closed or "TCP 22" in found.remedy)


def test_windows_machines_are_asked_for_another_port(scene: Scene, sim: AzureSim) -> None:
    vnet = network(sim)
    bastion(sim, vnet)
    guarded(sim, vnet, {"access": "Deny", "destinationPortRange": "3389"})
    assert prepared(scene).result is CheckResult.PASSED
    place = place_of(scene.site, CloudTarget(network="shore", subnet="machines"))
    with pytest.raises(StopFault, match="keeps TCP 3389 out"):
        ways_in(cloud_of(scene.site), place, RDP)


def test_the_first_rule_decides() -> None:
    def rule(name: str, priority: int, **more: Any) -> Rule:
        return Rule(name, priority, more.get("allows", True), more.get("ports", ("*",)), more.get("sources", ("*",)))

    late, named, soon = rule("late", 400), rule("named", 50, sources=("10.0.0.0/8",)), rule("soon", 200)
    assert first_rule((late, named, soon), 22) is soon
    assert first_rule((rule("web", 100, ports=("80", "443")),), 22) is None


def test_the_path_to_a_site_is_told(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    told = by_name(check_site(scene.site, CloudTarget()))["NetworkPath"]
    assert told.result is CheckResult.PASSED and "is this host" in told.message
    public = scene.site.model_copy(update={"endpoint": "", "authority": ""})
    known = {"management.azure.com": ("10.0.0.7",), "login.microsoftonline.com": ("20.190.1.1",)}
    said = network_path(public, lambda host: known[host])
    assert "management.azure.com port 443 resolves to 10.0.0.7: a private endpoint" in said
    assert "20.190.1.1: the public endpoint" in said and "site-to-site VPN is not what Microsoft supports" in said
    monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
    assert "disks are uploaded through the proxy proxy.example:3128" in network_path(public, lambda host: known[host])


def test_a_name_that_does_not_resolve_is_in_the_way(scene: Scene) -> None:
    lost = scene.site.model_copy(update={"endpoint": "https://management.nowhere.invalid"})
    found = check_site(lost, CloudTarget())
    assert errors(found) == {"NetworkPath"} and len(found) == 2

    def nobody(_: str) -> tuple[str, ...]:
        raise OSError("unknown")

    with pytest.raises(StopFault, match="does not resolve here"):
        network_path(scene.site, nobody)
