"""The other steps at a Hub: the last point, the guest's settings, and what the machine answers."""

from __future__ import annotations

import secrets
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.azure.hub.conftest import GROUP
from tests.azure.hub.failback_world import Vault, World, make_vault
from tests.azuresim import AzureSim
from tests.azuresim.compute.state import compute
from tests.azuresim.hub import hub

from farshore_engine.azurestack.mastertarget import own_addresses
from farshore_engine.azurestack.tasks import finalpoint
from farshore_engine.contract.faults import WaitFault
from farshore_engine.contract.tasks import ProbeKind, ProbeSpec, TaskFailed, TaskKind, TaskResult


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Vault:
    return make_vault(tmp_path_factory.mktemp("vault") / "v")


@pytest.fixture
def world(vault: Vault, tmp_path: Path) -> Iterator[World]:
    with hub() as sim:
        made = World.made(sim, vault, tmp_path / "state")
        made.seed()
        yield made


def run_state(sim: AzureSim, state: str) -> None:
    compute(sim).power[compute(sim).machine("shop").id.lower()] = state


@pytest.mark.parametrize("state", ["running", "stopped"], ids=["it hangs frozen", "its agent cut the power"])
def test_the_hub_confirms_that_the_machine_of_the_last_point_is_off(
    state: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = TaskResult(point=world.vault.point, confirmed=True, evidence="nothing answers")
    monkeypatch.setattr(finalpoint, "by_silence", lambda task, context: done)
    run_state(world.sim, state)
    result = world.step(TaskKind.FINAL_POINT)
    assert result.evidence == "nothing answers; the Hub says that shop is stopped"
    offs = [one.query for one in world.sim.calls if one.path.endswith("/powerOff")]
    assert [one.get("skipShutdown") for one in offs] == (["true"] if state == "running" else [])


def test_a_hub_that_is_away_does_not_take_the_last_point_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    done = TaskResult(point=world.vault.point, confirmed=True, evidence="nothing answers")
    monkeypatch.setattr(finalpoint, "by_silence", lambda task, context: done)
    world.sim.faults.lose_request("*", "*", times=99)
    result = world.step(TaskKind.FINAL_POINT)
    assert result.confirmed and "could not be asked" in result.evidence


def test_a_machine_is_asked_itself_when_its_hub_is_away(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    class Installer:
        def shutdown(self, source: Any, asked: Any) -> bool:
            asked()
            told.append(source.address)
            return True

    class Nobody:
        def knows(self, name: str) -> bool:
            return False

    context = world.context
    nobody: Any = Nobody()
    monkeypatch.setattr(world, "context", lambda: replace(context(), installer=Installer(), runtime=nobody))
    world.sim.faults.lose_request("*", "*", times=99)
    assert world.step(TaskKind.SHUTDOWN_SOURCE).confirmed
    assert told == ["10.1.0.4"]


def test_a_machine_that_is_taken_apart_is_off(world: World) -> None:
    world.step(TaskKind.WRITE_BACK)
    result = world.step(TaskKind.SHUTDOWN_SOURCE)
    assert result.confirmed and "taken apart" in result.evidence


@pytest.fixture
def address(world: World) -> Iterator[tuple[str, int]]:
    """The machine's address is one of loopback, where something greets like an SSH server."""
    found = f"127.{secrets.randbelow(200) + 20}.{secrets.randbelow(200) + 20}.9"
    path = f"/subscriptions/{world.sim.subscription}/resourceGroups/{GROUP}/providers/Microsoft.Network"
    nic = world.sim.store.need(f"{path}/networkInterfaces/shop-nic")
    nic.properties["ipConfigurations"][0]["properties"]["privateIPAddress"] = found
    with socket.create_server((found, 22)):
        yield found, 22


def test_a_probe_asks_the_machine_at_its_private_address(world: World, address: tuple[str, int]) -> None:
    probe = ProbeSpec(name="ssh-port", kind=ProbeKind.TCP, port=22, timeout_seconds=60)
    result = world.step(TaskKind.PROBE_MACHINE, probes=(probe,))
    assert result.address == address[0] and [one.passed for one in result.probes] == [True]
    closed = ProbeSpec(name="closed", kind=ProbeKind.TCP, port=1, timeout_seconds=1)
    with pytest.raises(TaskFailed, match="1 of 2 probes of shop failed"):
        world.step(TaskKind.PROBE_MACHINE, probes=(probe, closed))


def test_nothing_that_answers_is_waited_for_and_told(world: World) -> None:
    path = f"/subscriptions/{world.sim.subscription}/resourceGroups/{GROUP}/providers/Microsoft.Network"
    nic = world.sim.store.need(f"{path}/networkInterfaces/shop-nic")
    nic.properties["ipConfigurations"][0]["properties"]["privateIPAddress"] = "127.0.0.77"
    with pytest.raises(WaitFault) as found:
        world.step(TaskKind.PROBE_MACHINE, probe_timeout_seconds=0)
    assert found.value.reason == "NoAnswer" and "boot diagnostics" in found.value.remedy


def test_a_machine_that_is_there_is_not_prepared(world: World) -> None:
    assert "left alone" in world.step(TaskKind.PREPARE_GUEST).evidence


def test_the_disks_of_a_machine_that_is_taken_apart_are_prepared_where_they_are_attached(world: World) -> None:
    world.step(TaskKind.WRITE_BACK)
    attached = len(compute(world.sim).attached(compute(world.sim).machine("ps")))
    result = world.step(TaskKind.PREPARE_GUEST)
    assert result.point is not None and result.changes == (), "these disks hold no system"
    assert len(compute(world.sim).attached(compute(world.sim).machine("ps"))) == attached
    world.step(TaskKind.START_SOURCE)
    world.check_home()


def test_this_hosts_addresses_are_those_that_ip_shows() -> None:
    def shown() -> str:
        return subprocess.run(["ip", "address"], capture_output=True, text=True, check=True).stdout

    def looked() -> bool:
        before, own, after = shown(), own_addresses(), shown()
        return bool(own) and all(f"inet {one}/" in before + after for one in own)

    assert any(looked() for _ in range(20)), "another suite makes and removes networks meanwhile"
