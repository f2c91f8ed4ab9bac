"""The tutorial for two machines in each experience, from an empty resource group to where Site Recovery ends: manifests
in, the operator's own decisions and driver, status out; bytes are compared at each station."""

from __future__ import annotations

from datetime import datetime

import pytest
from tests.azure.conformance.service import Service
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Cloud
from tests.azure.story.servers import Said

from farshore_operator.engines.siterecovery import naming

MACHINES = ("web1", "db1")
ISOLATED = "testvnet"


def register(life: Service, experience: str) -> None:
    """Step 3, which is done beside the machines."""
    vault = next(iter(life.cloud.sr.vaults.values()))
    if experience == "classic":
        life.cloud.sr.unified_setup(vault, "cs1")
        return
    life.appliance = life.cloud.sr.appliance(vault, "appliance1")
    for machine in life.source.values():
        life.cloud.sr.add_to_appliance(life.appliance, machine)


def homes(life: Service) -> dict[str, list[bytes]]:
    return {name: life.content(home=name) for name in MACHINES}


def aways(life: Service, suffix: str = "-dr") -> dict[str, list[bytes]]:
    return {name: life.content(f"{name}{suffix}") for name in MACHINES}


def secrets_of(life: Service) -> list[str]:
    """Every secret that was used: of principals, tokens, signatures in the URLs of operations."""
    sim = life.cloud.sim
    signed = [one.query[key] for one in sim.calls for key in ("s", "c", "h") if len(one.query.get(key, "")) > 40]
    return [*(one.secret for one in sim.tokens.principals.values()), *sim.tokens.given, *signed]


@pytest.mark.parametrize("experience", ["classic", "modernized"])
def test_the_tutorial_from_step_1_to_where_site_recovery_ends(cloud: Cloud, experience: str) -> None:
    if experience == "classic":  # such vaults are not made any more
        cloud.sr.vault(GROUP, VAULT, classic=True)
    said = Said()
    with said.listening():
        life = Service(cloud, *MACHINES, region="westeurope")
        _steps_1_to_5(life, experience)
        old, point = _points(life)
        _drill(life, old)
        _fail_over_and_commit(life, old, point)
        _what_there_is_not(life)
        _disable(life)
    assert said.lines, "logs are listened to"
    everything = "\n".join((*said.lines, *life.told))
    leaks = [one[:4] for one in secrets_of(life) if one and one in everything]
    assert not leaks, leaks
    repeated = [one for one in life.began if life.began.count(one) > 1 and not one.startswith(("TestF", "CleanUp"))]
    assert not repeated, repeated
    assert not life.violations and not cloud.sim.bugs


def _steps_1_to_5(life: Service, experience: str) -> None:
    """The vault is made or found, it waits for its server, then machines are protected."""
    assert life.began == (["CreateVault "] if experience != "classic" else []), "Step 1"
    assert "NoServerRegistered" in life.said("RecoveryVault", "vault"), "Step 3 is asked for"
    assert "VaultNotReady" in life.said("ProtectedVM", "web1")
    register(life, experience)
    life.until_protected()
    assert all(life.ready(name) for name in MACHINES), life.said("ProtectedVM", "web1")
    assert "ServerConnected=True" in life.said("RecoveryVault", "vault")
    enabled = sorted(call for call in life.began if call.startswith("EnableProtection"))
    assert enabled == sorted(f"EnableProtection {naming.item(f'shop.{name}')}" for name in MACHINES), "Step 5"


def _points(life: Service) -> tuple[dict[str, list[bytes]], datetime]:
    """Each machine gets a point with something in it, and writes something that is in none yet."""
    for name in MACHINES:
        life.write(name, f"{name} before")
    life.later()
    old = homes(life)
    last = [life.get("ProtectedVM", name).status.replication.last_point for name in MACHINES]
    for name in MACHINES:
        life.write(name, f"{name} after")
    return old, max(one.time for one in last)


def _drill(life: Service, old: dict[str, list[bytes]]) -> None:
    before, own = life.resources(), homes(life)
    newest = {"recoveryPoint": "LatestProcessed", "planRef": {"name": "plan"}, "notes": "both pages open"}
    life.apply("TestFailover", "drill", newest)
    assert "DrillSucceeded=True" in life.said("TestFailover", "drill"), life.said("TestFailover", "drill")
    assert aways(life, "-dr-test") == old
    nets = [one.body["properties"]["ipConfigurations"][0]["properties"]["subnet"]["id"]
            for one in life.cloud.sim.store.of("Microsoft.Network/networkInterfaces")]  # fmt: skip
    assert len(nets) == 2 and all(ISOLATED in one for one in nets), "isolated"
    assert life.running() == {name: ["home", "drill"] for name in MACHINES} and homes(life) == own
    life.remove("TestFailover", "drill")
    assert life.resources() == before, "nothing is left of a drill"
    assert life.notes() == ["both pages open"] * 2
    assert all(life.ready(name) for name in MACHINES)


def _fail_over_and_commit(life: Service, old: dict[str, list[bytes]], point: datetime) -> None:
    newest = homes(life)
    life.wish(activeSite="recovery")
    assert life.running() == {name: ["away"] for name in MACHINES}, life.said("FailoverPlan", "plan")
    assert aways(life) == newest != old, "Latest takes along what no point had yet"
    assert {life.phase(name) for name in MACHINES} == {"FailedOver"}

    life.wish(changeRecoveryPoint={"run": life.last_run("Failover").metadata.name, "point": point.isoformat()})
    assert aways(life) == old and life.running() == {name: ["away"] for name in MACHINES}
    life.wish(commit=life.last_run("ChangePoint").metadata.name)
    assert {life.phase(name) for name in MACHINES} == {"Committed"}, life.said("FailoverPlan", "plan")
    assert aways(life) == old


def _what_there_is_not(life: Service) -> None:
    """There is no way back: each is refused by its name, and nothing moves."""
    moved, touched = life.last_run("ChangePoint").metadata.name, life.touched()
    life.wish(activeSite="source")
    told = life.said("FailoverPlan", "plan")
    assert life.plan.status.edit.reason == "FailbackNotSupported"
    assert "VHDs" in told and "engine native" in told and "Set activeSite to recovery" in told, told
    life.wish(activeSite="recovery", reprotect=moved)
    told = life.said("FailoverPlan", "plan")
    assert "ReprotectNotSupported" in told and "VHDs" in told and "engine native" in told, told
    assert not life.runs("Reprotect")
    life.wish(reprotect=None)
    assert "VHDs" in str(life.plan.status.next_step) and "Ready=True FailedOver" in life.said("FailoverPlan", "plan")
    assert life.touched() == touched and life.running() == {name: ["away"] for name in MACHINES}


def _disable(life: Service) -> None:
    kept = aways(life)
    for name in MACHINES:
        life.remove("ProtectedVM", name)
        assert name not in {body["metadata"]["name"] for body in life.cache.all("ProtectedVM")}
    assert not [item for vault in life.cloud.sr.vaults.values() for item in vault.items()]
    assert life.in_azure() == ["db1-dr", "web1-dr"] and aways(life) == kept, "the recovered machines stay"
