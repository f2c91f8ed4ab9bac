"""Engine siteRecovery as its users see it: manifests in, the operator drives a simulated Azure, bytes compared."""

from __future__ import annotations

import random
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from azure.identity import ClientSecretCredential
from azure.mgmt.compute import ComputeManagementClient
from tests.azuresim import AzureSim, seeds
from tests.azuresim.siterecovery import SiteRecovery, SourceMachine, Target, protected, siterecovery
from tests.cluster.chart_world import SYSTEM
from tests.cluster.operator_process import Installation, Manifest, condition, message
from tests.cluster.waiting import eventually

from farshore_cli.dev.workload import workload
from farshore_operator.api import FailoverPlan, FailoverRun, ProtectedVM, RecoveryVault, TestFailover
from farshore_operator.api.failoverrun import RunPhase
from farshore_operator.api.protectedvm import ProtectionPhase

GROUP, VAULT = "contosoRG", "ContosoVMVault"


class Quick(Installation):
    """The product with a driver that looks every half a second."""

    def start_operator(self) -> None:
        swap = {"--health-port=8080": "--health-port=0"}
        found = workload(self.plane, SYSTEM, "farshore-operator", self.directory, replace=swap)
        self._operator = replace(found, command=(*found.command, "--azure-interval=0.5")).start()


@dataclass
class Cloud:
    sim: AzureSim
    sr: SiteRecovery
    folder: Path
    network: str
    storage: str

    def machine(self, name: str, ip: str) -> SourceMachine:
        path = self.folder / f"{name}.img"
        path.write_bytes(random.Random(name).randbytes(300_000) + bytes(1_700_000))
        return self.sr.world.machine(name, ip, [path])

    def vm_bytes(self, name: str, length: int) -> bytes:
        from tests.azuresim.compute.state import compute

        found = compute(self.sim)
        path = found.files.path(found.attached(found.machine(name))[0][1])
        with path.open("rb") as file:
            return file.read(length)

    def plans(self) -> list[str]:
        return sorted(plan.name for vault in self.sr.vaults.values() for plan in vault.plans.values())

    def vm_names(self) -> list[str]:
        given = self.sim.credential()
        credential = ClientSecretCredential(
            given.tenant_id, given.client_id, given.client_secret, authority=given.authority,
            disable_instance_discovery=True, connection_verify=str(self.sim.ca_bundle),
        )  # fmt: skip
        client = ComputeManagementClient(credential, self.sim.subscription, **self.sim.client_options())
        return sorted(str(one.name) for one in client.virtual_machines.list(GROUP))


@pytest.fixture
def cloud(tmp_path: Path) -> Iterator[Cloud]:
    with AzureSim() as sim:
        sr = siterecovery(sim)
        sim.group(GROUP)
        network = seeds.vnet(sim, GROUP, "vnet", "10.9.0.0/16", {"default": "10.9.0.0/24"})
        seeds.vnet(sim, GROUP, "testvnet", "10.9.0.0/16", {"default": "10.9.0.0/24"})
        account = sim.seed(
            "PUT",
            f"/subscriptions/{sim.subscription}/resourceGroups/{GROUP}/providers/Microsoft.Storage/storageAccounts/logs",
            {"location": "westeurope", "sku": {"name": "Standard_LRS"}, "kind": "StorageV2"},
        )
        vault = sr.vault(GROUP, VAULT, classic=True)
        sr.unified_setup(vault, "cs1")
        path = f"/subscriptions/{sim.subscription}/resourceGroups/{GROUP}/providers/Microsoft.Storage/storageAccounts/"
        assert account is not None
        yield Cloud(sim, sr, tmp_path, str(network), f"{path}logs")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Quick(tmp_path_factory.mktemp("siterecovery")) as up:
        yield up


def _made(kind: str, name: str, spec: dict[str, Any]) -> Manifest:
    return {"apiVersion": "farshore.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def _ground(cloud: Cloud) -> list[Manifest]:
    given = cloud.sim.credential()
    where = {
        "subscription": cloud.sim.subscription, "resourceGroup": GROUP,
        "resourceManagerEndpoint": cloud.sim.endpoint, "authorityHost": given.authority,
        "caBundle": Path(cloud.sim.ca_bundle).read_text(), "credentialsSecretRef": {"name": "asr-login"},
    }  # fmt: skip
    login = {"tenantId": given.tenant_id, "clientId": given.client_id, "clientSecret": given.client_secret}
    defaults = {"network": "vnet", "subnet": "default", "size": "Standard_D2s_v3", "diskType": "Standard_LRS"}
    return [
        {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "asr-login"}, "stringData": login},
        _made("RecoveryVault", "asr", {
            "engine": "siteRecovery", "azure": {**where, "vaultName": VAULT, "cacheStorageAccount": cloud.storage},
        }),
        _made("Site", "stack", {"provider": "local"}),
        _made("Site", "azure", {
            "provider": "azure", "azure": {**where, "region": "westeurope"}, "drillNetwork": "testvnet",
            "defaults": defaults,
        }),
        _made("ReplicationPolicy", "gold", {"appConsistentInterval": "1h"}),
    ]  # fmt: skip


