"""The control plane of the driver of Site Recovery: what the cache holds as wishes, and its reports.

It implements `engines.siterecovery.wishes.ControlPlane`, with a field manager of its own, so that it owns
`status.replication` of its machines, `status` of its tasks and `status.siteRecovery` of its vaults, and nothing else.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable

from farshore_engine.contract.assignment import Desired, Policy, Retention
from farshore_engine.contract.faults import Fault, StopFault, WaitFault
from farshore_engine.contract.model import Status
from farshore_engine.contract.replication import ReplicationReport
from farshore_engine.contract.site import CloudCredential, CloudTarget
from farshore_engine.contract.siterecovery import RecoveryPlanReport, SiteRecoveryReport
from farshore_engine.contract.tasks import TaskPhase, TaskReport
from farshore_operator.api import FailoverRun, ProtectedVM, RecoveryVault, ReplicationPolicy, Site, Task
from farshore_operator.api.processserver import REFRESH_ANNOTATION
from farshore_operator.api.protectedvm import OSType
from farshore_operator.api.recoveryvault import AzureVault, Engine
from farshore_operator.api.siterecovery import SiteRecoverySettings
from farshore_operator.decide.cloudtarget import cloud_target
from farshore_operator.decide.naming import machine_id
from farshore_operator.decide.uninstall import retains
from farshore_operator.decide.vaultaccess import cloud_login
from farshore_operator.engines.siterecovery import naming
from farshore_operator.engines.siterecovery.settings import VaultSettings
from farshore_operator.engines.siterecovery.target import TargetWish
from farshore_operator.engines.siterecovery.wishes import BrokenWish, MachineWish, Origin, TaskWish, VaultWish
from farshore_operator.kube.appliance.reports import dump
from farshore_operator.kube.cache import Cache
from farshore_operator.kube.client import Client
from farshore_operator.kube.faults import NotFound
from farshore_operator.kube.resources import FAILOVER_PLAN, PROTECTED_VM, RECOVERY_VAULT, SECRET, TASK, Resource
from farshore_operator.kube.siterecoveryplans import plan_wishes

MANAGER = "farshore-siterecovery"
FINISHED = (TaskPhase.SUCCEEDED, TaskPhase.FAILED)
DISK_TYPE = "StandardSSD_LRS"


class Wishes:
    """Reads wishes from the operator's cache, and writes reports with a client of its own field manager.

    Args:
        namespaces: those that the operator serves; empty for all.
    """

    def __init__(self, cache: Cache, client: Client, namespaces: tuple[str, ...] = ()) -> None:
        self._cache = cache
        self._client = client
        self._namespaces = namespaces

    def wishes(self) -> tuple[VaultWish, ...]:
        """Return the vaults of engine siteRecovery with what belongs to them; one whose Secret is missing waits."""
        found: list[VaultWish] = []
        for body in self._cache.all(RecoveryVault.definition.kind):
            vault = RecoveryVault.of(body)
            served = not self._namespaces or vault.metadata.namespace in self._namespaces
            leaving = vault.metadata.deletion_timestamp is not None
            if served and not leaving and vault.spec.engine is Engine.SITE_RECOVERY and vault.spec.azure is not None:
                found += self._vault(vault, vault.spec.azure)
        return tuple(found)

    def report_vault(self, namespace: str, name: str, report: SiteRecoveryReport) -> None:
        """Publish what is known of a vault."""
        self._write(RECOVERY_VAULT, namespace, name, "siteRecovery", report)

    def report_machine(self, namespace: str, name: str, report: ReplicationReport) -> None:
        """Publish the replication report of a machine."""
        self._write(PROTECTED_VM, namespace, name, "replication", report)

    def report_task(self, namespace: str, name: str, report: TaskReport) -> None:
        """Publish a task's report."""
        self._write(TASK, namespace, name, "", report)

    def report_plan(self, namespace: str, name: str, report: RecoveryPlanReport | None) -> None:
        """Publish what is known of a FailoverPlan's recovery plan; None withdraws it."""
        self._write(FAILOVER_PLAN, namespace, name, "siteRecovery", report)

    def _write(self, resource: Resource, namespace: str, name: str, field: str, report: Status | None) -> None:
        status = {field: dump(report)} if field and report is not None else dump(report) if report is not None else {}
        known = self._cache.get(resource.kind, namespace, name)
        if known is None:
            return  # it is gone, and its report with it
        # By its uid: an object that was deleted meanwhile must not be made again by its status.
        target = {"name": name, "namespace": namespace, "uid": known["metadata"]["uid"]}
        try:
            answer = self._client.apply(resource, namespace, {"metadata": target, "status": status}, "status")
        except NotFound:
            return
        self._cache.learn(resource.kind, answer)

    def _vault(self, vault: RecoveryVault, azure: AzureVault) -> Iterable[VaultWish]:
        meta, known = vault.metadata, azure.site_recovery or SiteRecoverySettings()
        report = vault.status.site_recovery or SiteRecoveryReport()
        try:
            credential = credential_of(self._client, meta.namespace, azure)
        except Fault as fault:
            told = report.model_copy(
                update={"reason": fault.reason, "message": fault.message, "remedy": fault.remedy, "waits": True}
            )
            if told != report:
                self.report_vault(meta.namespace, meta.name, told)
            return
        machines, broken = self._machines(vault)
        yield VaultWish(
            namespace=meta.namespace,
            name=meta.name,
            settings=settings_of(azure, credential),
            appliance=known.appliance or "",
            process_server=known.process_server or "",
            linux_account=known.linux_account or "",
            windows_account=known.windows_account or "",
            log_storage=azure.cache_storage_account or "",
            refresh=meta.annotations.get(REFRESH_ANNOTATION, ""),
            machines=machines,
            broken=broken,
            tasks=self._tasks(vault),
            plans=plan_wishes(self._cache, vault, wanted=known.recovery_plans),
            report=report,
        )

    def _machines(self, vault: RecoveryVault) -> tuple[tuple[MachineWish, ...], tuple[BrokenWish, ...]]:
        machines, broken = [], []
        for body in self._cache.all(ProtectedVM.definition.kind, vault.metadata.namespace):
            vm = ProtectedVM.of(body)
            assigned = vm.status.assignment
            ours = assigned is not None and assigned.process_server == naming.driver(vault.metadata.name)
            switch = vm.spec.switch_to.name if vm.spec.switch_to is not None else ""
            if assigned is None or not ours or vault.metadata.name not in (vm.spec.vault_ref.name, switch):
                continue
            report = vm.status.replication
            mine = report if report is not None and naming.is_driver(report.process_server) else None
            try:
                origin = self._origin(vm) if vault.metadata.name == switch else None
                machines.append(self._machine(vm, assigned.epoch, mine, origin))
            except Fault as fault:
                broken.append(BrokenWish(vm.metadata.name, fault, assigned.epoch, mine))
        return tuple(machines), tuple(broken)

    def _origin(self, vm: ProtectedVM) -> Origin:
        """Return the vault that a machine moves from. That it is gone matters only to one that has not moved."""
        name, namespace = vm.spec.vault_ref.name, vm.metadata.namespace
        body = self._cache.get(RecoveryVault.definition.kind, namespace, name)
        azure = RecoveryVault.of(body).spec.azure if body is not None else None
        if azure is None:
            text = f"spec.vaultRef names RecoveryVault {name}, from which the machine moves, and which does not exist"
            return Origin(name, None, StopFault(text, "Create it again", reason="RecoveryVaultNotFound"))
        try:
            return Origin(name, settings_of(azure, credential_of(self._client, namespace, azure)))
        except Fault as fault:
            return Origin(name, None, fault)

    def _machine(
        self, vm: ProtectedVM, epoch: int, report: ReplicationReport | None, origin: Origin | None
    ) -> MachineWish:
        meta, source = vm.metadata, vm.spec.source
        wish = Desired(vm.status.desired or Desired.REPLICATE.value)
        return MachineWish(
            name=meta.name,
            machine_id=machine_id(meta.namespace, meta.name),
            epoch=epoch,
            desired=_wish(vm, wish),
            address=source.address,
            windows=source.os_type is OSType.WINDOWS,
            policy=self._policy(vm),
            target=self._target(vm),
            paused=vm.spec.paused,
            report=report,
            origin=origin,
        )

    def _policy(self, vm: ProtectedVM) -> Policy:
        body = self._cache.get(ReplicationPolicy.definition.kind, vm.metadata.namespace, vm.spec.policy_ref.name)
        if body is None:
            name = vm.spec.policy_ref.name
            raise WaitFault(
                f"spec.policyRef names ReplicationPolicy {name}, which does not exist", "Create it",
                reason="ReplicationPolicyNotFound",
            )  # fmt: skip
        spec = ReplicationPolicy.of(body).spec
        return Policy(
            crash_consistent_interval=spec.crash_consistent_interval,
            app_consistent_interval=spec.app_consistent_interval,
            retention=Retention(keep_all=spec.retention.keep_all),
        )

    def _target(self, vm: ProtectedVM) -> TargetWish:
        name = vm.spec.target.site_ref.name
        body = self._cache.get(Site.definition.kind, vm.metadata.namespace, name)
        if body is None:
            raise WaitFault(
                f"spec.target.siteRef names Site {name}, which does not exist", "Create it", reason="SiteNotFound"
            )
        site = Site.of(body)
        target = cloud_target(vm, site)
        if target is None or site.spec.azure is None:
            raise WaitFault(
                f"target site {name} has provider {site.spec.provider}, and Site Recovery recovers to Azure only",
                "Name a Site of provider azure",
                reason="ProviderNotSupported",
            )
        group = target.resource_group or site.spec.azure.resource_group
        return TargetWish(
            resource_group=_group_id(site, group),
            network=_network_id(site, target),
            subnet=target.subnet,
            name=vm.spec.target.name or vm.metadata.name,
            size=target.size,
            disk_type=target.disk_type or DISK_TYPE,
            availability_set=_id(site, group, "Microsoft.Compute/availabilitySets", target.availability_set),
            zone=target.zone,
            tags=tuple(sorted(target.tags.items())),
        )

    def _tasks(self, vault: RecoveryVault) -> tuple[TaskWish, ...]:
        namespace, ours = vault.metadata.namespace, naming.driver(vault.metadata.name)
        found = []
        for body in self._cache.all(Task.definition.kind, namespace):
            task = Task.of(body)
            over = task.status is not None and task.status.phase in FINISHED
            if task.spec.process_server != ours or over:
                continue
            run = self._cache.get(FailoverRun.definition.kind, namespace, task.spec.run) if task.spec.run else None
            began = FailoverRun.of(run).metadata.creation_timestamp if run is not None else None
            vm = self._cache.get(ProtectedVM.definition.kind, namespace, task.spec.protected_vm)
            found.append(
                TaskWish(
                    name=task.metadata.name,
                    kind=task.spec.kind,
                    input=task.spec.input,
                    machine=task.spec.protected_vm,
                    run=task.spec.run or "",
                    run_began=began,
                    report=task.status,
                    deadline=task.spec.deadline,
                    network=self._drill_network(namespace, task),
                    address=ProtectedVM.of(vm).spec.source.address if vm is not None else "",
                )
            )
        return tuple(found)

    def _drill_network(self, namespace: str, task: Task) -> str:
        """Return the resource id of the network that a task names; none for one of the drill's own, which is none."""
        target = task.spec.input.target
        body = self._cache.get(ProtectedVM.definition.kind, namespace, task.spec.protected_vm)
        if target is None or target.isolated or body is None:
            return ""
        name = ProtectedVM.of(body).spec.target.site_ref.name
        site = self._cache.get(Site.definition.kind, namespace, name)
        return _network_id(Site.of(site), target) if site is not None else ""


