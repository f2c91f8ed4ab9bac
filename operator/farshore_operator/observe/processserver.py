"""What the decision on a ProcessServer is made from."""

from __future__ import annotations

from datetime import datetime

from farshore_engine.contract.tasks import TaskKind
from farshore_operator.api import ProcessServer, ProtectedVM, RecoveryVault, Site, Task
from farshore_operator.api.recoveryvault import Encryption, PreviousKey
from farshore_operator.decide.cloudtarget import credentials_ref
from farshore_operator.decide.naming import EXPIRES_ANNOTATION, KEY_ANNOTATION, KEY_TYPE, SITE_LABEL, enrolment_secret
from farshore_operator.decide.probes import login_secrets
from farshore_operator.decide.processserver import KeyFacts, ObservedServer
from farshore_operator.kube.client import Json
from farshore_operator.observe.world import World, spec_ref

VAULT_ONLY = frozenset({TaskKind.READ_JOURNAL, TaskKind.NOTE, TaskKind.WRITE_REPORT, TaskKind.DELETE_POINTS})
"""Tasks that need nothing but the vault: no login of the machine is handed out for them."""
REPORTER = "farshore-processserver"


def observe(world: World, server: ProcessServer) -> ObservedServer:
    """Collect site, registration key, heartbeat, machines and the Secrets that it needs."""
    namespace, name = server.metadata.namespace, server.metadata.name
    assigned = world.all(ProtectedVM, namespace, lambda body: _assigned_to(body, name))
    beat = world.heartbeats.of(namespace, name)
    now = world.now()
    return ObservedServer(
        server=server,
        site_exists=world.find(Site, namespace, server.spec.site_ref.name) is not None,
        key=_key(world, server),
        clock_offset=_clock_offset(world.cache.get("ProcessServer", namespace, name), server),
        connected=world.heartbeats.connected(namespace, name, now),
        heartbeat=beat.seen if beat else None,
        secrets=_secrets(world, server, assigned),
        machines=len(assigned),
        timing=world.timing,
    )


def _assigned_to(body: Json, name: str) -> bool:
    return bool(((body.get("status") or {}).get("assignment") or {}).get("processServer") == name)


def _key(world: World, server: ProcessServer) -> KeyFacts | None:
    """Look up the registration key that the appliance says it used; the API server has verified its token itself."""
    meta = server.metadata
    name = meta.annotations.get(KEY_ANNOTATION, "")
    if not name or (server.status.registration is not None and server.status.registration.registered_at):
        return None
    found = world.secrets.keys(meta.namespace, name)
    if found is None or found.type != KEY_TYPE:
        return KeyFacts(name, exists=False)
    labels, annotations = found.labels or {}, found.annotations or {}
    return KeyFacts(name, True, labels.get(SITE_LABEL, ""), _time(annotations.get(EXPIRES_ANNOTATION, "")))


def _time(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if text else None
    except ValueError:
        return None


def _clock_offset(body: Json | None, server: ProcessServer) -> float | None:
    """Return by how many seconds the last report's time is ahead of the API server's clock when it was written."""
    if body is None or server.status.appliance is None:
        return None
    for entry in body["metadata"].get("managedFields", []):
        if entry.get("manager") == REPORTER and entry.get("subresource") == "status" and entry.get("time"):
            written = datetime.fromisoformat(entry["time"])
            return (server.status.appliance.last_contact - written).total_seconds()
    return None


def _secrets(world: World, server: ProcessServer, assigned: list[ProtectedVM]) -> frozenset[str]:
    namespace, name = server.metadata.namespace, server.metadata.name
    tasks = world.all(Task, namespace, lambda body: body["spec"].get("processServer") == name)
    open_tasks = [task for task in tasks if task.status is None or task.status.finished_at is None]
    busy_with = {task.spec.protected_vm for task in open_tasks if task.spec.kind not in VAULT_ONLY}
    reads = [world.find(ProtectedVM, namespace, task.spec.protected_vm) for task in open_tasks]
    site = server.spec.site_ref.name
    here = world.all(ProtectedVM, namespace, lambda body: spec_ref(body, "target", "siteRef") == site)
    moved = world.all(ProtectedVM, namespace, lambda body: _moves_at(body, site))
    login = {vm.metadata.name: vm for vm in (*assigned, *moved)}
    for vm_name in busy_with:
        vm = world.find(ProtectedVM, namespace, vm_name)
        if vm is not None:
            login[vm_name] = vm
    names = _site_secret(world, namespace, site)
    for task in open_tasks:
        names |= login_secrets(task.spec.input.probes)
    for vm in login.values():
        names |= _login_secrets(world, vm)
    for vm in (*login.values(), *here, *(vm for vm in reads if vm is not None)):
        names |= _vault_secrets(world, vm)
    return frozenset(names)


def _site_secret(world: World, namespace: str, site: str) -> set[str]:
    """Return the Secrets with which a process server speaks to the cloud that it is in."""
    found = world.find(Site, namespace, site)
    if found is None:
        return set()
    ref = credentials_ref(found)[0]
    replicas = found.spec.azure.replicas if found.spec.azure is not None else None
    given = replicas.credential if replicas is not None else None
    return {one.name for one in (ref, given.secret_ref if given is not None else None) if one is not None}


def _moves_at(body: Json, site: str) -> bool:
    """Tell whether a run moves the machine from or to a site: between two tasks no right is taken away."""
    places = (spec_ref(body, "source", "siteRef"), spec_ref(body, "target", "siteRef"))
    return bool((body.get("status") or {}).get("activeRun")) and site in places


def _login_secrets(world: World, vm: ProtectedVM) -> set[str]:
    site = world.find(Site, vm.metadata.namespace, vm.spec.source.site_ref.name)
    ref = vm.spec.source.credentials_secret_ref or (site.spec.credentials_secret_ref if site else None)
    return {enrolment_secret(vm.metadata.name)} | ({ref.name} if ref else set())


def _vault_secrets(world: World, vm: ProtectedVM) -> set[str]:
    vault = world.find(RecoveryVault, vm.metadata.namespace, vm.spec.vault_ref.name)
    if vault is None:
        return set()
    names = set()
    blob = vault.spec.storage.azure_blob if vault.spec.storage else None
    if blob and blob.credential:
        names.add(blob.credential.secret_ref.name)
    encryption = vault.spec.encryption
    keys: list[Encryption | PreviousKey] = [encryption, *encryption.previous_keys] if encryption else []
    for key in keys:
        if key.key_secret_ref:
            names.add(key.key_secret_ref.name)
        if key.key_vault:
            names.add(key.key_vault.credentials_secret_ref.name)
    return names
