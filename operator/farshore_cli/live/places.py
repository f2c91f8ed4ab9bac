"""From a Site or a RecoveryVault of the cluster to the place that is read: with its own credentials, never more."""

from __future__ import annotations

from farshore_cli.doctoring.clouds import cloud_of_site
from farshore_cli.doctoring.cluster import Namespace, current
from farshore_cli.live.items import Area
from farshore_cli.live.report import Line, read
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.site import CloudProvider, CloudSite
from farshore_operator.api import RecoveryVault, Site
from farshore_operator.api.recoveryvault import Engine


def read_site(name: str, namespace: str) -> tuple[Line, ...]:
    """Read the cloud of a Site of the cluster; raises Fault."""
    where = current(namespace)
    return site_lines(where.need(Site, name), where)


def read_vault(name: str, namespace: str) -> tuple[Line, ...]:
    """Read the Recovery Services vault of a RecoveryVault of the cluster; raises Fault."""
    where = current(namespace)
    return vault_lines(where.need(RecoveryVault, name), where)


def site_lines(site: Site, where: Namespace) -> tuple[Line, ...]:
    """Read the cloud of a site.

    Raises:
        Fault: it is in no cloud, or does not let us in.
    """
    cloud = cloud_of_site(site, where)
    if cloud is None:
        raise StopFault(
            f"site {site.metadata.name} has provider {site.spec.provider}, of which nothing is inferred",
            "Name a Site of provider azure or azureStackHub, or a vault of engine siteRecovery",
            reason="NotInAzure",
        )
    return _hub(cloud) if cloud.provider is CloudProvider.AZURE_STACK_HUB else _azure(cloud)


def vault_lines(vault: RecoveryVault, where: Namespace) -> tuple[Line, ...]:
    """Read a Recovery Services vault.

    Raises:
        Fault: the vault is another, is not there, or does not let us in.
    """
    from farshore_cli.doctoring.clouds import credential_of
    from farshore_cli.live.siterecovery import ITEMS, Service
    from farshore_operator.engines.siterecovery import reading
    from farshore_operator.engines.siterecovery.client import VaultClient
    from farshore_operator.kube.siterecovery import settings_of

    azure, name = vault.spec.azure, vault.metadata.name
    if vault.spec.engine is not Engine.SITE_RECOVERY or azure is None:
        raise StopFault(
            f"vault {name} is of engine {vault.spec.engine}, of whose storage nothing is inferred",
            f"farshore doctor vault {name} checks it; --live is for engine siteRecovery",
            reason="NothingInferred",
        )
    client = VaultClient(settings_of(azure, credential_of(azure, where)))
    if not reading.vault_exists(client):
        raise StopFault(f"there is no Recovery Services vault {azure.vault_name}", f"farshore doctor vault {name}")
    return read(Area.SITE_RECOVERY, ITEMS, Service(client))


def _azure(site: CloudSite) -> tuple[Line, ...]:
    from farshore_cli.live.resources import ITEMS
    from farshore_engine.azure.cloud import Cloud

    cloud = Cloud(site)
    try:
        cloud.find("look for the resource group", lambda: cloud.resources.resource_groups.get(site.resource_group))
        return read(Area.RESOURCE_MANAGER, ITEMS, cloud)
    finally:
        cloud.close()


def _hub(site: CloudSite) -> tuple[Line, ...]:
    from farshore_cli.live.hub import ITEMS
    from farshore_engine.azurestack.resourcemanager import ResourceManager

    with ResourceManager(site) as manager:
        manager.find(f"/subscriptions/{site.subscription}")
        return read(Area.HUB, ITEMS, manager)
