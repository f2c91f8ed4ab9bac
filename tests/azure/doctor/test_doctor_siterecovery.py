"""`farshore doctor vault` of a Recovery Services vault: login, servers, health, policies, cache, all by reading."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from tests.azure.doctor.played import NAMESPACE, PlayedCluster, by_name, errors
from tests.azure.siterecovery_sim.conftest import GROUP, VAULT, Cloud

from farshore_cli.doctoring.siterecovery import judge_cache
from farshore_cli.doctoring.vault import checks_of
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.replication import Check, CheckResult
from farshore_operator.api import RecoveryVault


def checks(cloud: Cloud, secret: str = "", **azure: Any) -> tuple[Check, ...]:
    login = cloud.sim.credential()
    cluster = PlayedCluster()
    cluster.secret(
        "azure", tenantId=login.tenant_id, clientId=login.client_id, clientSecret=secret or login.client_secret
    )
    spec = {
        "engine": "siteRecovery",
        "azure": {
            "subscription": cloud.sim.subscription, "resourceGroup": GROUP, "vaultName": VAULT,
            "cacheStorageAccount": cloud.storage_id, "credentialsSecretRef": {"name": "azure"},
            "resourceManagerEndpoint": cloud.sim.endpoint, "authorityHost": cloud.sim.authority,
            "caBundle": cloud.sim.ca_bundle.read_text(), **azure,
        },
    }  # fmt: skip
    vault = RecoveryVault.of({"metadata": {"name": "asr", "namespace": NAMESPACE}, "spec": spec})
    return checks_of(vault, cluster.where, now=cloud.sr.clock.now)


def classic(cloud: Cloud) -> Any:
    vault = cloud.sr.vault(GROUP, VAULT, classic=True)
    return cloud.sr.unified_setup(vault, "cs1")


def test_a_vault_in_order_is_only_read(cloud: Cloud) -> None:
    vault = cloud.sr.vault(GROUP, VAULT)
    cloud.sr.appliance(vault, "appliance1")
    cloud.sim.calls.clear()
    found = checks(cloud)
    assert errors(found) == set() and len(found) == 8
    told = by_name(found)
    assert "modernized" in told["Experience"].message and "appliance1" in told["Server"].message
    assert "contosologs is a StorageV2" in told["CacheStorage"].message
    assert {one.method for one in cloud.sim.calls if one.plane == "arm"} == {"GET"}


def test_a_classic_vault_warns_of_its_end(cloud: Cloud) -> None:
    classic(cloud)
    found = checks(cloud)
    assert errors(found) == set() and by_name(found)["Experience"].result is CheckResult.WARNING


def test_troubles_of_the_server_are_told_with_microsofts_cause_and_remedy(cloud: Cloud) -> None:
    server = classic(cloud)
    server.servers[0].suffer("806")
    cloud.sr.lose_heartbeat(server, ago=timedelta(hours=1))
    found = checks(cloud)
    assert "Server" in errors(found) and "has not heard of cs1" in by_name(found)["Server"].message
    told = [one for one in found if "806" in one.name + one.message]
    assert told and told[0].remedy


@pytest.mark.parametrize(
    ("azure", "secret", "wrong"),
    [
        pytest.param({}, "", {"Server"}, id="no server"),
        pytest.param({}, "wrong", {"Login"}, id="wrong secret"),
        pytest.param({"vaultName": "other"}, "", {"Vault"}, id="no such vault"),
        pytest.param(
            {"vaultName": "other", "cacheStorageAccount": "nothing"}, "", {"Vault", "CacheStorage"}, id="both"
        ),
        pytest.param(
            {"resourceManagerEndpoint": "https://nowhere.invalid"}, "", {"NetworkPath"}, id="no such endpoint"
        ),
    ],
)
def test_each_thing_that_is_wrong(cloud: Cloud, azure: dict[str, Any], secret: str, wrong: set[str]) -> None:
    cloud.sr.vault(GROUP, VAULT)
    found = checks(cloud, secret, **azure)
    assert errors(found) == wrong
    assert "wrong" not in [one.message for one in found]


def test_a_server_that_is_named_and_not_there(cloud: Cloud) -> None:
    classic(cloud)
    found = checks(cloud, siteRecovery={"appliance": "cs9"})
    assert errors(found) == {"Server"} and "the vault has cs1" in by_name(found)["Server"].message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"kind": "BlobStorage"}, "is a BlobStorage", id="kind"),
        pytest.param({"is_hns_enabled": True}, "hierarchical namespace", id="hierarchical namespace"),
        pytest.param({"location": "northeurope"}, "is in northeurope", id="region"),
    ],
)
def test_accounts_that_cannot_be_the_cache(change: dict[str, Any], said: str) -> None:
    good = {"kind": "StorageV2", "sku": SimpleNamespace(name="Standard_LRS"), "location": "westeurope",
            "is_hns_enabled": False}  # fmt: skip
    assert judge_cache(SimpleNamespace(**good), "logs", "westeurope").startswith("logs is a StorageV2")
    with pytest.raises(StopFault, match=said):
        judge_cache(SimpleNamespace(**{**good, **change}), "logs", "westeurope")
