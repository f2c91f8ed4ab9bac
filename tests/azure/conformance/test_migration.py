"""A machine goes from Site Recovery to the native engine: protected by both for a while, never by neither, moved once.

The instants of its history are those at which the operator or anybody who serves the machine has done something.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.azure.conformance.conftest import ENGINES
from tests.azure.conformance.life import PLAN, Native
from tests.azure.conformance.service import Service
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Cloud
from tests.unit.circle import AWAY, HOME, Circle, Json, registered

OLD, NEW = "web", "web-native"


class Both(Service, Native):
    """Site Recovery's driver and played process servers side by side, and one machine that both protect.

    Attributes:
        gaps: instants at which nothing that protects the machine was ready for a failover, once something was.
        watched: how many instants were looked at.
    """

    def __init__(self, cloud: Cloud, **more: Any) -> None:
        self.gaps: list[str] = []
        self.watched = 0
        super().__init__(cloud, OLD, **more)

    def build(self) -> None:
        super().build()
        for server, site in ((HOME, "stack"), (AWAY, "shore")):
            self._put("ProcessServer", server, {"siteRef": {"name": site}}, registered(self.now))
        self._put("RecoveryVault", "own", {
            "storage": {"directory": {"path": "/v"}}, "encryption": {"keySecretRef": {"name": "k", "key": "k"}},
        })  # fmt: skip

    def protect_natively(self) -> None:
        """Apply a second ProtectedVM of the machine."""
        self.names = (OLD, NEW)
        self.power[NEW] = {HOME: True, AWAY: False}
        self.journals[NEW], self.points[NEW], self.pins[NEW], self.epochs[NEW] = {}, [], set(), 0
        spec = {**self.machine_spec(OLD), "vaultRef": {"name": "own"}}
        source = {**spec["source"], "credentialsSecretRef": {"name": "ssh"}}
        self.apply("ProtectedVM", NEW, {**spec, "source": source})

    def reconcile(self, kind: str, name: str, *, killed: bool = False) -> bool:
        news = super().reconcile(kind, name, killed=killed)
        self._watch(f"after {kind} {name}")
        return news

    def work(self) -> bool:
        played = Circle.work(self)
        driven = Service.work(self)
        if NEW in self.power:  # it is one machine
            self.power[NEW][HOME] = self.source[OLD].powered_on = self.power[NEW][HOME] and self.source[OLD].powered_on
        self._watch("after work")
        return played or driven

    def machines(self) -> list[str]:
        """Where the machine runs, as whichever object."""
        home = ["home"] * self.source[OLD].powered_on
        return [*home, *(name for name in self.in_azure() if "-test" not in name), *["native"] * self._away()]

    def _away(self) -> bool:
        return self.power.get(NEW, {}).get(AWAY, False)

    def _watch(self, when: str) -> None:
        there = [body["metadata"]["name"] for body in self.cache.all("ProtectedVM")]
        ready = [name for name in there if self.get("ProtectedVM", name).status.failover_ready and self.ready(name)]
        if not ready and self.watched:
            self.gaps.append(when)
        self.watched += bool(ready or self.watched)

    def _point(self, machine: str, epoch: int) -> Any:
        self.text[machine, HOME] = self.read(OLD) if self.source[OLD].powered_on else self.text.get((machine, HOME), "")
        return super()._point(machine, epoch)


@pytest.fixture(params=[one for one in ENGINES if one != "native"])
def life(request: pytest.FixtureRequest, cloud: Cloud) -> Iterator[Both]:
    vault = cloud.sr.vault(GROUP, VAULT, classic=request.param == "classic")
    if request.param == "classic":
        cloud.sr.unified_setup(vault, "cs1")
        made = Both(cloud)
    else:
        made = Both(cloud, appliance=cloud.sr.appliance(vault, "appliance1"))
    made.write(OLD, "before")
    made.until_protected()
    yield made
    assert not made.violations, made.violations


def members(*names: str) -> list[Json]:
    return [{"name": "g", "members": [{"name": name} for name in names]}]


def step(life: Both) -> str:
    """What the plan tells a person to do next."""
    return str(life.plan.status.next_step)


def test_a_machine_goes_to_the_native_engine_without_a_gap(life: Both) -> None:
    assert step(life) == "None"
    life.connected.discard(HOME)  # so that the second protection is not ready at once
    life.protect_natively()
    assert f"leave {OLD} in the plan until it is ready" in step(life), step(life)
    life.connected.add(HOME)
    life.settle()
    assert life.phase(NEW) == "Protected" and life.ready(NEW), life.said("ProtectedVM", NEW)
    assert f"{NEW} protects the machine of {OLD} with engine native, and is ready: drill it" in step(life), step(life)

    life.apply("TestFailover", "drill", {"protectedVMRef": {"name": NEW}})
    assert "DrillSucceeded=True" in life.said("TestFailover", "drill"), life.said("TestFailover", "drill")
    life.remove("TestFailover", "drill")
    life.wish(groups=members(NEW))
    life.change("ProtectedVM", OLD, deletionPolicy="Retain")  # as imported machines have it
    assert f"give deletionPolicy Disable to, then delete ProtectedVM {OLD}" in step(life), step(life)
    life.change("ProtectedVM", OLD, deletionPolicy="Disable")
    assert f"{NEW} is ready: delete ProtectedVM {OLD}" in step(life), step(life)
    life.remove("ProtectedVM", OLD)
    assert step(life) == "None" and "Ready=True Idle" in life.said("FailoverPlan", PLAN)
    assert not [item for vault in life.cloud.sr.vaults.values() for item in vault.items()], "its protection is disabled"
    assert life.machines() == ["home"]

    life.write(OLD, "after")
    assert not life.gaps and life.watched > 50, life.gaps
    life.wish(activeSite="recovery", mode="planned")
    assert life.machines() == ["native"], life.said("FailoverPlan", PLAN)
    assert life.text[NEW, AWAY] == "after"


def test_a_disaster_in_the_middle_makes_one_machine_only(life: Both) -> None:
    life.protect_natively()
    life.wish(groups=members(OLD, NEW))
    life.wish(activeSite="recovery")
    assert life.plan.status.edit.reason == "SameMachineTwice" and life.machines() == ["home"]
    assert "leave one of them out" in life.said("FailoverPlan", PLAN)
    life.wish(activeSite="source", groups=members(OLD))
    life._put("FailoverPlan", "other", {**life.plan_spec, "groups": members(NEW)})
    life.settle()

    life.edit(activeSite="recovery")
    life.waiting("SelectPoint")
    life.change("FailoverPlan", "other", activeSite="recovery")
    assert life.machines() == [f"{OLD}-dr"], life.said("FailoverPlan", PLAN)
    edit = life.get("FailoverPlan", "other").status.edit
    assert not edit.accepted and edit.reason == "MovedAsAnother" and OLD in edit.message, edit
    assert not life.ready(NEW) and "MovedAsAnother" in life.said("ProtectedVM", NEW)


def test_two_plans_at_the_same_instant_make_one_machine_at_most(life: Both) -> None:
    life.protect_natively()
    life._put("FailoverPlan", "other", {**life.plan_spec, "groups": members(NEW)})
    life.settle()
    other = life.body("FailoverPlan", "other")
    life.edit(activeSite="recovery")
    wanted = {**other, "spec": {**other["spec"], "activeSite": "recovery"}}
    wanted["metadata"] = {**other["metadata"], "generation": 2}
    life._write("FailoverPlan", wanted)
    life.settle()
    assert len(life.machines()) == 1, life.machines()
    assert any("MovedAsAnother" in life.run_told(run) for run in life.runs()) or len(life.runs()) == 1
