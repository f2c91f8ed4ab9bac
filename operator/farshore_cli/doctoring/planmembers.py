"""The machines of a plan as they would be recovered: what each one's newest point says that it was, and its place."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from farshore_cli.doctoring.clouds import cloud_of_site
from farshore_cli.doctoring.cluster import Namespace
from farshore_engine.contract.faults import Fault, WaitFault

if TYPE_CHECKING:
    from farshore_engine.azure.machinechecks import Wish
    from farshore_engine.azure.place import Place
    from farshore_engine.contract.machine import MachineDescription
    from farshore_engine.contract.site import CloudSite
    from farshore_operator.api import Site
    from farshore_operator.decide.observedvm import ObservedVM
    from farshore_operator.decide.planview import ObservedPlan
    from farshore_operator.decide.runspec import Chosen

PATIENCE = 15.0  # seconds for each question to a vault


@dataclass(frozen=True)
class Newest:
    """What a machine's newest point says that it was."""

    described: MachineDescription
    disks: int


@dataclass(frozen=True)
class PlannedMachine:
    """One machine of a plan, and what it becomes.

    Attributes:
        name: of the recovered machine.
        network: that it joins outside of clouds; empty for the provider's own.
        moved: whether it runs at its recovery site already, and takes no more room there.
        place: in Azure; None elsewhere, or where the site's login does not resolve.
        newest: None where its newest point could not be read from here; `fault` says why, if it should have been.
    """

    observed: ObservedVM
    name: str
    network: str
    moved: bool
    site: Site | None = None
    place: Place | None = None
    newest: Newest | None = None
    fault: Fault | None = None

    @property
    def vm(self) -> str:
        """Name of the ProtectedVM."""
        return self.observed.vm.metadata.name

    @property
    def wish(self) -> Wish | None:
        """What Azure would be asked for; None where that is not known."""
        if self.place is None or self.newest is None:
            return None
        from farshore_engine.azure.readiness import wished_for

        memory = self.observed.vm.spec.target.memory
        return wished_for(self.place, self.newest.described, self.newest.disks, memory >> 20 if memory else None)


def resolve(observed: ObservedPlan, where: Namespace) -> tuple[tuple[PlannedMachine, ...], dict[str, Fault]]:
    """Return the machines of a plan, and what is wrong with the logins of their sites, by the site's name.

    A vault or site that does not answer is asked once.
    """
    clouds: dict[str, CloudSite | None] = {}
    troubles: dict[str, Fault] = {}
    away: dict[str, Fault] = {}
    found = []
    for chosen in observed.machines:
        site = chosen.observed.target_site
        if site is not None and site.metadata.name not in clouds:
            clouds[site.metadata.name] = None
            try:
                clouds[site.metadata.name] = cloud_of_site(site, where)
            except Fault as fault:
                troubles[site.metadata.name] = fault
        machine = _planned(observed, chosen, clouds.get(site.metadata.name) if site is not None else None)
        found.append(machine if machine.moved else _read(machine, where, away))
    return tuple(found), troubles


def _planned(observed: ObservedPlan, chosen: Chosen, cloud: CloudSite | None) -> PlannedMachine:
    from farshore_engine.azure.readiness import place_of
    from farshore_engine.contract.site import CloudProvider
    from farshore_operator.decide import machineruns
    from farshore_operator.decide.cloudtarget import cloud_target
    from farshore_operator.decide.naming import MACHINE_NAME_LENGTH, bounded, machine_id

    seen, own = chosen.observed, chosen.overrides
    meta, wished, site = seen.vm.metadata, seen.vm.spec.target, seen.target_site
    name = bounded((wished.name or meta.name).lower(), MACHINE_NAME_LENGTH)
    network = own.network or observed.plan.spec.network or ""
    machine = PlannedMachine(seen, name, network or wished.network or "", machineruns.life(seen).at_recovery, site=site)
    if site is None or cloud is None or cloud.provider is not CloudProvider.AZURE:
        return machine
    target = cloud_target(seen.vm, site, own, network=network)
    if target is None:
        return machine
    return replace(machine, place=place_of(cloud, target, name, machine_id(meta.namespace, meta.name)))


def _read(machine: PlannedMachine, where: Namespace, away: dict[str, Fault]) -> PlannedMachine:
    """Read a machine's newest point; Site Recovery's are not ours to read."""
    from farshore_operator.api.recoveryvault import Engine

    vault = machine.observed.vault
    if vault is None or vault.spec.engine is not Engine.NATIVE:
        return machine
    name = vault.metadata.name
    if name in away:
        return replace(machine, fault=away[name])
    try:
        return replace(machine, newest=_newest(machine, where))
    except Fault as fault:
        if isinstance(fault, WaitFault) or fault.reason in ("NoSecret", "StorageAccessRefused", "ContainerMissing"):
            away[name] = fault
        return replace(machine, fault=fault)


def _newest(machine: PlannedMachine, where: Namespace) -> Newest | None:
    from farshore_engine.contract.assignment import DirectoryAccess
    from farshore_engine.vault.machine import MachineVault
    from farshore_engine.vault.stores import key_ring, open_store
    from farshore_operator.decide.naming import machine_id
    from farshore_operator.decide.vaultaccess import vault_access

    vault, meta = machine.observed.vault, machine.observed.vm.metadata
    assert vault is not None, "the caller has looked"
    access = vault_access(vault, where.secret)
    if isinstance(access.storage, DirectoryAccess) and not access.storage.path.is_dir():
        return None  # a directory of the process servers, which this host does not have
    store = open_store(access.storage, deadline=PATIENCE)
    identity = machine_id(meta.namespace, meta.name)
    opened = MachineVault.open(store, key_ring(access), identity, prefix=access.prefix)
    try:
        point = opened.newest()
    finally:
        opened.close()
    return Newest(point.manifest.machine, len(point.manifest.disks)) if point is not None else None
