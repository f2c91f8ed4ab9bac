"""`farshore doctor --live`: the docs' list of what is inferred, point by point, by reading and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.azure.doctor.played import NAMESPACE, PlayedCluster
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Cloud
from tests.azuresim import AzureSim, seeds
from tests.azuresim.authorization import grant_role
from tests.azuresim.siterecovery import Target, protected
from typer.testing import CliRunner

from farshore_cli.live import hub, places, resources, siterecovery
from farshore_cli.live.items import Area, Told
from farshore_cli.live.report import Line
from farshore_cli.main import build
from farshore_engine.contract.faults import StopFault
from farshore_operator.api import RecoveryVault, Site

PAGE = Path(__file__).parents[3] / "docs" / "azure-unverified.md"
CHAPTERS = {
    "Site Recovery": Area.SITE_RECOVERY,
    "Resource Manager, compute, network, storage": Area.RESOURCE_MANAGER,
    "Azure Stack Hub": Area.HUB,
}
LISTS: dict[Area, tuple[Any, ...]] = {
    Area.SITE_RECOVERY: siterecovery.ITEMS,
    Area.RESOURCE_MANAGER: resources.ITEMS,
    Area.HUB: hub.ITEMS,
}
POINT = re.compile(r"- \*\*(.+?)\*\*")
ADD = "a point of docs/azure-unverified.md needs an item of this name in operator/farshore_cli/live, and the reverse"


def chapters() -> Iterator[tuple[Area, list[str]]]:
    for chapter in PAGE.read_text().split("\n## ")[1:]:
        title, _, text = chapter.partition("\n")
        yield CHAPTERS[title], text.splitlines()


def test_the_docs_and_the_command_have_the_same_points() -> None:
    for area, lines in chapters():
        named = [found[1] for line in lines if (found := POINT.match(line))]
        nameless = [line for line in lines if line.startswith("- ") and not POINT.match(line)]
        assert nameless == [], "a point begins with its name: - **Name**: ..."
        named = (["States"] if "### States" in lines else []) + named
        assert sorted(named) == sorted(one.name for one in LISTS[area]), f"{area}: {ADD}"
        assert all((one.probe is None) == bool(one.why) for one in LISTS[area])


def test_the_table_of_states_is_the_commands() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    words = {re.findall(r"`(\w+)`", row.split("|")[1])[0] for row in rows}
    assert words == set(siterecovery.STATES)
    allowed = {word for row in rows for word in re.findall(r"[A-Z]\w+", row.split("|")[4])} - {"Protected"}
    known = {word for _, words in siterecovery.STATES.values() for word in words}
    assert allowed - {"RepairReplication", "TestFailoverCleanup"} <= known


class Subscription:
    """A site in the simulator whose principal may only read, as a Reader of the whole subscription."""

    def __init__(self, sim: AzureSim) -> None:
        self.sim, self.cluster = sim, PlayedCluster()
        reader = sim.principal("11111111-2222-3333-4444-555555555555", "reader-secret-never-shown")
        grant_role(sim, reader, "Reader", f"/subscriptions/{sim.subscription}")
        self.cluster.secret("azure", tenantId=sim.tenant, clientId=reader.client_id, clientSecret=reader.secret)
        self.azure = {
            "subscription": sim.subscription, "resourceGroup": "rg", "region": sim.region,
            "credentialsSecretRef": {"name": "azure"}, "resourceManagerEndpoint": sim.endpoint,
            "authorityHost": sim.authority, "caBundle": sim.ca_bundle.read_text(),
        }  # fmt: skip

    def read(self) -> dict[str, Line]:
        meta = {"name": "shore", "namespace": NAMESPACE}
        site = Site.of({"metadata": meta, "spec": {"provider": "azure", "azure": self.azure}})
        return named(places.site_lines(site, self.cluster.where))


def named(lines: tuple[Line, ...]) -> dict[str, Line]:
    assert "secret" not in " ".join(one.answer.seen for one in lines).replace("with its secret", "")
    return {one.name: one for one in lines}


def told(lines: dict[str, Line], verdict: Told) -> set[str]:
    return {name for name, one in lines.items() if one.answer.told is verdict}


@pytest.fixture
def subscription(sim: AzureSim) -> Subscription:
    return Subscription(sim)


def only_read(sim: AzureSim) -> None:
    asked = [one for one in sim.calls if one.plane == "arm"]
    assert asked and {one.method for one in asked} <= {"GET", "HEAD"}, {(one.method, one.path) for one in asked}
    assert not [one for one in sim.calls if one.plane == "data"]


def test_an_empty_subscription_tells_what_needs_no_resources(sim: AzureSim, subscription: Subscription) -> None:
    sim.calls.clear()
    lines = subscription.read()
    assert [*lines] == [one.name for one in resources.ITEMS]
    assert told(lines, Told.CONTRADICTED) == set(), lines
    assert {"Versions", "Rights"} <= told(lines, Told.CONFIRMED), lines
    only_read(sim)


def test_what_is_there_confirms_points(sim: AzureSim, subscription: Subscription) -> None:
    vnet = next(iter(sim.store.of("Microsoft.Network/virtualNetworks"))).id
    sim.seed("PUT", seeds.subnet_id(vnet, "AzureBastionSubnet"), {"properties": {"addressPrefix": "127.55.9.0/26"}})
    seeds.bastion(sim, "rg", "jump", vnet)
    seeds.disk(sim, "rg", "uploaded", bytes(20 << 20))
    nic = seeds.nic(sim, "rg", "nic", seeds.subnet_id(vnet, "machines"))
    machine = seeds.machine(sim, "rg", "off", seeds.disk(sim, "rg", "os", os_type="Linux"), [nic], running=False)
    sim.calls.clear()
    lines = subscription.read()
    assert {"Uploads", "Ways in", "Quota"} <= told(lines, Told.CONFIRMED), lines
    assert "those not deallocated 0" in lines["Quota"].answer.seen
    only_read(sim)
    sim.store.need(machine).body["properties"]["provisioningState"] = "Failed"
    assert "A creation that failed" in told(subscription.read(), Told.CONFIRMED)


def test_what_is_otherwise_is_said(sim: AzureSim, subscription: Subscription, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds.disk(sim, "rg", "uploaded", bytes(20 << 20))
    sim.parts["compute"].disk("uploaded", "rg").properties["creationData"]["uploadSizeBytes"] = 20_971_600
    lines = subscription.read()
    assert told(lines, Told.CONTRADICTED) == {"Uploads"} and "20971600 bytes" in lines["Uploads"].answer.seen
    unknown = (400, "NoRegisteredProviderFound", "unknown")
    sim.faults.refuse("GET", "*/providers/Microsoft.Compute/disks", *unknown, times=100)
    lines = subscription.read()
    assert told(lines, Told.CONTRADICTED) == set() and "Uploads" in told(lines, Told.CANNOT_TELL)
    sim.faults.clear()
    monkeypatch.setattr("farshore_cli.live.places.current", lambda _: subscription.cluster.where)
    subscription.cluster.add("Site", "shore", {"provider": "azure", "azure": subscription.azure})
    for words in (["--live", "shore"], ["site", "shore", "--live"]):
        answer = CliRunner().invoke(build(), ["doctor", *words], env={"COLUMNS": "200"})
        assert answer.exit_code == 1 and "CONTRADICTED" in answer.output and "is wrong there" in answer.output
    answer = CliRunner().invoke(build(), ["doctor", "--live", "shore", "-o", "json"])
    found = json.loads(answer.output)
    assert {"area", "item", "told", "seen"} == set(found[0]) and "reader-secret" not in answer.output


def test_a_login_that_is_refused_is_no_list(subscription: Subscription) -> None:
    subscription.cluster.objects["Secret"].clear()
    subscription.cluster.secret("azure", tenantId=subscription.sim.tenant, clientId="nobody", clientSecret="wrong")
    with pytest.raises(StopFault, match="login to Azure was refused"):
        subscription.read()


def vault_lines(cloud: Cloud) -> dict[str, Line]:
    login, cluster = cloud.sim.credential(), PlayedCluster()
    cluster.secret("azure", tenantId=login.tenant_id, clientId=login.client_id, clientSecret=login.client_secret)
    spec = {
        "engine": "siteRecovery",
        "azure": {
            "subscription": cloud.sim.subscription, "resourceGroup": GROUP, "vaultName": VAULT,
            "credentialsSecretRef": {"name": "azure"}, "resourceManagerEndpoint": cloud.sim.endpoint,
            "authorityHost": cloud.sim.authority, "caBundle": cloud.sim.ca_bundle.read_text(),
        },
    }  # fmt: skip
    vault = RecoveryVault.of({"metadata": {"name": "asr", "namespace": NAMESPACE}, "spec": spec})
    return named(places.vault_lines(vault, cluster.where))


def test_a_vault_that_protects_machines_is_compared_with_the_list(cloud: Cloud) -> None:
    vault = cloud.sr.vault(GROUP, VAULT, classic=True)
    server = cloud.sr.unified_setup(vault, "cs1")
    target = Target(cloud.group_id, cloud.network_id, "default", vm_name="web", log_storage={"": cloud.storage_id})
    item = protected(cloud.sr, vault, server, cloud.machine("web1"), target, policy="24-hours", name="item-web1")
    cloud.sr.advance(minutes=30)
    cloud.sim.calls.clear()
    lines = vault_lines(cloud)
    assert told(lines, Told.CONTRADICTED) == set(), lines
    assert {"States", "Discovery", "Replication"} <= told(lines, Told.CONFIRMED), lines
    only_read(cloud.sim)
    cloud.sr.lose_heartbeat(server, ago=timedelta(hours=2))
    assert "Registration" in told(vault_lines(cloud), Told.CONFIRMED)
    assert item is not None


def test_an_empty_vault_tells_nothing_and_contradicts_nothing(cloud: Cloud) -> None:
    cloud.sr.vault(GROUP, VAULT)
    lines = vault_lines(cloud)
    assert told(lines, Told.CANNOT_TELL) == {one.name for one in siterecovery.ITEMS}
    only_read(cloud.sim)


def test_a_vault_that_is_not_there(cloud: Cloud) -> None:
    with pytest.raises(StopFault, match="no Recovery Services vault"):
        vault_lines(cloud)


def test_what_has_nothing_inferred_is_refused(sim: AzureSim) -> None:
    local = Site.of({"metadata": {"name": "home", "namespace": NAMESPACE}, "spec": {"provider": "local"}})
    with pytest.raises(StopFault, match="nothing is inferred"):
        places.site_lines(local, PlayedCluster().where)
    answer = CliRunner().invoke(build(), ["doctor", "--live"])
    assert answer.exit_code == 1 and isinstance(answer.exception, StopFault)
