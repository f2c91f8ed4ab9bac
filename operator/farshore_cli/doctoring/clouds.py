"""From a Site and its Secret to the cloud that is asked: with the credential of the Secret, or this host's identity."""

from __future__ import annotations

from typing import TYPE_CHECKING

from farshore_cli.doctoring.cluster import Namespace

if TYPE_CHECKING:
    from farshore_engine.contract.site import CloudSite
    from farshore_operator.api import Site


def cloud_of_site(site: Site, where: Namespace) -> CloudSite | None:
    """Return how a site's cloud is reached, None for a site that is none.

    Raises:
        Fault: its Secret is not there, or is none.
    """
    from farshore_operator.decide.cloudtarget import cloud_site, credentials_ref
    from farshore_operator.decide.vaultaccess import cloud_login

    ref, field = credentials_ref(site)
    login = cloud_login(where.secret(ref.name, field), ref.name, field) if ref is not None else None
    return cloud_site(site, login)
