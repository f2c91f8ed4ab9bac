"""`farshore doctor site`: what a site at a Hub lacks, all read, nothing changed."""

from __future__ import annotations

import pytest
from tests.azure.doctor.played import PlayedCluster
from tests.azure.hub.conftest import GROUP, add
from tests.azure.hub.test_hub_discovery import Cluster
from tests.azuresim import AzureSim

from farshore_cli.sitedoctor import checks_of
from farshore_engine.azurestack.readiness import NEEDED, check_site
from farshore_engine.azurestack.resourcemanager import ResourceManager
from farshore_engine.contract.replication import CheckResult
from farshore_operator.api import Site


def test_a_site_in_order(sim: AzureSim, manager: ResourceManager, subnet: str) -> None:
    add(sim, subnet, "shop", "10.1.0.4")
    checks = check_site(manager)
    assert {one.result for one in checks} == {CheckResult.PASSED}
    assert [one.name for one in checks] == ["HubLogin", "ResourceGroup", "Permissions", "Machines"]
    assert {one.method for one in sim.calls if one.plane == "arm"} == {"GET"}


def test_a_principal_that_may_only_read_is_told_what_it_lacks(sim: AzureSim, manager: ResourceManager) -> None:
    sim.roles.grants[:] = [one for one in sim.roles.grants if one.client_id != sim.me.client_id]
    sim.grant(sim.me, "*/read")
    check = next(one for one in check_site(manager) if one.name == "Permissions")
    assert check.result is CheckResult.ERROR and "Contributor" in check.remedy
    lacking = [one for one in NEEDED if not one.endswith("/read")]
    assert check.message.endswith(", ".join(lacking))


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [("resource_group", "nowhere", "HubNotFound"), ("subscription", "another", "HubNotFound")],
    ids=["group", "subscription"],
)
def test_wrong_names_are_told(field: str, value: str, name: str, sim: AzureSim, manager: ResourceManager) -> None:
    manager.site = manager.site.model_copy(update={field: value})
    last = check_site(manager)[-1]
    assert (last.name, last.result) == (name, CheckResult.ERROR) and last.remedy


def test_the_command_line_asks_the_hub(sim: AzureSim) -> None:
    cluster = PlayedCluster(Cluster(sim).objects)
    checks = checks_of(Site.of(cluster.objects["Site"][0]), cluster.where)
    told = {one.name: one for one in checks}
    assert all(one.result is CheckResult.PASSED for one in checks) and GROUP in told["ResourceGroup"].message
    assert "is this host" in told["NetworkPath"].message
