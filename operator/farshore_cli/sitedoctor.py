"""The checks of a site in a cloud, from here: what its process server would find before it recovers a machine there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from farshore_cli.doctoring.cluster import current
from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from farshore_engine.contract.replication import Check
    from farshore_operator.api import Site
    from farshore_operator.decide.vaultaccess import Secrets, Values


def site_checks(name: str, namespace: str) -> tuple[Check, ...]:
    """Read a Site and its Secret from the cluster, and check it; raises Fault.

    Args:
        name: of the Site.
        namespace: where it is; empty for the current context's.
    """
    from farshore_operator.api import Site
    from farshore_operator.decide.cloudtarget import credentials_ref

    where = current(namespace)
    site = where.need(Site, name)
    ref, field = credentials_ref(site)
    return checks_of(site, where.secret(ref.name, field) if ref is not None else None, where.secret)


def checks_of(site: Site, secret: Values | None, secrets: Secrets) -> tuple[Check, ...]:
    """Check a site with the data of its Secret; None where it has none, and the identity of this host is used.

    Args:
        secrets: reads the Secret of its warm replicas, if there are any.

    Raises:
        StopFault: it is not in a cloud that is checked.
    """
    from farshore_engine.azure.readiness import check_site
    from farshore_engine.azurestack.readiness import check_site as check_hub
    from farshore_engine.azurestack.resourcemanager import ResourceManager
    from farshore_engine.checklist import Checklist
    from farshore_engine.contract.site import CloudTarget
    from farshore_engine.networkpath import path_to
    from farshore_operator.api.site import Provider
    from farshore_operator.decide.cloudtarget import cloud_site, credentials_ref, defaults_of
    from farshore_operator.decide.replicas import replica_storage
    from farshore_operator.decide.vaultaccess import cloud_login

    ref, field = credentials_ref(site)
    login = cloud_login(secret, ref.name, field) if ref is not None and secret is not None else None
    cloud = cloud_site(site, login)
    if cloud is not None and site.spec.provider is Provider.AZURE_STACK_HUB:
        found = Checklist()
        if not found.need("NetworkPath", lambda: path_to(cloud.endpoint).describe()):
            return tuple(found.lines)
        with ResourceManager(cloud) as manager:
            return (*found.lines, *check_hub(manager))
    if cloud is None or site.spec.provider is not Provider.AZURE:
        raise StopFault(
            f"site {site.metadata.name} has provider {site.spec.provider}; this is for azure and azureStackHub",
            "For a machine of another site: farshore doctor VM",
            reason="NotInAzure",
        )
    kept = site.spec.azure.replicas if site.spec.azure is not None else None
    replicas = partial(replica_storage, site, kept, secrets) if kept is not None else None
    return check_site(cloud, defaults_of(site) or CloudTarget(), replicas)
