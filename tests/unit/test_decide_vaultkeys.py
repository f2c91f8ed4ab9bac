"""What a RecoveryVault says while its key is rotated, as a table."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from tests.unit.decide_world import meta

from farshore_engine.contract.assignment import AzureBlobAccess
from farshore_engine.contract.replication import KeyReport
from farshore_operator.api import RecoveryVault
from farshore_operator.decide.recoveryvault import ObservedVault, decide
from farshore_operator.decide.vaultaccess import vault_access

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DONE = KeyReport(current="new", wrapped=True)
BOTH = KeyReport(current="new", wrapped=True, previous=("old",))
BEHIND = KeyReport(current="new", wrapped=False, previous=("old",), needed=("old",), message="no answer")
SPEC = {
    "storage": {"azureBlob": {"accountURL": "https://a.example", "container": "vault",
                              "credential": {"secretRef": {"name": "storage"}}}},
    "encryption": {
        "keyVault": {"url": "https://kv.example", "keyName": "k", "credentialsSecretRef": {"name": "login"}},
        "previousKeys": [{"keySecretRef": {"name": "old-key", "key": "key"}, "remove": True}],
    },
    "immutability": {"mode": "Locked", "period": "7d"},
}  # fmt: skip


def vault(**changes: object) -> RecoveryVault:
    return RecoveryVault.of({"metadata": meta("vault"), "spec": {**SPEC, **changes}})


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param((DONE, BEHIND), ("False", "KeyNeeded", "1 of 2 machines still need a previous key"), id="behind"),
        pytest.param((DONE, None), ("False", "NotKnown", "1 machines were not opened yet"), id="one never opened"),
        pytest.param((BOTH, DONE), ("True", "Wrapped", "set remove: true"), id="every machine has the new wrap"),
        pytest.param((DONE, DONE), ("True", "Removed", "destroy those keys"), id="the old wraps are gone"),
    ],
)
def test_when_the_old_key_is_needed_no_more(keys: tuple[KeyReport | None, ...], expected: tuple[str, str, str]) -> None:
    status = decide(ObservedVault(vault(), (), len(keys), keys), NOW).status
    assert status is not None
    (condition,) = [one for one in status.conditions if one.type == "KeysRotated"]
    assert (condition.status, condition.reason) == expected[:2]
    assert expected[2] in condition.message


def test_without_previous_keys_there_is_no_such_condition() -> None:
    plain = vault(encryption={"keySecretRef": {"name": "k", "key": "key"}})
    status = decide(ObservedVault(plain, (), 1, (DONE,)), NOW).status
    assert status is not None and status.keys is not None
    assert "KeysRotated" not in {one.type for one in status.conditions}
    assert (status.keys.current_key, status.keys.machines, status.keys.wrapped) == ("new", 1, 1)


def test_keys_and_locks_reach_the_appliance() -> None:
    secrets = {
        "storage": {"accountKey": b"a2V5"},
        "login": {"tenantId": b"t\n", "clientId": b"c", "clientSecret": b"s", "authorityHost": b"login.example"},
        "old-key": {"key": bytes(range(32))},
    }
    access = vault_access(vault(), lambda name, field: secrets[name])
    assert (access.key.tenant_id, access.key.authority) == ("t", "login.example")
    assert access.previous_keys[0].remove and access.previous_keys[0].key.get_secret_value() == bytes(range(32))
    assert (access.immutable_for.days, access.immutable_locked) == (7, True)
    assert "client_secret=SecretStr('**" in repr(access)


def test_a_login_by_token_reaches_the_appliance() -> None:
    blob = {"accountURL": "https://a.example", "container": "vault"}
    login = {"tenantId": b"t\n", "clientId": b"c", "clientSecret": b"s", "authorityHost": b"login.example"}
    encryption = {"keySecretRef": {"name": "k", "key": "key"}}

    def access(**credential: object) -> AzureBlobAccess:
        given = vault(storage={"azureBlob": {**blob, **credential}}, encryption=encryption)
        found = vault_access(given, lambda name, field: {"k": {"key": bytes(32)}, "storage": login}[name]).storage
        assert isinstance(found, AzureBlobAccess)
        return found

    named = access(credential={"kind": "servicePrincipal", "secretRef": {"name": "storage"}})
    assert named.principal is not None and named.authority == "login.example"
    assert (named.principal.tenant_id, named.principal.client_id) == ("t", "c")
    assert access() == AzureBlobAccess(account_url="https://a.example", container="vault")
