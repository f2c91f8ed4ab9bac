"""Turns resources and Secrets into assignments of the engine: all references resolved, or a fault says which is not."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeVar

from pydantic import SecretStr

from farshore_engine.contract.assignment import (
    BrokenAssignment,
    ConsistencyGroup,
    DatabaseLogin,
    Desired,
    Direction,
    InstallMode,
    MachineAssignment,
    Policy,
    RecoveryTarget,
    ReplicaAccess,
    Retention,
    Source,
    SSHCredentials,
    VaultAccess,
)
from farshore_engine.contract.faults import Fault, WaitFault
from farshore_engine.contract.site import CloudSite
from farshore_engine.contract.tasks import TaskAssignment, TaskKind, TaskPhase
from farshore_operator.api import ProcessServer, ProtectedVM, RecoveryVault, ReplicationPolicy, Resource, Site, Task
from farshore_operator.decide.bandwidth import limit_at
from farshore_operator.decide.cloudtarget import cloud_site, cloud_target, credentials_ref
from farshore_operator.decide.consistencygroup import resolved
from farshore_operator.decide.naming import enrolment_secret, machine_id
from farshore_operator.decide.probes import login_secrets, logs_in
from farshore_operator.decide.replicas import replica_access, wants_replica
from farshore_operator.decide.vaultaccess import Values, cloud_login, secret_text, vault_access
from farshore_operator.kube.appliance.logins import database_login, ssh_login
from farshore_operator.kube.appliance.secretvalues import SecretValues

ResourceT = TypeVar("ResourceT", bound=Resource)
MIB = 1 << 20
FINISHED = (TaskPhase.SUCCEEDED, TaskPhase.FAILED)
LOGS_IN = (
    TaskKind.PREFLIGHT,
    TaskKind.SHUTDOWN_SOURCE,
    TaskKind.FINAL_POINT,
    TaskKind.START_SOURCE,
    TaskKind.WRITE_BACK,
)
"""Tasks that may log in to the machine of this site, or at least knock there."""
KNOWS = (TaskKind.PREPARE_GUEST, TaskKind.PROBE_MACHINE)
"""Tasks that in a cloud know the machine by its address and port, where another one has its name."""
IN_CLOUD = frozenset(
    {
        TaskKind.SHUTDOWN_SOURCE,
        TaskKind.FINAL_POINT,
        TaskKind.HYDRATE,
        TaskKind.PREPARE_GUEST,
        TaskKind.UPLOAD_DISKS,
        TaskKind.START_MACHINE,
        TaskKind.PROBE_MACHINE,
        TaskKind.CLEAN_UP,
        TaskKind.START_SOURCE,
        TaskKind.WRITE_BACK,
    }
)
"""Tasks that speak to the cloud of the process server's site, if it is in one."""
NOT_YET = ("SecretForbidden", "APIUnreachable", "APIBusy", "Unauthorized")
"""Reasons of faults that tell nothing of a Secret but that it could not be read now."""


class Objects(Protocol):
    """The objects of the process server's namespace."""

    def find(self, model: type[ResourceT], name: str) -> ResourceT | None:
        """Return an object, None if it does not exist."""
        ...

    def all(self, model: type[ResourceT]) -> list[ResourceT]:
        """Return all objects of a kind, sorted by name."""
        ...


@dataclass(frozen=True)
class TaskTrouble:
    """A task that cannot be handed over, and why."""

    task: Task
    fault: Fault


@dataclass(frozen=True)
class Resolved:
    """Everything that is wanted of a process server."""

    machines: tuple[MachineAssignment, ...]
    broken: tuple[BrokenAssignment, ...]
    tasks: tuple[TaskAssignment, ...]
    troubled: tuple[TaskTrouble, ...]
    recoverable: tuple[RecoveryTarget, ...] = ()