def _machine(name: str, ip: str, **more: Any) -> Manifest:
    spec = {
        "source": {"siteRef": {"name": "stack"}, "address": ip}, "policyRef": {"name": "gold"},
        "vaultRef": {"name": "asr"}, "target": {"siteRef": {"name": "azure"}, "name": f"{name}-dr"}, **more,
    }  # fmt: skip
    return _made("ProtectedVM", name, spec)


def test_two_machines_are_protected_drilled_failed_over_and_committed(world: Installation, cloud: Cloud) -> None:
    namespace = world.namespace(f"asr-{secrets.token_hex(3)}")
    machines = {name: cloud.machine(name, ip) for name, ip in (("web1", "10.0.0.11"), ("db1", "10.0.0.12"))}
    world.apply(namespace, *_ground(cloud), *(_machine(name, one.ip) for name, one in machines.items()))
    for name in machines:
        vm = world.wait(ProtectedVM, namespace, name, lambda vm: vm.status.phase is ProtectionPhase.PROTECTED)
        assert condition(vm, "ReplicationHealthy") == "True" and condition(vm, "Ready") == "True", message(vm)
        world.wait(
            ProtectedVM, namespace, name,
            lambda vm: vm.status.failover_ready is not None and vm.status.failover_ready.verdict.value == "Ready",
        )  # fmt: skip
    vault = world.wait(RecoveryVault, namespace, "asr", lambda vault: condition(vault, "Ready") == "True")
    assert condition(vault, "ServerConnected") == "True"

    world.apply(namespace, _made("TestFailover", "drill", {"protectedVMRef": {"name": "web1"}, "notes": "looks good"}))
    drill = world.wait(TestFailover, namespace, "drill", lambda one: condition(one, "Ready") == "True")
    assert cloud.vm_names() == ["web1-dr-test"]
    world.admin.delete(_resource("TestFailover"), namespace, "drill")
    world.wait_gone(TestFailover, namespace, "drill")
    run = world.wait(FailoverRun, namespace, str(drill.status.run), lambda r: r.status.phase is RunPhase.CLEANED_UP)
    assert run.status.phase is RunPhase.CLEANED_UP and cloud.vm_names() == []

    plan = {"groups": [{"name": "all", "members": [{"name": "web1"}, {"name": "db1"}]}], "mode": "planned"}
    world.apply(namespace, _made("FailoverPlan", "shop", plan))
    world.wait(FailoverPlan, namespace, "shop", lambda one: condition(one, "Ready") == "True")
    shop = world.wait(FailoverPlan, namespace, "shop", lambda one: condition(one, "RecoveryPlanInPlace") == "True")
    assert shop.status.site_recovery is not None and cloud.plans() == [shop.status.site_recovery.name]
    world.apply(namespace, _made("FailoverPlan", "shop", {**plan, "mode": "unplanned", "activeSite": "recovery"}))
    for name, machine in machines.items():
        world.wait(ProtectedVM, namespace, name, lambda vm: vm.status.phase is ProtectionPhase.FAILED_OVER)
        assert not machine.powered_on
        assert cloud.vm_bytes(f"{name}-dr", 300_000) == machine.disks[0].path.read_bytes()[:300_000]
    moved = world.get(ProtectedVM, namespace, "web1")
    assert moved.status.standing is not None
    committed = {**plan, "mode": "unplanned", "activeSite": "recovery", "commit": moved.status.standing.run}
    world.apply(namespace, _made("FailoverPlan", "shop", committed))
    for name in machines:
        world.wait(ProtectedVM, namespace, name, lambda vm: vm.status.phase is ProtectionPhase.COMMITTED)
    world.check_invariants(namespace)
    assert cloud.vm_names() == ["db1-dr", "web1-dr"]
    # A vault that is to have no recovery plans loses ours, and the FailoverPlan tells of none.
    ground = _ground(cloud)
    ground[1]["spec"]["azure"]["siteRecovery"] = {"recoveryPlans": False}
    world.apply(namespace, ground[1])
    world.wait(FailoverPlan, namespace, "shop", lambda one: condition(one, "RecoveryPlanInPlace") == "")
    world.wait(RecoveryVault, namespace, "asr", _without_plans)
    assert cloud.plans() == []
    secret = cloud.sim.credential().client_secret
    assert secret not in world.operator_log(100_000)


def _without_plans(vault: RecoveryVault) -> bool:
    return vault.status.site_recovery is not None and not vault.status.site_recovery.plans


