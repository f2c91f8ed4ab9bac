"""The checks of a vault of engine siteRecovery: what its driver asks, with Microsoft's cause and remedy."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

from farshore_cli.doctoring.clouds import cloud_of_vault, credential_of
from farshore_cli.doctoring.cluster import Namespace
from farshore_engine.azure.cloud import PUBLIC
from farshore_engine.azure.place import same_region
from farshore_engine.checklist import Checklist
from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.networkpath import path_to
from farshore_operator.engines.siterecovery import naming, reading
from farshore_operator.engines.siterecovery.decide.verdict import checks
from farshore_operator.engines.siterecovery.facts import Appliance, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from farshore_operator.api import RecoveryVault
    from farshore_operator.api.recoveryvault import AzureVault
    from farshore_operator.engines.siterecovery.client import VaultClient

REST = ("Vault", "Experience", "Server", "Health", "Policy", "CacheStorage")
SKEW = "Its clock may differ from Azure's by five minutes; check HTTPS to Azure and its services"


def check_service(found: Checklist, vault: RecoveryVault, where: Namespace, now: Callable[[], datetime]) -> None:
    """Add the checks of a Recovery Services vault to the list."""
    from farshore_operator.engines.siterecovery.client import VaultClient
    from farshore_operator.kube.siterecovery import settings_of

    azure = vault.spec.azure
    if azure is None:
        found.need("Vault", lambda: _no_settings())
        return
    client: list[VaultClient] = []

    def login() -> str:
        client.append(VaultClient(settings_of(azure, credential_of(azure, where))))
        exists.append(reading.vault_exists(client[0]))
        return f"Resource Manager takes the login for subscription {azure.subscription}"

    exists: list[bool] = []
    endpoint = azure.resource_manager_endpoint or PUBLIC
    if not found.need("NetworkPath", lambda: path_to(endpoint).describe()):
        found.skip(("Login", *REST), "Resource Manager cannot be reached")
        return
    if not found.need("Login", login):
        found.skip(REST, "Azure does not let us in")
        return
    found.need("Vault", lambda: _vault(azure, exists[0]))
    if exists[0]:
        _servers(found, client[0], azure, now)
    else:
        found.skip(("Experience", "Server", "Health", "Policy"), "there is no vault")
    found.ask("CacheStorage", lambda: _cache(azure, where))


def _servers(found: Checklist, client: VaultClient, azure: AzureVault, now: Callable[[], datetime]) -> None:
    known: list[tuple[Appliance, ...]] = []

    def experience() -> str:
        known.append(reading.appliances(client))
        return _experience(known[0])

    if not found.ask("Experience", experience) and not known:
        found.skip(("Server", "Health", "Policy"), "the servers cannot be listed")
        return
    settings = azure.site_recovery
    named = (settings.appliance or "") if settings is not None else ""
    chosen = [one for one in known[0] if not named or named.lower() in (one.name.lower(), one.friendly.lower())]
    found.ask("Server", lambda: _server(known[0], chosen, named, now()))
    for one in checks(tuple(dict.fromkeys(problem for each in known[0] for problem in each.problems))):
        found.lines.append(one)
    if not any(problem for each in known[0] for problem in each.problems):
        found.ask("Health", lambda: "Site Recovery reports no health error of servers and process servers")
    if len(chosen) == 1:
        found.ask("Policy", lambda: _policies(client, chosen[0]))
    else:
        found.skip(("Policy",), "it is not clear which server machines replicate through")


def _no_settings() -> str:
    raise StopFault("the vault names no Recovery Services vault", "Set spec.azure", reason="VaultNotUsable")


def _vault(azure: AzureVault, exists: bool) -> str:
    where = f"Recovery Services vault {azure.vault_name} of resource group {azure.resource_group}"
    if exists:
        return f"{where} is there"
    if azure.region:
        raise WaitFault(
            f"there is no {where} yet", "The operator makes it, as spec.azure.region asks", reason="NoVault"
        )
    raise StopFault(
        f"there is no {where}",
        "Make it, correct spec.azure, or set spec.azure.region to have it made",
        reason="NoVault",
    )


def _experience(servers: tuple[Appliance, ...]) -> str:
    kinds = {one.scenario for one in servers}
    if not kinds:
        return "no server tells it yet; a new vault takes replication appliances only (modernized)"
    if len(kinds) > 1:
        return "classic and modernized: it is being switched"
    if Scenario.CLASSIC in kinds:
        # source: "Deprecation of classic experience": Microsoft ends it, new vaults do not have it
        raise WaitFault(
            "classic: machines replicate through a configuration server, which Microsoft retires",
            "Plan the switch to a replication appliance (modernized), or to engine native",
            reason="Classic",
        )
    return "modernized: machines replicate through a replication appliance"


def _server(servers: tuple[Appliance, ...], chosen: list[Appliance], named: str, now: datetime) -> str:
    names = ", ".join(one.friendly for one in servers)
    if not servers:
        raise StopFault(
            "no configuration server or replication appliance is registered",
            "Set one up beside the machines and register it with the vault's key, which the portal issues under Site "
            "Recovery infrastructure and which is good for five days",
            reason="NoServerRegistered",
        )
    if len(chosen) != 1:
        what = f"there is no server {named}" if named else "there is more than one server"
        raise StopFault(
            f"{what}: the vault has {names}", "Name one in spec.azure.siteRecovery.appliance", reason="ServerAmbiguous"
        )
    one = chosen[0]
    if not one.connected:
        heard = f" since {one.heartbeat:%Y-%m-%dT%H:%M:%SZ}" if one.heartbeat is not None else ""
        raise StopFault(
            f"Site Recovery has not heard of {one.friendly}{heard}", f"Start it. {SKEW}", reason="ServerNotConnected"
        )
    ago = f", heard {(now - one.heartbeat).total_seconds():.0f} s ago" if one.heartbeat is not None else ""
    parts = ", ".join(f"{server.name} ({server.health or 'health unknown'})" for server in one.process_servers)
    return f"{one.friendly} {one.version} is registered and connected{ago}; process servers: {parts or 'none told'}"


def _policies(client: VaultClient, of: Appliance) -> str:
    known = reading.policies(client, of)
    mapped = sorted(name for name, one in known.items() if of.container in one.mapped)
    if not mapped:
        return "no policy is mapped to the server yet: the operator makes one for each ReplicationPolicy in use"
    return f"mapped to {of.friendly}: {', '.join(mapped)}"


def _cache(azure: AzureVault, where: Namespace) -> str:
    from farshore_engine.azure.cloud import Cloud
    from farshore_engine.azure.network import group_of

    wanted = azure.cache_storage_account or ""
    if not wanted:
        raise StopFault(
            "spec.azure.cacheStorageAccount names no storage account, through which Site Recovery replicates",
            "Set it to the resource ID of a general-purpose account in the vault's region",
            reason="NoCacheStorage",
        )
    site = cloud_of_vault(azure, azure.vault_name, where)
    if wanted.startswith("/subscriptions/"):
        site = site.model_copy(update={"subscription": wanted.split("/")[2]})
    group, name = group_of(wanted) or azure.resource_group, naming.last(wanted)
    cloud = Cloud(site)
    try:
        found = cloud.find(
            f"look for storage account {name}", lambda: cloud.storage.storage_accounts.get_properties(group, name)
        )
    finally:
        cloud.close()
    return judge_cache(found, name, azure.region or "")


def judge_cache(account: object, name: str, region: str) -> str:
    """Say whether a storage account (SDK object, None for none) can be the cache of replication; raises StopFault.

    Source: "Support matrix for disaster recovery of VMware VMs and physical servers to Azure" (general-purpose
    accounts, in the vault's region); that a hierarchical namespace is refused is [inf].
    """
    wrong = ""
    kind, sku = _text(getattr(account, "kind", "")), _text(getattr(getattr(account, "sku", None), "name", ""))
    place = str(getattr(account, "location", ""))
    if account is None:
        wrong = f"there is no storage account {name}"
    elif kind not in ("Storage", "StorageV2"):
        wrong = f"storage account {name} is a {kind}, and replication needs a general-purpose one"
    elif getattr(account, "is_hns_enabled", False):
        wrong = f"storage account {name} has a hierarchical namespace"
    elif region and not same_region(place, region):
        wrong = f"storage account {name} is in {place}, and the vault in {region}"
    if wrong:
        raise StopFault(
            wrong, "Name a standard general-purpose account of the vault's region", reason="BadCacheStorage"
        )
    return f"{name} is a {kind} of {sku} in {place}"


def _text(value: object) -> str:
    return str(getattr(value, "value", value) or "")