class Resolver:
    """Resolves what is assigned to one process server.

    Args:
        name: of the process server.
        now: for the bandwidth schedule.
    """

    def __init__(self, name: str, objects: Objects, secrets: SecretValues, now: Callable[[], datetime]) -> None:
        self._name = name
        self._objects = objects
        self._secrets = secrets
        self._now = now
        self._every: list[ProtectedVM] = []

    def resolve(self) -> Resolved:
        """Resolve all machines and all unfinished tasks."""
        machines: list[MachineAssignment] = []
        broken: list[BrokenAssignment] = []
        self._every = self._objects.all(ProtectedVM)
        for vm in self._every:
            if vm.status.assignment and vm.status.assignment.process_server == self._name:
                try:
                    machines.append(self._machine(vm))
                except Fault as fault:
                    identity = machine_id(vm.metadata.namespace, vm.metadata.name)
                    broken.append(BrokenAssignment.of(vm.metadata.name, identity, fault))
        tasks, troubled = self._tasks({machine.name: machine for machine in machines})
        return Resolved(tuple(machines), tuple(broken), tasks, troubled, self._recoverable())

    def _recoverable(self) -> tuple[RecoveryTarget, ...]:
        """Return the machines whose recovery site is ours; those whose vault does not resolve are told elsewhere."""
        server = self._objects.find(ProcessServer, self._name)
        if server is None:
            return ()
        found = []
        ours = self._objects.find(Site, server.spec.site_ref.name)
        for vm in self._every:
            target = vm.spec.target
            if target.site_ref.name != server.spec.site_ref.name:
                continue
            with suppress(Fault):
                memory = target.memory // MIB if target.memory else None
                identity = machine_id(vm.metadata.namespace, vm.metadata.name)
                replica, trouble = self._replica(vm, ours)
                found.append(
                    RecoveryTarget(
                        machine_id=identity,
                        vault=self.vault_of(vm),
                        memory_mib=memory,
                        name=target.name or vm.metadata.name,
                        site=self._cloud(ours),
                        target=cloud_target(vm, ours) if ours is not None else None,
                        replica=replica,
                        replica_trouble=trouble,
                    )
                )
        return tuple(found)

    def _replica(self, vm: ProtectedVM, site: Site | None) -> tuple[ReplicaAccess | None, str]:
        """Return where the machine's warm replica is kept, or why that is not known: no failover waits for it."""
        if site is None:
            return None, ""
        try:
            return replica_access(vm, site, self._secret), ""
        except Fault as fault:
            return None, str(fault) if wants_replica(vm, site) else ""

    def _tasks(
        self, machines: dict[str, MachineAssignment]
    ) -> tuple[tuple[TaskAssignment, ...], tuple[TaskTrouble, ...]]:
        tasks, troubled = [], []
        for task in self._objects.all(Task):
            over = task.status is not None and task.status.phase in FINISHED
            if task.spec.process_server != self._name or over:
                continue
            try:
                tasks.append(self._task(task, machines.get(task.spec.protected_vm)))
            except Fault as fault:
                troubled.append(TaskTrouble(task, fault))
        return tuple(tasks), tuple(troubled)

    def _machine(self, vm: ProtectedVM) -> MachineAssignment:
        assignment = vm.status.assignment
        if assignment is None:
            raise WaitFault("the machine is not assigned yet")
        wish = Desired(vm.status.desired or Desired.REPLICATE.value)
        return MachineAssignment(
            name=vm.metadata.name,
            machine_id=machine_id(vm.metadata.namespace, vm.metadata.name),
            epoch=assignment.epoch,
            desired=wish,
            source=self._recovered(vm) if assignment.direction is Direction.REVERSE else self._source(vm),
            policy=self.policy_of(vm),
            vault=self.vault_of(vm),
            certificate=vm.status.agent.certificate if vm.status.agent else None,
            enrolment_tokens=self._enrolment(vm),
            consistency_group=self._group(vm) if assignment.direction is Direction.FORWARD else None,
            direction=assignment.direction,
            base_point=assignment.base_point or "",
        )

    def _task(self, task: Task, machine: MachineAssignment | None) -> TaskAssignment:
        spec = task.spec
        vm = self._need(ProtectedVM, spec.protected_vm, "spec.protectedVM")
        return TaskAssignment(
            name=task.metadata.name,
            kind=spec.kind,
            run=spec.run or "",
            input=spec.input,
            vault=self.vault_of(vm),
            source=self._task_source(task, vm),
            site=self._task_site(task),
            replica=self._replica(vm, self._task_place(task))[0],
            database_logins={name: self._database_login(name) for name in login_secrets(spec.input.probes)},
            machine=machine,
            deadline=spec.deadline,
            report=task.status,
        )

    def _task_site(self, task: Task) -> CloudSite | None:
        """Return the cloud that this process server is in, for the tasks that need it."""
        return self._cloud(self._task_place(task))

    def _task_place(self, task: Task) -> Site | None:
        server = self._objects.find(ProcessServer, self._name)
        if task.spec.kind not in IN_CLOUD or server is None:
            return None
        return self._objects.find(Site, server.spec.site_ref.name)

    def _cloud(self, site: Site | None) -> CloudSite | None:
        if site is None:
            return None
        ref, field = credentials_ref(site)
        login = cloud_login(self._secret(ref.name, field), ref.name, field) if ref is not None else None
        return cloud_site(site, login)

    def _task_source(self, task: Task, vm: ProtectedVM) -> Source | None:
        """Return where the machine is and how to log in, for the tasks that need it."""
        spec = task.spec
        if spec.kind in LOGS_IN or logs_in(spec.input.probes):
            return self._here(vm)
        if spec.kind is TaskKind.START_MACHINE or (spec.kind in KNOWS and self._task_site(task) is not None):
            # A recovered machine without a root disk of its own gets the source's login. It starts all the same
            # without: a Secret that is gone must not be in the way of a failover. One that may not be read yet is
            # waited for: a machine that was started without a login can never be protected where it runs.
            try:
                return self._here(vm)
            except Fault as fault:
                if fault.reason in NOT_YET:
                    raise
        return None

    def _here(self, vm: ProtectedVM) -> Source:
        """Return the machine as it is at this process server's site: the recovered one, or the one at home."""
        own = self._objects.find(ProcessServer, self._name)
        at_target = own is not None and own.spec.site_ref.name == vm.spec.target.site_ref.name
        return self._recovered(vm) if at_target and vm.status.recovered is not None else self._source(vm)

    def _recovered(self, vm: ProtectedVM) -> Source:
        """Return where the recovered machine answers; its login came with its disks."""
        where = vm.status.recovered
        if where is None or not where.address:
            raise WaitFault(
                "it is not known at which address the recovered machine answers",
                "Look at the FailoverRun that made it",
                reason="RecoveredMachineUnknown",
            )
        spec, replication, assignment = vm.spec.source, vm.status.replication, vm.status.assignment
        current = replication is not None and assignment is not None and replication.epoch == assignment.epoch
        seen = replication.agent.host_key if current and replication and replication.agent else ""
        return Source(
            address=where.address,
            port=where.port or spec.port,
            install=InstallMode.PUSH,
            credentials=self._login(vm),
            host_key=seen or where.host_key or None,
            include_disks=spec.disks.include if spec.disks else (),
            exclude_disks=spec.disks.exclude if spec.disks else (),
        )

    def _source(self, vm: ProtectedVM) -> Source:
        spec, seen = vm.spec.source, self._seen_at_home(vm)
        return Source(
            address=spec.address,
            port=spec.port,
            install=spec.install,
            credentials=self._login(vm),
            host_key=spec.host_key or seen or None,
            include_disks=spec.disks.include if spec.disks else (),
            exclude_disks=spec.disks.exclude if spec.disks else (),
        )

    def _seen_at_home(self, vm: ProtectedVM) -> str:
        """Return the host key that was seen of the machine at its own site; a recovered one may have another."""
        report = vm.status.replication
        if report is None or report.agent is None:
            return ""
        server = self._objects.find(ProcessServer, report.process_server)
        away = server is not None and server.spec.site_ref.name != vm.spec.source.site_ref.name
        return "" if away else report.agent.host_key

    def _login(self, vm: ProtectedVM) -> SSHCredentials | None:
        ref = vm.spec.source.credentials_secret_ref
        field = "spec.source.credentialsSecretRef"
        if ref is None:
            site = self._objects.find(Site, vm.spec.source.site_ref.name)
            ref = site.spec.credentials_secret_ref if site else None
            field = f"Site {vm.spec.source.site_ref.name} spec.credentialsSecretRef"
        if ref is None:
            return None
        return ssh_login(self._secret(ref.name, field), ref.name, field)

    def _database_login(self, name: str) -> DatabaseLogin:
        field = "a probe's sql.credentialsSecretRef"
        return database_login(self._secret(name, field), name, field)

    def policy_of(self, vm: ProtectedVM) -> Policy:
        """Return the policy of a machine; raises a fault that names what does not resolve."""
        spec = self._need(ReplicationPolicy, vm.spec.policy_ref.name, "spec.policyRef").spec
        keep = spec.retention
        return Policy(
            crash_consistent_interval=spec.crash_consistent_interval,
            app_consistent_interval=spec.app_consistent_interval,
            retention=Retention(keep_all=keep.keep_all, hourly=keep.hourly, daily=keep.daily, weekly=keep.weekly),
            bandwidth_limit=limit_at(spec.bandwidth, self._now()),
            freeze_bound=spec.freeze_bound,
            hooks=vm.spec.source.application_hooks,
            hook_timeout=spec.hooks.timeout,
            hook_window=spec.hooks.window,
        )

    def vault_of(self, vm: ProtectedVM) -> VaultAccess:
        """Return the vault of a machine with its secrets; raises a fault that names what does not resolve."""
        vault = self._need(RecoveryVault, vm.spec.vault_ref.name, "spec.vaultRef")
        return vault_access(vault, self._secret)

    def _group(self, vm: ProtectedVM) -> ConsistencyGroup | None:
        return resolved(vm, self._every) if vm.spec.consistency_group else None

    def _enrolment(self, vm: ProtectedVM) -> tuple[SecretStr, ...]:
        if vm.spec.source.install is not InstallMode.MANUAL:
            return ()
        name = enrolment_secret(vm.metadata.name)
        values = self._secrets.get(name) or {}
        return tuple(
            SecretStr(secret_text(values[key], name, key, "the machine's tokens").strip()) for key in sorted(values)
        )

    def _need(self, model: type[ResourceT], name: str, field: str) -> ResourceT:
        found = self._objects.find(model, name)
        if found is None:
            kind = model.definition.kind
            raise WaitFault(
                f"{field} names {kind} {name}, which does not exist",
                f"Create it, or correct {field}",
                reason=f"{kind}NotFound",
            )
        return found

    def _secret(self, name: str, field: str) -> Values:
        values = self._secrets.get(name)
        if values is None:
            raise WaitFault(
                f"{field} names Secret {name}, which does not exist",
                f"Create it, or correct {field}",
                reason="SecretNotFound",
            )
        return values
