"""By which way this host reaches an endpoint of Azure: what its name resolves to, and through which proxy.

A private address is a private endpoint: its name resolves to one only where the private DNS zone is used.
"""

from __future__ import annotations

import ipaddress
import socket
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from farshore_engine.contract.faults import StopFault

VPN = (
    "replication takes a public endpoint or ExpressRoute; a site-to-site VPN is not what Microsoft supports for "
    "replication traffic"
)
"""Source: "Replicate Azure Stack VMs to Azure" (traffic goes to public endpoints or by ExpressRoute; replication over a
site-to-site VPN from an on-premises site is not supported)."""
Resolve = Callable[[str], tuple[str, ...]]


@dataclass(frozen=True)
class NetworkPath:
    """The way to an endpoint. `addresses` is empty where a proxy resolves the name; `proxy` is `host:port`."""

    host: str
    port: int
    addresses: tuple[str, ...] = ()
    proxy: str = ""
    encrypted: bool = True

    @property
    def private(self) -> bool:
        """Whether every address is a private one."""
        return bool(self.addresses) and not any(ipaddress.ip_address(one).is_global for one in self.addresses)

    @property
    def local(self) -> bool:
        """Whether the endpoint is this host."""
        return bool(self.addresses) and all(ipaddress.ip_address(one).is_loopback for one in self.addresses)

    def describe(self) -> str:
        """Say which way it is."""
        where = f"{self.host} port {self.port}"
        if self.proxy:
            return f"{where} is reached through the HTTPS proxy {self.proxy}"
        shown = ", ".join(self.addresses)
        if self.local:
            return f"{where} is this host ({shown})"
        kind = "a private endpoint" if self.private else "the public endpoint"
        return f"{where} resolves to {shown}: {kind}"


def path_to(url: str, resolve: Resolve | None = None) -> NetworkPath:
    """Return the way to the host of a URL; nothing is sent to it.

    Raises:
        StopFault: its name is not known here, and no proxy would resolve it.
    """
    parts = urlsplit(url)
    encrypted = parts.scheme != "http"
    host, port = parts.hostname or "", parts.port or (443 if encrypted else 80)
    proxy = proxy_for(host, "https" if encrypted else "http")
    if proxy:
        return NetworkPath(host, port, proxy=proxy, encrypted=encrypted)
    try:
        found = (resolve or addresses_of)(host)
    except OSError as error:
        raise StopFault(
            f"the name {host} does not resolve here ({error.strerror or type(error).__name__})",
            f"Correct the name or this host's DNS; every process server needs HTTPS (port {port}) to it",
            reason="NameUnknown",
        ) from error
    return NetworkPath(host, port, found, encrypted=encrypted)


def addresses_of(host: str) -> tuple[str, ...]:
    """Return the addresses of a name, sorted; raises OSError."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(sorted({str(one[4][0]).partition("%")[0] for one in found}))


def proxy_for(host: str, scheme: str = "https") -> str:
    """Return `host:port` of the proxy that the environment names for a host, empty for none; no login of it."""
    known = urllib.request.getproxies()
    given = known.get(scheme) or known.get("all") or ""
    if not given or urllib.request.proxy_bypass(host):
        return ""
    parts = urlsplit(given if "//" in given else f"//{given}")
    return f"{parts.hostname or ''}:{parts.port or (443 if parts.scheme == 'https' else 80)}"
