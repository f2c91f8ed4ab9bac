"""What a Hub says of itself to anybody: who gives out tokens for it, and for which audience."""

from __future__ import annotations

import atexit
import functools
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from azure.core import PipelineClient
from azure.core.exceptions import AzureError, HttpResponseError
from azure.core.pipeline.policies import ProxyPolicy, RetryPolicy, UserAgentPolicy
from azure.core.rest import HttpRequest

from farshore_engine.azurestack.faults import translate
from farshore_engine.azurestack.profile import METADATA
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.site import CloudSite, IdentitySystem

USER_AGENT = "farshore"
ADFS_TENANT = "adfs"
"""Tenant that clients of AD FS name: the path of its token service. Source: MSAL ("https://contoso.com/adfs")."""
TIMES: dict[str, Any] = {"connection_timeout": 5.0, "read_timeout": 30.0}


@dataclass(frozen=True)
class Endpoints:
    """Where the tokens of a Hub come from. `authority` is a host; `tenant` is empty where the principal's counts."""

    authority: str
    tenant: str
    audience: str

    @property
    def scope(self) -> str:
        """What a token is asked for."""
        return f"{self.audience.rstrip('/')}/.default"


@functools.cache
def ca_file(pem: str) -> str:
    """Return a file with these CA certificates; it lives as long as this process."""
    with tempfile.NamedTemporaryFile("w", prefix="farshore-ca-", suffix=".pem", delete=False) as file:
        file.write(pem)
    atexit.register(Path(file.name).unlink, missing_ok=True)
    return file.name


def verify(site: CloudSite) -> str | bool:
    """Return what TLS is verified with: the site's own CA, or the system's."""
    return ca_file(site.ca_bundle) if site.ca_bundle else True


def discover(site: CloudSite, **options: Any) -> Endpoints:
    """Ask a Hub's `/metadata/endpoints`; `options` go to the retry policy.

    Raises:
        WaitFault: it does not answer.
        StopFault: its certificate is not trusted, or what it says is no Hub's metadata or of another identity system.
    """
    endpoint = site.endpoint.rstrip("/")
    policies = [UserAgentPolicy(USER_AGENT), ProxyPolicy(), RetryPolicy(**options)]
    client: PipelineClient[Any, Any] = PipelineClient(
        endpoint, policies=policies, connection_verify=verify(site), **TIMES
    )
    request = HttpRequest("GET", f"{endpoint}/metadata/endpoints", params={"api-version": METADATA})
    with client:
        try:
            response = client.send_request(request)
            response.raise_for_status()
            found = response.json()
        except HttpResponseError as error:
            raise translate(error, "read the metadata", endpoint) from error
        except AzureError as error:
            raise translate(error, "read the metadata", endpoint) from error
        except ValueError as error:
            raise _no_hub(endpoint) from error
    return parse(found, site)


def parse(found: Any, site: CloudSite) -> Endpoints:
    """Read the metadata.

    With AD FS the login endpoint ends in `/adfs`. Source: "Connect to Azure Stack Hub", and that aks-engine and the
    Azure CLI go by it.
    """
    authentication = found.get("authentication") if isinstance(found, dict) else None
    login = str((authentication or {}).get("loginEndpoint") or "")
    audiences = (authentication or {}).get("audiences") or []
    parts = urlsplit(login)
    if not parts.netloc or not audiences or parts.scheme != "https":
        raise _no_hub(site.endpoint)
    adfs = parts.path.strip("/").lower() == ADFS_TENANT
    if adfs != (site.identity_system is IdentitySystem.ADFS):
        is_one, set_one = ("ADFS", "AzureAD") if adfs else ("AzureAD", "ADFS")
        raise StopFault(
            f"the Hub {site.endpoint} logs in with {is_one}, and site {site.name} says {set_one}",
            f"Set spec.azureStackHub.identitySystem: {is_one}",
            reason="HubIdentity",
        )
    return Endpoints(site.authority or parts.netloc, ADFS_TENANT if adfs else "", str(audiences[0]))


def _no_hub(endpoint: str) -> StopFault:
    return StopFault(
        f"{endpoint} does not answer as a Resource Manager of Azure Stack Hub does",
        "Set spec.azureStackHub.resourceManagerEndpoint to the tenants' endpoint, "
        "such as https://management.local.azurestack.external",
        reason="NoHub",
    )
