"""The checks of a site in a cloud, from here: what its process server would find before it recovers a machine there."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from farshore_cli.doctoring.clouds import cloud_of_site
from farshore_cli.doctoring.cluster import current
from farshore_engine.contract.faults import StopFault

if TYPE_CHECKING:
    from farshore_cli.doctoring.cluster import Namespace
    from farshore_engine.contract.replication import Check
    from farshore_operator.api import Site


def site_checks(name: str, namespace: str) -> tuple[Check, ...]:
    """Read a Site from the cluster, and check it; raises Fault.

    Args:
        name: of the Site.
        namespace: where it is; empty for the current context's.
    """
    from farshore_operator.api import Site

    where = current(namespace)
    return checks_of(where.need(Site, name), where)


def checks_of(site: Site, where: Namespace) -> tuple[Check, ...]:
    """Check a site with the credential of its Secret; the identity of this host is used where it has none.

    Raises:
        StopFault: it is not in a cloud that is checked.
        Fault: its Secret is not there, or is none.
    """
    from farshore_engine.azure.readiness import check_site
    from farshore_engine.azurestack.readiness import check_site as check_hub
    from farshore_engine.azurestack.resourcemanager import ResourceManager
    from farshore_engine.checklist import Checklist
    from farshore_engine.contract.site import CloudTarget
    from farshore_engine.networkpath import path_to
    from farshore_operator.api.site import Provider
    from farshore_operator.decide.cloudtarget import defaults_of
    from farshore_operator.decide.replicas import replica_storage

    cloud = cloud_of_site(site, where)
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
    replicas = partial(replica_storage, site, kept, where.secret) if kept is not None else None
    return check_site(cloud, defaults_of(site) or CloudTarget(), replicas)
