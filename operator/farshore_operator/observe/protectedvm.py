"""What the decision on a ProtectedVM is made from."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

from farshore_engine.contract.assignment import InstallMode
from farshore_engine.contract.tasks import TaskKind
from farshore_operator.api import (
    FailoverPlan,
    FailoverRun,
    ProcessServer,
    ProtectedVM,
    RecoveryVault,
    ReplicationPolicy,
    Site,
    Task,
)
from farshore_operator.api.processserver import RegistrationPhase
from farshore_operator.api.protectedvm import CredentialKey
from farshore_operator.decide import switching
from farshore_operator.decide.consistencygroup import peers
from farshore_operator.decide.machineruns import ordered
from farshore_operator.decide.observedvm import ObservedVM, ServerFacts
from farshore_operator.decide.references import SecretUse
from farshore_operator.engines.capabilities import FACTS, Capability
from farshore_operator.engines.siterecovery import naming
from farshore_operator.kube.client import Json
from farshore_operator.observe import history, twins
from farshore_operator.observe.recoveryvault import vault_secrets
from farshore_operator.observe.world import World


def observe(world: World, vm: ProtectedVM) -> ObservedVM:
    """Collect everything that a machine refers to, its runs and the process servers of its namespace."""
    namespace, name, spec = vm.metadata.namespace, vm.metadata.name, vm.spec
    vault = world.find(RecoveryVault, namespace, spec.vault_ref.name)
    switch = world.find(RecoveryVault, namespace, spec.switch_to.name) if spec.switch_to is not None else None
    source = world.find(Site, namespace, spec.source.site_ref.name)
    runs = world.all(
        FailoverRun, namespace, lambda body: any(m["protectedVM"] == name for m in body["spec"].get("members", []))
    )
    return ObservedVM(
        vm=vm,
        policy=world.find(ReplicationPolicy, namespace, spec.policy_ref.name),
        vault=vault,
        vault_secrets=vault_secrets(world, vault) if vault else (),
        source_site=source,
        target_site=world.find(Site, namespace, spec.target.site_ref.name),
        login=_login(world, vm, source),
        servers=driven(vm, switching.serving(vault, switch)) or server_facts(world, namespace),
        runs=ordered(runs),
        timing=world.timing,
        drill_max_age=_drill_max_age(world, vm),
        group=peers(_namesakes(world, vm), spec.consistency_group),
        history=history.of_vm(world, vm),
        preflights=_preflights(world, vm),
        twins=twins.of_vm(world, vm),
        switch_vault=switch,
    )


def _drill_max_age(world: World, vm: ProtectedVM) -> timedelta | None:
    """Return the strictest limit on the age of drills of the plans that mean the machine."""
    limits = [
        plan.spec.drill.max_age
        for plan in world.all(FailoverPlan, vm.metadata.namespace, lambda body: bool(body["spec"].get("drill")))
        if plan.spec.drill is not None and plan.spec.drill.max_age is not None and _means(plan, vm)
    ]
    return min(limits, default=None)


def _means(plan: FailoverPlan, vm: ProtectedVM) -> bool:
    meta = vm.metadata
    return any(member.means(meta.name, meta.labels) for group in plan.spec.groups for member in group.members)


def _preflights(world: World, vm: ProtectedVM) -> tuple[Task, ...]:
    name = vm.metadata.name

    def asked(body: Json) -> bool:
        return bool(body["spec"].get("kind") == TaskKind.PREFLIGHT and body["spec"].get("protectedVM") == name)

    never = datetime.min.replace(tzinfo=UTC)
    found = world.all(Task, vm.metadata.namespace, asked)
    return tuple(sorted(found, key=lambda task: (task.metadata.creation_timestamp or never, task.metadata.name)))


def _namesakes(world: World, vm: ProtectedVM) -> list[ProtectedVM]:
    """Return the machines of its consistency group."""
    name = vm.spec.consistency_group
    if not name:
        return []
    return world.all(ProtectedVM, vm.metadata.namespace, lambda body: body["spec"].get("consistencyGroup") == name)


def server_facts(world: World, namespace: str) -> tuple[ServerFacts, ...]:
    """Return the process servers of a namespace with their load."""
    now = world.now()
    load = Counter(
        ((body.get("status") or {}).get("assignment") or {}).get("processServer")
        for body in world.cache.all("ProtectedVM", namespace)
    )
    return tuple(
        _facts(world, server, load[server.metadata.name], now) for server in world.all(ProcessServer, namespace)
    )


def driven(vm: ProtectedVM, vault: RecoveryVault | None) -> tuple[ServerFacts, ...]:
    """Return who serves a machine whose engine needs no process servers: the operator's driver, at both sites."""
    if vault is None or Capability.OWN_SERVERS in FACTS[vault.spec.engine].capabilities:
        return ()
    name, spec = naming.driver(vault.metadata.name), vm.spec
    return tuple(
        ServerFacts(name, site, registered=True, connected=True, load=0, can_run_machines=True)
        for site in (spec.source.site_ref.name, spec.target.site_ref.name)
    )


def _facts(world: World, server: ProcessServer, load: int, now: datetime) -> ServerFacts:
    meta, registration, appliance = server.metadata, server.status.registration, server.status.appliance
    beat = world.heartbeats.of(meta.namespace, meta.name)
    return ServerFacts(
        name=meta.name,
        site=server.spec.site_ref.name,
        registered=registration is not None and registration.phase is RegistrationPhase.REGISTERED,
        connected=world.heartbeats.connected(meta.namespace, meta.name, now),
        load=load,
        can_run_machines=bool(appliance and appliance.can_run_machines),
        heartbeat=beat.seen if beat else server.status.last_heartbeat,
        deleting=meta.deletion_timestamp is not None,
        recovery=appliance.recovery if appliance else None,
    )


def _login(world: World, vm: ProtectedVM, site: Site | None) -> SecretUse | None:
    """Look up the SSH login: the machine's, or its site's. Manual installation needs none."""
    source, namespace = vm.spec.source, vm.metadata.namespace
    secret_types = (CredentialKey.PRIVATE_KEY.value, CredentialKey.PASSWORD.value)
    if source.credentials_secret_ref is not None:
        name = source.credentials_secret_ref.name
        return world.secret(namespace, "spec.source.credentialsSecretRef", name, secret_types)
    if source.install is InstallMode.PUSH and site is not None and site.spec.credentials_secret_ref is not None:
        name = site.spec.credentials_secret_ref.name
        return world.secret(namespace, f"Site {site.metadata.name} spec.credentialsSecretRef", name, secret_types)
    return None
