"""References that do not resolve say which one, and heal when it appears."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from tests.cluster.operator_process import Installation, Manifest, condition, message, reason, samples

from farshore_operator.api import ProtectedVM, RecoveryVault, ReplicationPolicy, Site
from farshore_operator.api.recoveryvault import VaultPhase
from farshore_operator.kube.resources import SECRET

GROUND = ("Secret", "RecoveryVault", "Site", "ReplicationPolicy")
VM = "web-01"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with Installation(tmp_path_factory.mktemp("references")) as up:
        yield up


@pytest.fixture
def namespace(world: Installation) -> Iterator[str]:
    name = world.namespace(f"refs-{secrets.token_hex(3)}")
    yield name
    world.check_invariants(name)


def _ground(without: str = "") -> list[Manifest]:
    return [one for one in samples(*GROUND) if f"{one['kind']}/{one['metadata']['name']}" != without]


def _one(name: str) -> Manifest:
    return next(one for one in samples(*GROUND) if f"{one['kind']}/{one['metadata']['name']}" == name)


@pytest.mark.parametrize(
    ("missing", "expected", "sentence"),
    [
        pytest.param("ReplicationPolicy/standard", "ReplicationPolicyNotFound", "spec.policyRef", id="policy"),
        pytest.param("RecoveryVault/vault", "RecoveryVaultNotFound", "spec.vaultRef", id="vault"),
        pytest.param("Site/stack", "SiteNotFound", "spec.source.siteRef", id="source-site"),
        pytest.param("Site/shore", "SiteNotFound", "spec.target.siteRef", id="target-site"),
        pytest.param("Secret/web-ssh", "SecretNotFound", "spec.source.credentialsSecretRef", id="login"),
        pytest.param("Secret/vault-key", "SecretNotFound", "spec.encryption.keySecretRef", id="vault-key"),
    ],
)
def test_a_machine_names_what_is_missing_and_heals(
    world: Installation, namespace: str, missing: str, expected: str, sentence: str
) -> None:
    world.apply(namespace, *_ground(without=missing), *samples("ProtectedVM"))
    waits = world.wait(ProtectedVM, namespace, VM, lambda vm: reason(vm) == expected)
    assert sentence in message(waits)
    assert missing.split("/")[1] in message(waits)
    assert condition(waits, "Reconciling") == "True"
    assert waits.status.next_step is not None
    world.apply(namespace, _one(missing))
    # What is left is that there is no process server.
    world.wait(ProtectedVM, namespace, VM, lambda vm: reason(vm) == "NoProcessServer")


def _with_key(data: dict[str, Any]) -> Manifest:
    secret = deepcopy(_one("Secret/vault-key"))
    secret["stringData"] = data
    return secret


@pytest.mark.parametrize(
    ("secret", "expected", "sentence"),
    [
        pytest.param({"other": "x"}, "SecretKeyNotFound", "which has no key key (it has other)", id="other-key"),
        pytest.param({"key": ""}, "SecretKeyEmpty", "whose key key is empty", id="empty"),
        pytest.param({"key": "short"}, "SecretKeyInvalid", "is not 32 bytes, raw or in base64", id="too-short"),
    ],
)
def test_a_vault_checks_its_key_and_heals(
    world: Installation, namespace: str, secret: dict[str, str], expected: str, sentence: str
) -> None:
    world.apply(namespace, *_ground(without="Secret/vault-key"), _with_key(secret))
    waits = world.wait(RecoveryVault, namespace, "vault", lambda vault: reason(vault) == expected)
    assert sentence in message(waits)
    assert waits.status.phase is VaultPhase.PENDING
    world.admin.delete(SECRET, namespace, "vault-key")
    world.apply(namespace, _one("Secret/vault-key"))
    healed = world.wait(RecoveryVault, namespace, "vault", lambda vault: condition(vault, "Ready") == "True")
    assert healed.status.phase is VaultPhase.READY


def test_what_no_waiting_heals_is_stalled_with_its_remedy(world: Installation, namespace: str) -> None:
    vm = samples("ProtectedVM")[0]
    vm["spec"]["source"]["osType"] = "windows"
    world.apply(namespace, *_ground(), vm)
    stalled = world.wait(ProtectedVM, namespace, VM, lambda vm: condition(vm, "Stalled") == "True")
    assert reason(stalled) == "WindowsNotSupported"
    assert "engine: siteRecovery" in message(stalled)
    vault = {
        "apiVersion": "farshore.dev/v1alpha1",
        "kind": "RecoveryVault",
        "metadata": {"name": "asr"},
        "spec": {
            "engine": "siteRecovery",
            "azure": {
                "subscription": "s",
                "resourceGroup": "r",
                "vaultName": "v",
                "cacheStorageAccount": "c",
                "credentialsSecretRef": {"name": "asr-login"},
            },
        },
    }
    world.apply(namespace, vault)
    waits = world.wait(RecoveryVault, namespace, "asr", lambda found: reason(found) == "SecretNotFound")
    assert "asr-login" in message(waits)


def test_counts_follow_and_a_spec_change_is_observed(world: Installation, namespace: str) -> None:
    world.apply(namespace, *_ground(), *samples("ProtectedVM"))
    world.wait(RecoveryVault, namespace, "vault", lambda vault: vault.status.machines == 1)
    world.wait(Site, namespace, "stack", lambda site: site.status.machines == 1)
    policy = _one("ReplicationPolicy/standard")
    policy["spec"]["rpoThreshold"] = "20m"
    world.apply(namespace, policy)
    world.wait(
        ReplicationPolicy,
        namespace,
        "standard",
        lambda found: found.metadata.generation == 2 and found.status.observed_generation == 2,
    )
