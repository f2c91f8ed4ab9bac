"""By which way a host reaches what recovery in Azure talks to: Resource Manager, the token service, disks."""

from __future__ import annotations

from farshore_engine.azure.cloud import PUBLIC
from farshore_engine.contract.site import CloudSite
from farshore_engine.networkpath import VPN, Resolve, path_to, proxy_for

AUTHORITY = "login.microsoftonline.com"
DISKS = "blob.storage.azure.net"
"""The domain of disks' own endpoints, which get their names when a disk is uploaded to. Source: "Upload a VHD to Azure
or copy a managed disk to another region" and "Restrict import and export access for managed disks using Private
Link"."""


def network_path(site: CloudSite, resolve: Resolve | None = None) -> str:
    """Say what the endpoints of a site resolve to here, and which proxy is used; nothing is sent to them.

    Raises:
        StopFault: a name does not resolve.
    """
    authority = site.authority or AUTHORITY
    known = [path_to(site.endpoint or PUBLIC, resolve)]
    known.append(path_to(authority if "//" in authority else f"https://{authority}", resolve))
    proxy = proxy_for(f"disk.{DISKS}")
    disks = f"through the proxy {proxy}" if proxy else "directly"
    told = "; ".join(one.describe() for one in known)
    return (
        f"{told}; disks are uploaded {disks} to *.{DISKS}, port 443; machines of the source send to the process server "
        f"over TLS (port 9443); {VPN}"
    )
