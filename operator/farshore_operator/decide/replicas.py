"""Warm replicas: whether a machine is to have one, where its site keeps them, and what is known of it."""

from __future__ import annotations

from farshore_engine.contract.assignment import AzureBlobAccess, ReplicaAccess
from farshore_engine.contract.replication import WarmReplica
from farshore_operator.api import ProtectedVM, Site
from farshore_operator.api.site import ReplicaStorage
from farshore_operator.decide.naming import machine_id
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.vaultaccess import Secrets, blob_access

FIELD = "spec.azure.replicas"


def wants_replica(vm: ProtectedVM, site: Site) -> bool:
    """Tell whether the machine is to have a warm replica at its recovery site."""
    own, defaults = vm.spec.target.warm_replica, site.spec.defaults
    return bool(defaults and defaults.warm_replica) if own is None else own


def replica_access(vm: ProtectedVM, site: Site, secrets: Secrets) -> ReplicaAccess | None:
    """Return where the replica is kept, None where the site keeps none; a fault names what does not resolve."""
    kept = site.spec.azure.replicas if site.spec.azure is not None else None
    if kept is None:
        return None
    return ReplicaAccess(
        storage=replica_storage(site, kept, secrets), interval=kept.interval, wanted=wants_replica(vm, site)
    )


def replica_storage(site: Site, kept: ReplicaStorage, secrets: Secrets) -> AzureBlobAccess:
    """Return the container of the site's replicas; a fault names what does not resolve."""
    field = f"Site {site.metadata.name} {FIELD}.credential"
    return blob_access(kept.account_url, kept.container, kept.credential, field, secrets)


def warm_replica(observed: ObservedVM) -> WarmReplica | None:
    """Return what the process servers of the recovery site say of the replica: the one that saw it good last."""
    vm, site = observed.vm, observed.target_site
    if site is None or site.spec.azure is None or not wants_replica(vm, site):
        return None
    identity = machine_id(vm.metadata.namespace, vm.metadata.name)
    if site.spec.azure.replicas is None:
        return WarmReplica(
            machine_id=identity,
            message=f"Site {site.metadata.name} keeps no warm replicas",
            remedy=f"Name a storage account of the site: {FIELD}",
        )
    found = [
        one
        for server in observed.servers
        if server.site == site.metadata.name and server.recovery is not None
        for one in server.recovery.replicas
        if one.machine_id == identity
    ]
    return max(found, key=lambda one: (one.updated_at is not None, one.updated_at, not one.remedy), default=None)