def _wish(vm: ProtectedVM, wish: Desired) -> Desired:
    """Return what is wanted of a machine: one that goes is disabled, unless its protection outlives its object."""
    if vm.metadata.deletion_timestamp is None:
        return wish
    return Desired.STOP if retains(vm) else Desired.UNINSTALL


def settings_of(azure: AzureVault, credential: CloudCredential | None) -> VaultSettings:
    """Return how a vault is reached."""
    return VaultSettings(
        azure.subscription,
        azure.resource_group,
        azure.vault_name,
        azure.region or "",
        (azure.resource_manager_endpoint or "").rstrip("/"),
        azure.authority_host or "",
        azure.ca_bundle or "",
        credential,
    )


def credential_of(client: Client, namespace: str, azure: AzureVault) -> CloudCredential | None:
    """Return the principal of a vault, None for the identity of whoever runs this.

    Raises:
        Fault: its Secret does not exist, lacks a key, or cannot be read.
    """
    ref = azure.credentials_secret_ref
    if ref is None:
        return None
    field = "spec.azure.credentialsSecretRef"
    body = client.get(SECRET, namespace, ref.name)
    if body is None:
        text = f"{field} names Secret {ref.name}, which does not exist"
        raise WaitFault(text, f"Create it, or correct {field}", reason="SecretNotFound")
    values = {key: base64.b64decode(text) for key, text in (body.get("data") or {}).items()}
    return cloud_login(values, ref.name, field)


def _group_id(site: Site, group: str) -> str:
    if site.spec.azure is None or group.startswith("/"):
        return group
    return f"/subscriptions/{site.spec.azure.subscription}/resourceGroups/{group}"


def _network_id(site: Site, target: CloudTarget) -> str:
    group = site.spec.azure.resource_group if site.spec.azure is not None else ""
    return _id(site, group, "Microsoft.Network/virtualNetworks", target.network)


def _id(site: Site, group: str, kind: str, name: str) -> str:
    """Return the resource id for a name in a resource group of the site; ids stay, and nothing stays nothing."""
    if not name or name.startswith("/"):
        return name
    return f"{_group_id(site, group)}/providers/{kind}/{name}"
