"""The whole circle between two clouds by the operator: from an Azure Stack Hub to Azure and home again, bytes compared.

A person edits the plan and nothing else; process servers of both sites carry out what the operator asks of them.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.azure.story.acts import same
from tests.azure.story.clouds import AZURE_GROUP, HUB_GROUP, NETWORK, Clouds, own_net
from tests.azure.story.conftest import quicken
from tests.azure.story.machines import MIB, Actor, Content, first_content
from tests.azuresim import AzureSim
from tests.azuresim.hub import hub
from tests.cluster.cloud_appliance import CloudAppliance, Copies, Resident
from tests.cluster.moving_scene import registrars
from tests.cluster.operator_process import Installation, Manifest, condition
from tests.cluster.waiting import eventually

from farshore_engine.azure import cloud as cloud_module
from farshore_engine.azurestack.mastertarget import Host
from farshore_engine.azurestack.resourcemanager import ResourceManager
from farshore_engine.azurestack.setting import HubSetting
from farshore_operator.api import FailoverPlan, FailoverRun, ProtectedVM
from farshore_operator.api.failoverrun import RunKind, RunPhase
from farshore_operator.api.planstatus import PlanPhase
from farshore_operator.api.protectedvm import ProtectionPhase
from farshore_operator.kube.resources import FAILOVER_PLAN

VM, PLAN = "web", "shop"


@dataclass(repr=False)
class Circle:
    """One machine at the Hub, protected to Azure, and the plan that moves it."""

    world: Installation
    namespace: str
    clouds: Clouds
    before: list[str]
    """What there is in Azure before the machine comes."""

    @property
    def actor(self) -> Actor:
        return self.clouds.actors[0]

    def edit(self, **spec: Any) -> None:
        self.world.admin.merge(FAILOVER_PLAN, self.namespace, PLAN, {"spec": spec})

    def reach(self, phase: ProtectionPhase) -> ProtectedVM:
        return self.world.wait(ProtectedVM, self.namespace, VM, lambda vm: vm.status.phase is phase)

    def awaiting(self, kind: RunKind) -> str:
        """Wait until the newest run is of this kind and awaits its commit; returns its name."""

        def waits(plan: FailoverPlan) -> bool:
            return plan.status.phase is PlanPhase.AWAITING_COMMIT and plan.status.active_run in self.runs(kind)

        plan = self.world.wait(FailoverPlan, self.namespace, PLAN, waits)
        return str(plan.status.active_run)

    def runs(self, kind: RunKind) -> list[str]:
        found = self.world.all(FailoverRun, self.namespace)
        return [one.metadata.name for one in found if one.spec.kind is kind]

    def write(self, sim: AzureSim, machine: str, text: str) -> None:
        """Let the machine write to each of its disks."""
        self.clouds.write(sim, machine, 7 * MIB, text.encode() * 2000)

    def check(self, *, away: bool, content: Content) -> None:
        """It runs once, where it should, with these bytes."""
        clouds, actor = self.clouds, self.actor
        powers = (clouds.at_azure(actor) == "running", clouds.at_home(actor) == "running")
        assert powers == (away, not away) and not clouds.trouble, (powers, clouds.trouble)
        assert same(clouds.azure_content(actor) if away else clouds.home_content(actor), content)


@pytest.fixture
def clouds(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clouds]:
    quicken(monkeypatch)
    namespace = f"circle-{secrets.token_hex(3)}"
    with own_net() as net, hub() as source, AzureSim() as azure:
        actor = Resident(VM, f"{net}.1.10", f"{net}.0.10", namespace=namespace)
        made = Clouds(source, azure, net, [actor])
        made.seed()
        made.seed_machine(actor, first_content(7))
        try:
            yield made
        finally:
            made.answering.stop_all()
            cloud_module.close_clouds()


@pytest.fixture
def circle(moving_world: Installation, clouds: Clouds, tmp_path: Path) -> Iterator[Circle]:
    world, actor = moving_world, clouds.actors[0]
    assert isinstance(actor, Resident)
    namespace = world.namespace(actor.namespace)
    world.apply(namespace, *_ground(clouds, tmp_path / "vault"))
    setting = HubSetting(
        Host(addresses=lambda: (clouds.server_address,), device=clouds.device, appears=0),
        lambda site: ResourceManager(site, poll_every=0, retry_backoff_factor=0, retry_total=2),
    )
    copies, before = Copies(clouds), clouds.resources()
    with ExitStack() as stack:
        eventually(lambda: registrars(world, namespace) >= {"stack", "shore"}, "no registrars")
        for site, name in (("stack", "ps-hub"), ("shore", "ps-azure")):
            stack.enter_context(CloudAppliance(world, namespace, site, name, tmp_path, copies, setting))
        world.apply(namespace, _machine(actor))
        world.wait(
            ProtectedVM, namespace, VM,
            lambda vm: vm.status.phase is ProtectionPhase.PROTECTED and condition(vm, "FailoverReady") == "True",
        )  # fmt: skip
        yield Circle(world, namespace, clouds, before)
        world.check_invariants(namespace)


def _made(kind: str, name: str, spec: dict[str, Any]) -> Manifest:
    return {"apiVersion": "farshore.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _ground(clouds: Clouds, vault: Path) -> list[Manifest]:
    """Return what is applied before the machine: Secrets, the vault, both sites, the policy."""
    logins, places = [], {}
    for name, sim, group in (("hub", clouds.hub, HUB_GROUP), ("azure", clouds.azure, AZURE_GROUP)):
        given = sim.credential()
        login = {"tenantId": given.tenant_id, "clientId": given.client_id, "clientSecret": given.client_secret}
        logins.append(_secret(f"{name}-login", login))
        places[name] = {
            "subscription": sim.subscription, "resourceGroup": group, "region": sim.region,
            "resourceManagerEndpoint": sim.endpoint, "caBundle": sim.ca_bundle.read_text(),
            "credentialsSecretRef": {"name": f"{name}-login"},
        }  # fmt: skip
    places["azure"]["authorityHost"] = clouds.azure.credential().authority
    encryption = {"keySecretRef": {"name": "vault-key", "key": "key"}}
    return [
        *logins,
        _secret("vault-key", {"key": b64encode(secrets.token_bytes(32)).decode()}),
        _secret("web-ssh", {"username": "root", "password": secrets.token_hex(8)}),
        _made("RecoveryVault", "vault", {"storage": {"directory": {"path": str(vault)}}, "encryption": encryption}),
        _made("Site", "stack", {"provider": "azureStackHub", "azureStackHub": places["hub"]}),
        _made("Site", "shore", {"provider": "azure", "azure": places["azure"], "defaults": {"network": NETWORK}}),
        _made("ReplicationPolicy", "standard", {}),
    ]


def _secret(name: str, values: dict[str, str]) -> Manifest:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": values}


def _machine(actor: Actor) -> Manifest:
    source = {"siteRef": {"name": "stack"}, "address": actor.home, "credentialsSecretRef": {"name": "web-ssh"}}
    interfaces = [{"privateIP": actor.away, "primary": True}, {"subnet": "machines"}]
    target = {"siteRef": {"name": "shore"}, "name": actor.at_azure, "interfaces": interfaces}
    refs = {"policyRef": {"name": "standard"}, "vaultRef": {"name": "vault"}}
    return _made("ProtectedVM", VM, {"source": source, "target": target, **refs})


def _plan(circle: Circle) -> None:
    groups = [{"name": "web", "members": [{"name": VM}]}]
    spec = {"groups": groups, "mode": "planned", "shutdownSource": "Required"}
    circle.world.apply(circle.namespace, _made("FailoverPlan", PLAN, spec))
    circle.world.wait(FailoverPlan, circle.namespace, PLAN, lambda plan: plan.status.edit is not None)


def _stay(circle: Circle, run: str) -> None:
    circle.edit(commit=run)
    circle.reach(ProtectionPhase.COMMITTED)
    circle.edit(reprotect=run)
    circle.reach(ProtectionPhase.PROTECTED_REVERSE)


def test_a_machine_goes_to_azure_by_an_edit_and_comes_home_by_another(circle: Circle) -> None:
    clouds, actor = circle.clouds, circle.actor
    _plan(circle)
    circle.write(clouds.hub, VM, "at home")
    at_home = clouds.home_content(actor)
    circle.edit(activeSite="recovery")
    run = circle.awaiting(RunKind.FAILOVER)
    circle.check(away=True, content=at_home)
    assert len(list(clouds.azure.store.of("Microsoft.Network/networkInterfaces"))) == 2
    _stay(circle, run)
    circle.write(clouds.azure, actor.at_azure, "in Azure")
    in_azure = clouds.azure_content(actor)
    circle.edit(activeSite="source")
    back = circle.awaiting(RunKind.FAILBACK)
    circle.check(away=False, content=in_azure)
    failback = circle.world.get(FailoverRun, circle.namespace, back)
    written = failback.status.members[0].bytes_written or 0
    assert 0 < written < 2 * MIB, "only what differs was written"
    circle.edit(commit=back)
    vm = circle.reach(ProtectionPhase.PROTECTED)
    assert vm.status.recovered is None
    eventually(lambda: clouds.resources() == circle.before, "something is left in Azure")
    circle.check(away=False, content=in_azure)


@pytest.mark.soak
def test_a_failback_that_fails_half_way_is_undone_and_a_second_one_goes_on(circle: Circle) -> None:
    clouds, actor = circle.clouds, circle.actor
    _plan(circle)
    circle.edit(activeSite="recovery")
    _stay(circle, circle.awaiting(RunKind.FAILOVER))
    circle.write(clouds.azure, actor.at_azure, "in Azure")
    clouds.hub.faults.refuse("PATCH", "*/virtualMachines/ps-hub", 403, "AuthorizationFailed", "You may not.")
    circle.edit(activeSite="source")
    eventually(lambda: bool(circle.runs(RunKind.FAILBACK)), "no failback begins")
    (failed,) = circle.runs(RunKind.FAILBACK)
    run = circle.world.wait(FailoverRun, circle.namespace, failed, lambda run: run.status.phase is RunPhase.FAILED)
    assert "taken apart" in (run.status.account or "") and f"set spec.abort to {failed}" in (run.status.account or "")
    clouds.hub.faults.clear()
    circle.edit(abort=failed)
    circle.reach(ProtectionPhase.PROTECTED_REVERSE)
    eventually(lambda: clouds.at_azure(actor) == "running", "it does not run in Azure again")
    assert clouds.at_home(actor) == "" and not clouds.trouble
    (undone,) = circle.runs(RunKind.ABORT)
    told = circle.world.wait(FailoverRun, circle.namespace, undone, lambda run: bool(run.status.account))
    assert "the next failback goes on from there" in (told.status.account or "")
    circle.write(clouds.azure, actor.at_azure, "in Azure, again")
    in_azure = clouds.azure_content(actor)
    circle.edit(activeSite="recovery", abort=None)
    circle.world.wait(FailoverPlan, circle.namespace, PLAN, lambda plan: plan.status.phase is PlanPhase.FAILED_OVER)
    circle.edit(activeSite="source")
    back = circle.awaiting(RunKind.FAILBACK)
    assert back != failed
    circle.check(away=False, content=in_azure)
    circle.edit(commit=back)
    circle.reach(ProtectionPhase.PROTECTED)
    eventually(lambda: clouds.resources() == circle.before, "something is left in Azure")