def _resource(kind: str) -> Any:
    from farshore_operator.kube.resources import BY_KIND

    return BY_KIND[kind]


def test_a_machine_that_is_protected_already_is_imported_unchanged(world: Installation, cloud: Cloud) -> None:
    namespace = world.namespace(f"asr-{secrets.token_hex(3)}")
    vault = next(iter(cloud.sr.vaults.values()))
    server = next(iter(vault.fabrics.values()))
    group = f"/subscriptions/{cloud.sim.subscription}/resourceGroups/{GROUP}"
    target = Target(group, cloud.network, "default", vm_name="old-dr", log_storage={"": cloud.storage})
    protected(cloud.sr, vault, server, cloud.machine("Old.Server", "10.0.0.21"), target, name="made-by-hand")
    world.apply(namespace, *_ground(cloud))
    world.wait(RecoveryVault, namespace, "asr", lambda vault: condition(vault, "Ready") == "True")
    before = len(cloud.sim.calls)
    words = ("import", "site-recovery", "asr", "--source-site", "stack", "--target-site", "azure", "-n", namespace)
    written = world.farshore(*words).stdout
    world.apply(namespace, *yaml.safe_load_all(written))
    vm = world.wait(ProtectedVM, namespace, "old-server", lambda vm: vm.status.phase is ProtectionPhase.PROTECTED)
    assert vm.spec.target.name == "old-dr" and vm.status.replication is not None
    assert [one.path for one in cloud.sim.calls[before:] if one.method != "GET" and one.plane == "arm"] == []
    assert "means it already" in world.farshore(*words).stderr
    # Its manifest goes, and the protection that somebody else has made stays.
    world.admin.delete(_resource("ProtectedVM"), namespace, "old-server")
    world.wait_gone(ProtectedVM, namespace, "old-server")
    (item,) = [one for container in server.containers.values() for one in container.items.values()]
    assert item.points and not item.busy
    assert [one.path for one in cloud.sim.calls[before:] if one.method != "GET" and one.plane == "arm"] == []


def test_a_machine_moves_to_the_modernized_experience_and_the_manifest_says_where_it_is(
    world: Installation, cloud: Cloud
) -> None:
    namespace = world.namespace(f"asr-{secrets.token_hex(3)}")
    source = cloud.machine("web1", "10.0.0.11")
    appliance = cloud.sr.appliance(cloud.sr.vault(GROUP, "NewVault"), "appliance1")
    ground = _ground(cloud)
    new = {**ground[1]["spec"], "azure": {**ground[1]["spec"]["azure"], "vaultName": "NewVault"}}
    group = {"groups": [{"name": "all", "members": [{"name": "web1"}]}]}
    machine = _machine("web1", source.ip)
    plan = _made("FailoverPlan", "shop", group)
    world.apply(namespace, *ground, _made("RecoveryVault", "asr-new", new), machine, plan)
    world.wait(ProtectedVM, namespace, "web1", lambda vm: vm.status.phase is ProtectionPhase.PROTECTED)
    world.wait(FailoverPlan, namespace, "shop", lambda one: condition(one, "RecoveryPlanInPlace") == "True")
    source.agent_version = "9.45.1.1"
    machine["spec"]["switchTo"] = {"name": "asr-new"}
    world.apply(namespace, machine)
    vm = world.wait(ProtectedVM, namespace, "web1", lambda vm: "older than 9.50" in message(vm, "Switched"))
    assert vm.status.phase is ProtectionPhase.PROTECTED and condition(vm, "Ready") == "True", message(vm)
    source.agent_version = "9.63.1.1"
    vm = world.wait(ProtectedVM, namespace, "web1", lambda vm: condition(vm, "Switched") == "True", 150)
    assert vm.status.phase is ProtectionPhase.PROTECTED
    assert vm.status.assignment is not None and vm.status.assignment.process_server == "siterecovery-asr-new"
    (item,) = [one for container in appliance.containers.values() for one in container.items.values()]
    assert [one.method for one in cloud.sim.calls if one.path.endswith("/switchProvider")] == ["POST"]
    items = [one for one in cloud.sim.calls if "/replicationProtectedItems/" in one.path]
    assert [one.method for one in items].count("PUT") == 1, "it is not protected a second time"
    shop = world.wait(
        FailoverPlan, namespace, "shop",
        lambda one: condition(one, "RecoveryPlanInPlace") == "True" and one.status.site_recovery.vault == "asr-new",
    )  # fmt: skip
    assert shop.status.site_recovery is not None and shop.status.site_recovery.machines == ("web1",)
    eventually(
        lambda: [len(vault.plans) for vault in cloud.sr.vaults.values()] == [0, 1], "the old vault keeps its plan"
    )
    assert item.friendly == "web1"
    world.check_invariants(namespace)
