"""`farshore doctor plan`: machines that pass one by one may fail together, and all of it is said while home is away."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.azure.doctor.planned import Planned
from tests.azure.doctor.played import by_name, errors, named
from tests.azuresim import AzureSim, seeds
from typer.testing import CliRunner

from farshore_cli.main import build
from farshore_engine.azure.place import Place
from farshore_engine.azure.sizes import Needs, Size
from farshore_engine.azure.together import Member, share
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.replication import CheckResult
from farshore_engine.contract.site import CloudProvider, CloudSite, CloudTarget


@pytest.fixture
def planned(sim: AzureSim, tmp_path: Path) -> Planned:
    return Planned(sim, tmp_path)


def test_a_plan_in_order_has_one_line_for_each_machine_and_its_site_once(planned: Planned, sim: AzureSim) -> None:
    for name in ("web-01", "web-02", "db"):
        planned.machine(name)
    planned.plan(["web-01", "web-02", "db"])
    found = planned.checks()
    assert errors(found) == set() and named(found, CheckResult.WARNING) == set(), found
    names = [one.name for one in found]
    assert len(names) == len(set(names))
    assert {"db/FailoverReady", "web-01/FailoverReady", "shore/Subscription", "ps-shore/Room"} <= set(names)
    assert "6 cores of" in by_name(found)["shore/QuotaTogether"].message
    assert {one.method for one in sim.calls if one.plane == "arm"} == {"GET"}


def test_ten_machines_pass_one_by_one_and_fail_together(planned: Planned, sim: AzureSim) -> None:
    names = [f"m-{number}" for number in range(10)]
    for name in names:
        planned.machine(name)
    planned.plan(names)
    sim.parts["compute"].limits["cores"] = 15
    found = planned.checks()
    assert errors(found) == {"shore/QuotaTogether"}
    told = by_name(found)["shore/QuotaTogether"]
    assert "m-7" in told.message and "m-9" in told.message and "m-6 " not in told.message
    assert "1 left of cores" in told.message and "quota raised" in told.remedy


def test_a_subnet_with_room_for_each_and_not_for_all(planned: Planned, sim: AzureSim) -> None:
    seeds.vnet(sim, "rg", "tiny", "10.9.0.0/24", {"one": "10.9.0.0/29"})
    names = [f"m-{number}" for number in range(4)]
    for name in names:
        planned.machine(name)
    planned.plan(names, network="tiny")
    found = planned.checks()
    assert errors(found) == {"shore/AddressesTogether"}
    assert "tiny/one has 3 for 4" in by_name(found)["shore/AddressesTogether"].message


def wants_the_same_address(planned: Planned) -> None:
    planned.machine("web-02", privateIP="127.55.0.9")
    planned.plan(["web-01", "web-02"])


def wants_the_same_name(planned: Planned) -> None:
    planned.machine("web-02", name="Web-01")
    planned.plan(["web-01", "web-02"])


def is_not_there(planned: Planned) -> None:
    planned.plan(["web-01", "web-09"])


def has_no_recovery_server(planned: Planned) -> None:
    planned.server("ps-shore", "shore", ready=False)
    planned.plan(["web-01"])


def has_a_hook_without_its_secret(planned: Planned) -> None:
    hook = {"name": "dns", "http": {"url": "https://127.0.0.1/x", "headersSecretRef": {"name": "token"}}}
    planned.plan(["web-01"], hooks={"before": [hook]})


def has_a_hook_with_an_account_of_others(planned: Planned) -> None:
    account = {"metadata": {"name": "admin", "namespace": "shop"}}
    planned.cluster.objects["ServiceAccount"] = [account]
    hook = {"name": "move", "job": {"image": "x", "serviceAccountName": "admin"}}
    planned.plan(["web-01"], hooks={"after": [hook]})


def stands_wrong(planned: Planned) -> None:
    planned.plan(["web-01"], status={"phase": "Mismatch", "nextStep": "Set activeSite to source"})


def has_a_wrong_login(planned: Planned) -> None:
    planned.cluster.objects["Secret"][:] = [
        one for one in planned.cluster.objects["Secret"] if one["metadata"]["name"] != "azure"
    ]
    planned.plan(["web-01"])


def wants_the_source_that_is_down(planned: Planned) -> None:
    planned.server("ps-stack", "stack", ready=False)
    planned.plan(["web-01"], shutdownSource="Required")


@pytest.mark.parametrize(
    ("spoil", "wrong"),
    [
        pytest.param(wants_the_same_address, {"PrivateAddresses"}, id="address of another member"),
        pytest.param(wants_the_same_name, {"Names"}, id="name of another member"),
        pytest.param(is_not_there, {"Members"}, id="missing member"),
        pytest.param(has_no_recovery_server, {"web-01/RecoveryProcessServerNotConnected"}, id="no process server"),
        pytest.param(has_a_hook_without_its_secret, {"all-before-dns/Headers"}, id="hook without Secret"),
        pytest.param(has_a_hook_with_an_account_of_others, {"all-after-move/Job"}, id="hook with a foreign account"),
        pytest.param(stands_wrong, {"Standing"}, id="mismatch"),
        pytest.param(has_a_wrong_login, {"shore/Login"}, id="site without login"),
        pytest.param(wants_the_source_that_is_down, {"Source"}, id="source required, and down"),
    ],
)
def test_each_thing_in_the_way_is_named(planned: Planned, spoil: Callable[[Planned], None], wrong: set[str]) -> None:
    planned.machine("web-01", privateIP="127.55.0.9")
    spoil(planned)
    assert errors(planned.checks()) == wrong


def test_all_is_said_while_the_primary_site_is_down(planned: Planned) -> None:
    planned.machine("web-01")
    planned.server("ps-stack", "stack", ready=False)
    planned.plan(["web-01"])
    found = planned.checks()
    assert errors(found) == set() and named(found, CheckResult.WARNING) == {"Source"}
    assert "would be lost" in by_name(found)["Source"].message and by_name(found)["web-01/FailoverReady"]


def test_a_vault_that_cannot_be_read_leaves_the_rest(planned: Planned) -> None:
    planned.machine("web-01", with_point=False)
    planned.machine("web-02")
    planned.plan(["web-01", "web-02"])
    found = planned.checks()
    assert named(found, CheckResult.WARNING) == {"web-01/NewestPoint"} and errors(found) == set()
    assert "farshore doctor vault" in by_name(found)["web-01/NewestPoint"].remedy


def test_disks_that_fit_one_by_one_and_not_together(planned: Planned) -> None:
    planned.server("ps-shore", "shore", recovery={"diskFreeBytes": 150 << 30})
    planned.machine("web-01")
    planned.machine("web-02")
    planned.plan(["web-01", "web-02"])
    found = planned.checks()
    assert named(found, CheckResult.WARNING) == {"ps-shore/Room"}
    assert "200.0 GiB, and ps-shore has 150.0 GiB" in by_name(found)["ps-shore/Room"].message


def test_a_plan_that_is_not_there(planned: Planned) -> None:
    with pytest.raises(StopFault, match="no FailoverPlan shop"):
        planned.checks()


def test_the_command_prints_the_plan(planned: Planned, monkeypatch: pytest.MonkeyPatch) -> None:
    planned.machine("web-01")
    planned.plan(["web-01", "web-09"])
    monkeypatch.setattr("farshore_cli.doctoring.plan.current", lambda _: planned.cluster.where)
    answer = CliRunner().invoke(build(), ["doctor", "plan", "shop"], env={"COLUMNS": "200"})
    assert answer.exit_code == 1, answer.output
    assert "not all machines can fail over together by plan shop" in answer.output
    assert "Create the machines, or correct spec.groups" in answer.output


def size(name: str, family: str, cpus: int) -> Size:
    return Size(name, family, cpus, 8192, 8, frozenset({"V1"}), True, frozenset(), "x64")


SIZES = (size("Standard_D2s_v5", "dv5", 2), size("Standard_D2s_v4", "dv4", 2), size("Standard_E4s_v5", "ev5", 4))


def member(name: str, asked: str = "", needs: Needs | None = Needs(2, 4096)) -> Member:  # noqa: B008
    site = CloudSite(name="s", provider=CloudProvider.AZURE, subscription="s", resource_group="g", region="r")
    return Member(name, Place(site, "g", name, "", name, target=CloudTarget(size=asked)), needs)


@pytest.mark.parametrize(
    ("left", "members", "said"),
    [
        pytest.param({"cores": 4, "dv5": 4}, [member("a"), member("b")], "4 cores of Standard_D2s_v5", id="enough"),
        pytest.param(
            {"cores": 4, "dv5": 2, "dv4": 2}, [member("a"), member("b")],
            "2 cores of Standard_D2s_v4, 2 cores of Standard_D2s_v5", id="the next size takes the rest",
        ),
        pytest.param({"cores": 8, "ev5": 4}, [member("a", "Standard_E4s_v5", None)], "4 cores", id="asked size alone"),
        pytest.param({"cores": 1}, [member("a", "", None)], "no member's size is known", id="nothing known"),
    ],
)  # fmt: skip
def test_quota_is_handed_out_as_the_machines_would_take_it(
    left: dict[str, int], members: list[Member], said: str
) -> None:
    assert said in share(SIZES, left, members)


def test_quota_that_ends_names_who_goes_short() -> None:
    left: dict[str, Any] = {"cores": 3, "dv5": 10, "dv4": 10, "ev5": 10}
    with pytest.raises(StopFault, match=r"nothing is left for b \(Standard_D2s_v5, 2 cores: 1 left of cores\)"):
        share(SIZES, left, [member("a"), member("b")])
