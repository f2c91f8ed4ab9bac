"""What a machine becomes in a cloud: its own wishes, else the plan's, else those of its recovery site."""

from __future__ import annotations

from farshore_engine.contract.site import CloudCredential, CloudInterface, CloudProvider, CloudSite, CloudTarget
from farshore_operator.api import ProtectedVM, Site
from farshore_operator.api.failoverplan import Overrides
from farshore_operator.api.resource import Reference
from farshore_operator.api.site import AzureSite, AzureStackHubSite, Provider
from farshore_operator.api.target import Target, TargetDefaults

NOTHING = TargetDefaults()
AS_PLANNED = Overrides()


def settings(site: Site) -> AzureSite | AzureStackHubSite | None:
    """Return where the cloud of a site is, None for a site that is none."""
    return site.spec.azure if site.spec.provider is Provider.AZURE else site.spec.azure_stack_hub


def credentials_ref(site: Site) -> tuple[Reference | None, str]:
    """Return the Secret with the principal of a site's cloud, and the field that names it."""
    found = settings(site)
    field = f"Site {site.metadata.name} spec.{site.spec.provider.value}.credentialsSecretRef"
    return (found.credentials_secret_ref if found is not None else None), field


def cloud_site(site: Site, credential: CloudCredential | None) -> CloudSite | None:
    """Return the site as the engine reaches it, None for one that is no cloud."""
    found = settings(site)
    if found is None:
        return None
    azure, hub = site.spec.azure, site.spec.azure_stack_hub
    made = CloudSite(
        name=site.metadata.name,
        provider=CloudProvider(site.spec.provider.value),
        subscription=found.subscription,
        resource_group=found.resource_group,
        region=found.region,
        endpoint=(found.resource_manager_endpoint or "").rstrip("/"),
        authority=(azure.authority_host or "") if azure is not None else "",
        ca_bundle=found.ca_bundle or "",
        credential=credential,
    )
    return made.model_copy(update={"identity_system": hub.identity_system}) if hub is not None else made


def defaults_of(site: Site) -> CloudTarget | None:
    """Return what machines become that say nothing themselves, None where the site is no cloud."""
    return _target(site, NOTHING, "", "", drill=False) if settings(site) is not None else None


def cloud_target(
    vm: ProtectedVM, site: Site, own: Overrides = AS_PLANNED, *, network: str = "", drill: bool = False
) -> CloudTarget | None:
    """Return what the machine becomes at its recovery site, None where that is no cloud.

    Args:
        network: that it joins, if it is another than what the manifest says; a drill without one gets its own.
        drill: its private address and its availability set stay free for the failover.
    """
    if settings(site) is None:
        return None
    wished = vm.spec.target
    found = _target(site, wished, network, own.size or "", drill=drill)
    asked = tuple(
        CloudInterface(
            subnet=one.subnet or "", private_ip="" if drill else one.private_ip or "", primary=one.primary or False
        )
        for one in wished.interfaces
    )
    return found.model_copy(update={"private_ip": "" if drill else wished.private_ip or "", "interfaces": asked})


def asked_addresses(wished: Target) -> tuple[str, ...]:
    """Return the private addresses that a machine asks for, in the order of its interfaces."""
    own = (wished.private_ip,) if wished.private_ip else ()
    return (*own, *(one.private_ip for one in wished.interfaces if one.private_ip))


def _target(site: Site, wished: TargetDefaults, network: str, size: str, *, drill: bool) -> CloudTarget:
    known = site.spec.defaults or NOTHING
    disk_type = wished.disk_type or known.disk_type
    return CloudTarget(
        resource_group=wished.resource_group or known.resource_group or "",
        size=size or wished.size or known.size or "",
        network=network or wished.network or known.network or "",
        subnet=wished.subnet or known.subnet or "",
        availability_set="" if drill else wished.availability_set or known.availability_set or "",
        zone=wished.zone or known.zone or "",
        disk_type=disk_type.value if disk_type is not None else "",
        tags={**(known.tags or {}), **(wished.tags or {})},
    )
