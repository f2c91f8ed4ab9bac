"""What a site in Azure lacks is said before a failover: all of it at once, each with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from tests.azure.doctor.played import PlayedCluster
from tests.azure.provider.scene import Scene
from tests.azuresim import AzureSim, seeds
from tests.azuresim.authorization import grant_role

from farshore_cli.doctoring.page import page
from farshore_cli.sitedoctor import checks_of
from farshore_engine.azure import cloud as cloud_module
from farshore_engine.azure.readiness import check_machine, check_site
from farshore_engine.contract.assignment import RecoveryTarget
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.machine import BootMode, MachineDescription, MachineDisk
from farshore_engine.contract.replication import Check, CheckResult
from farshore_engine.contract.site import CloudCredential, CloudInterface, CloudTarget
from farshore_engine.processserver import recoverysite
from farshore_engine.processserver.recoverysite import look_at
from farshore_operator.api import Site

WEB = MachineDescription(
    hostname="web", cpus=2, memory_bytes=3 << 30,
    disks=(MachineDisk(id="disk-os", name="/dev/sda", size_bytes=1 << 30, bootable=True),),
)  # fmt: skip


def machines_subnet(sim: AzureSim) -> str:
    return seeds.subnet_id(next(iter(sim.store.of("Microsoft.Network/virtualNetworks"))).id, "machines")


def checked(scene: Scene, described: MachineDescription = WEB, name: str = "web-01") -> dict[str, Check]:
    target = RecoveryTarget(machine_id="shop.web", vault=scene.vault, name=name, site=scene.site, target=scene.target)
    return {one.name: one for one in check_machine(target, described, 2)}


def wrong(found: dict[str, Check]) -> set[str]:
    return {name for name, one in found.items() if one.result is CheckResult.ERROR}


def test_nothing_is_in_the_way_at_a_site_that_has_all(scene: Scene, sim: AzureSim) -> None:
    scene.target = CloudTarget(private_ip="127.55.0.50", zone="1")
    found = checked(scene)
    assert wrong(found) == set(), found
    assert "127.55.0.50 is free" in found["PrivateAddress"].message
    assert "Standard_" in found["Size"].message and "if it is not to be had" in found["Size"].message


def test_all_that_is_missing_is_said_at_once_with_remedies(scene: Scene, sim: AzureSim) -> None:
    seeds.nic(sim, "rg", "other", machines_subnet(sim), address="127.55.0.50")
    sim.providers["Microsoft.Storage"] = "NotRegistered"
    sim.parts["compute"].limits["cores"] = 1
    reader = sim.principal("11111111-2222-3333-4444-555555555555", "reader-secret")
    grant_role(sim, reader, "Reader", f"/subscriptions/{sim.subscription}")
    scene.site_changes = {
        "credential": CloudCredential(
            tenant_id=sim.tenant, client_id=reader.client_id, client_secret=SecretStr(reader.secret)
        )
    }
    scene.target = CloudTarget(private_ip="127.55.0.50", disk_type="PremiumV2_LRS", availability_set="none", zone="1")
    found = checked(scene, WEB.model_copy(update={"disks": ()}), name="web_01")
    assert wrong(found) == {
        "ResourceProviders", "Permissions", "Network", "PrivateAddress", "Quota", "DiskType", "Availability", "Name",
        "BootLoader",
    }  # fmt: skip
    assert all(found[name].remedy for name in wrong(found))
    assert "Microsoft.Compute/virtualMachines/write" in found["Permissions"].message
    assert "subnets/join/action" in found["Network"].message
    assert "az provider register --namespace Microsoft.Storage" in found["ResourceProviders"].remedy


def secret_is_wrong(scene: Scene, _: AzureSim) -> None:
    given = scene.site.credential
    assert given is not None
    bad = given.model_copy(update={"client_secret": SecretStr("a-wrong-secret")})
    scene.site_changes = {"credential": bad}


def network_is_another(scene: Scene, _: AzureSim) -> None:
    scene.target = CloudTarget(network="nowhere")


def subnet_is_full(scene: Scene, sim: AzureSim) -> None:
    vnet = seeds.vnet(sim, "rg", "tiny", "10.9.0.0/24", {"one": "10.9.0.0/29"})
    for number in range(3):
        seeds.nic(sim, "rg", f"nic-{number}", seeds.subnet_id(vnet, "one"))
    scene.target = CloudTarget(network="tiny")


def interfaces_are_wrong(scene: Scene, sim: AzureSim) -> None:
    seeds.nic(sim, "rg", "other", machines_subnet(sim), address="127.55.0.50")
    wanted = ("127.55.0.50", "10.0.0.9", "127.55.0.51", "127.55.0.51")
    scene.target = CloudTarget(interfaces=tuple(CloudInterface(private_ip=one) for one in wanted))


def interfaces_are_too_many(scene: Scene, _: AzureSim) -> None:
    scene.target = CloudTarget(interfaces=(CloudInterface(),) * 8)


def a_subnet_is_missing(scene: Scene, _: AzureSim) -> None:
    scene.target = CloudTarget(interfaces=(CloudInterface(), CloudInterface(subnet="dmz")))


def group_is_gone(scene: Scene, _: AzureSim) -> None:
    scene.target = CloudTarget(resource_group="gone")


def name_is_taken(scene: Scene, sim: AzureSim) -> None:
    nic = seeds.nic(sim, "rg", "nic", machines_subnet(sim))
    seeds.machine(sim, "rg", "web-01", seeds.disk(sim, "rg", "os", os_type="Linux"), [nic])


def size_is_none(scene: Scene, _: AzureSim) -> None:
    scene.target = CloudTarget(size="Standard_Nothing")


def size_is_restricted(scene: Scene, sim: AzureSim) -> None:
    for name in sim.parts["compute"].sizes:
        sim.parts["compute"].restricted[name] = "NotAvailableForSubscription"


@pytest.mark.parametrize(
    ("spoil", "check", "said"),
    [
        pytest.param(secret_is_wrong, "Subscription", "login to Azure was refused", id="wrong secret"),
        pytest.param(network_is_another, "Network", "no virtual network nowhere .*has shore", id="no such network"),
        pytest.param(subnet_is_full, "Network", "fewer free addresses .*tiny/one has 0 for 1", id="full subnet"),
        pytest.param(
            interfaces_are_wrong,
            "PrivateAddress",
            "2 interfaces ask for address 127.55.0.51; address 127.55.0.50 is taken .* 10.0.0.9 is none of subnet",
            id="addresses of interfaces",
        ),
        pytest.param(interfaces_are_too_many, "Size", "8 network interfaces", id="no size takes so many interfaces"),
        pytest.param(a_subnet_is_missing, "Network", "no subnet dmz", id="an interface's subnet"),
        pytest.param(group_is_gone, "ResourceGroup", "no resource group gone", id="no such group"),
        pytest.param(name_is_taken, "Name", "not recovered from this one", id="name taken"),
        pytest.param(size_is_none, "Size", "no size Standard_Nothing", id="no such size"),
        pytest.param(size_is_restricted, "Size", "no size of the region", id="restricted sizes"),
    ],
)
def test_each_thing_that_is_wrong_is_named(
    scene: Scene, sim: AzureSim, spoil: Callable[[Scene, AzureSim], None], check: str, said: str
) -> None:
    import re

    spoil(scene, sim)
    found = checked(scene)
    assert wrong(found) == {check}
    assert re.search(said, found[check].message) and found[check].remedy
    assert "a-wrong-secret" not in str(found)


def test_what_cannot_be_asked_just_now_does_not_count_as_missing(
    scene: Scene, sim: AzureSim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cloud_module, "TIMES", {**cloud_module.TIMES, "retry_total": 0})
    sim.faults.server_error("GET", "*/usages", times=100)
    found = checked(scene)
    assert wrong(found) == set() and found["Quota"].result is CheckResult.WARNING


def test_a_machine_with_uefi_asks_for_generation_2(scene: Scene) -> None:
    found = checked(scene, WEB.model_copy(update={"boot_mode": BootMode.UEFI}))
    assert "generation 2" in found["BootLoader"].message


def test_the_process_server_reports_what_is_in_the_way(scene: Scene, sim: AzureSim, tmp_path: Path) -> None:
    sim.parts["compute"].limits["cores"] = 1
    scene.take_point()
    target = RecoveryTarget(machine_id="shop.web", vault=scene.vault, name="web-01", site=scene.site)
    found = look_at(target)
    assert found.opened
    reasons = {one.reason: one for one in recoverysite.obstacles(target, found, 1 << 50, 0, qemu=False)}
    assert set(reasons) == {"Quota", "BootLoader"}  # the machine of the scene says nothing of its disks
    assert all(one.hard for one in reasons.values()) and "quota raised" in reasons["Quota"].message


def site(sim: AzureSim, **azure: Any) -> Site:
    given = {
        "subscription": sim.subscription, "resourceGroup": "rg", "region": sim.region,
        "credentialsSecretRef": {"name": "azure"}, "resourceManagerEndpoint": sim.endpoint,
        "authorityHost": sim.authority, "caBundle": sim.ca_bundle.read_text(), **azure,
    }  # fmt: skip
    return Site.of({"metadata": {"name": "shore", "namespace": "shop"}, "spec": {"provider": "azure", "azure": given}})


def test_doctor_checks_a_site_with_the_code_of_the_process_server(scene: Scene, sim: AzureSim) -> None:
    login = sim.credential()
    cluster = PlayedCluster()
    cluster.secret("azure", tenantId=login.tenant_id, clientId=login.client_id, clientSecret=login.client_secret)
    found = checks_of(site(sim), cluster.where)
    assert found == check_site(scene.site.model_copy(update={"name": "shore"}), CloudTarget())
    assert not [one for one in found if one.result is CheckResult.ERROR]
    assert page("site shore", found, ("machines can be recovered to", "machines cannot be recovered to"))
    assert [one.name for one in found if one.result is CheckResult.ERROR] == []
    broken = checks_of(site(sim, resourceGroup="gone"), cluster.where)
    assert [one.name for one in broken if one.result is CheckResult.ERROR] == ["ResourceGroup"]
    with pytest.raises(StopFault, match="Secret shop/azure, which does not exist"):
        checks_of(site(sim), PlayedCluster().where)


def test_doctor_says_what_it_does_not_check(sim: AzureSim) -> None:
    local = Site.of({"metadata": {"name": "home", "namespace": "shop"}, "spec": {"provider": "local"}})
    with pytest.raises(StopFault, match="provider local"):
        checks_of(local, PlayedCluster().where)
