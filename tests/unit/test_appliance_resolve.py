"""What a process server is told of a machine: references resolved, or named when they do not."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest

from farshore_engine.contract.faults import WaitFault
from farshore_operator.api import (
    ProcessServer,
    ProtectedVM,
    RecoveryVault,
    ReplicationPolicy,
    Resource,
    Site,
    Task,
)
from farshore_operator.kube.appliance.resolve import Resolver

ResourceT = TypeVar("ResourceT", bound=Resource)
SEEN = "ssh-ed25519 AAAAseen"
NEW = "ssh-ed25519 AAAAnew"
SECRETS = {
    "web-ssh": {"username": b"admin", "password": b"pass-word\n"},
    "vault-storage": {"accountKey": b"a2V5"},
    "vault-key": {"key": bytes(range(32))},
}


def objects(**source: Any) -> list[dict[str, Any]]:
    """Return one machine and everything that it refers to."""
    replication = {"processServer": "ps-1", "epoch": 1, "state": "Replicating", "agent": {"hostKey": SEEN}}
    blob = {
        "accountURL": "https://a.example",
        "container": "vault",
        "credential": {"secretRef": {"name": "vault-storage"}},
    }
    return [
        {
            "kind": "ProtectedVM",
            "spec": {
                "source": {"siteRef": {"name": "stack"}, "address": "10.0.0.4",
                           "credentialsSecretRef": {"name": "web-ssh"}, **source},
                "policyRef": {"name": "standard"}, "vaultRef": {"name": "vault"},
                "target": {"siteRef": {"name": "shore"}},
            },
            "status": {"assignment": {"processServer": "ps-1", "epoch": 1}, "replication": replication},
            "metadata": {"name": "web-01"},
        },
        {"kind": "ReplicationPolicy", "metadata": {"name": "standard"}, "spec": {}},
        {"kind": "Site", "metadata": {"name": "stack"}, "spec": {"provider": "local"}},
        {
            "kind": "RecoveryVault",
            "metadata": {"name": "vault"},
            "spec": {
                "storage": {"azureBlob": blob},
                "encryption": {"keySecretRef": {"name": "vault-key", "key": "key"}},
            },
        },
    ]  # fmt: skip


class World:
    """The objects and Secrets of one namespace."""

    def __init__(self, bodies: list[dict[str, Any]], secrets: Mapping[str, Mapping[str, bytes]]) -> None:
        models = {"ProtectedVM": ProtectedVM, "RecoveryVault": RecoveryVault, "Site": Site}
        models |= {"ReplicationPolicy": ReplicationPolicy, "Task": Task, "ProcessServer": ProcessServer}
        self.found = [
            models[body["kind"]].of({**body, "metadata": {**body["metadata"], "namespace": "shop"}}) for body in bodies
        ]
        self.secrets = secrets

    def find(self, model: type[ResourceT], name: str) -> ResourceT | None:
        return next((one for one in self.all(model) if one.metadata.name == name), None)

    def all(self, model: type[ResourceT]) -> list[ResourceT]:
        return [one for one in self.found if isinstance(one, model)]

    def get(self, name: str) -> Mapping[str, bytes] | None:
        return self.secrets.get(name)


def resolve(bodies: list[dict[str, Any]], secrets: Mapping[str, Mapping[str, bytes]] = SECRETS) -> Any:
    world = World(bodies, secrets)
    return Resolver("ps-1", world, world, lambda: datetime(2026, 1, 1, tzinfo=UTC)).resolve()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param({}, SEEN, id="the key that was seen first stays pinned"),
        pytest.param({"hostKey": NEW}, NEW, id="a key in the manifest is the one that counts"),
    ],
)
def test_which_host_key_is_expected(source: dict[str, Any], expected: str) -> None:
    (machine,) = resolve(objects(**source)).machines
    assert machine.source.host_key == expected


def test_the_host_key_of_a_recovered_machine_is_not_expected_of_the_one_at_home() -> None:
    bodies = objects()
    bodies[0]["status"]["replication"]["processServer"] = "ps-2"
    recovering = {"kind": "ProcessServer", "metadata": {"name": "ps-2"}, "spec": {"siteRef": {"name": "shore"}}}
    (machine,) = resolve([*bodies, recovering]).machines
    assert machine.source.host_key is None


def start_task() -> dict[str, Any]:
    given = {"machineId": "shop.web-01", "point": "p-1", "machineName": "web-01"}
    spec = {"kind": "StartMachine", "processServer": "ps-1", "protectedVM": "web-01", "input": given}
    return {"kind": "Task", "metadata": {"name": "start"}, "spec": spec}


def test_a_machine_starts_without_a_login_that_is_gone_and_waits_for_one_that_may_not_be_read_yet() -> None:
    """It was started without, and could never be protected where it runs: nobody could log in to it."""
    bodies = [*objects(), start_task()]
    (task,) = resolve(bodies).tasks
    assert task.source.credentials.username == "admin"
    (task,) = resolve(bodies, {name: data for name, data in SECRETS.items() if name != "web-ssh"}).tasks
    assert task.source is None

    class NotYet(World):
        def get(self, name: str) -> Mapping[str, bytes] | None:
            if name == "web-ssh":
                raise WaitFault("may not read it yet", reason="SecretForbidden")
            return super().get(name)

    world = NotYet(bodies, SECRETS)
    resolved = Resolver("ps-1", world, world, lambda: datetime(2026, 1, 1, tzinfo=UTC)).resolve()  # type: ignore[arg-type]
    assert resolved.tasks == ()
    assert [trouble.fault.message for trouble in resolved.troubled] == ["may not read it yet"]


def test_a_resolved_machine_has_login_policy_and_vault() -> None:
    (machine,) = resolve(objects()).machines
    assert machine.machine_id == "shop.web-01"
    assert machine.source.credentials.username == "admin"
    assert machine.source.credentials.password.get_secret_value() == "pass-word"
    assert machine.vault.storage.account_key.get_secret_value() == "a2V5"
    assert machine.vault.key.get_secret_value() == bytes(range(32))
    assert "pass-word" not in repr(machine)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("vault-key", "RecoveryVault vault spec.encryption.keySecretRef names Secret vault-key, which does not exist"),
        ("web-ssh", "spec.source.credentialsSecretRef names Secret web-ssh, which does not exist"),
    ],
)
def test_a_missing_secret_is_named_and_waited_for(missing: str, message: str) -> None:
    (broken,) = resolve(objects(), {name: data for name, data in SECRETS.items() if name != missing}).broken
    assert broken.message == message
    assert broken.waits


@pytest.mark.parametrize(
    ("secret", "key"),
    [
        pytest.param("web-ssh", "privateKey", id="a private key in DER"),
        pytest.param("web-ssh", "username", id="a login"),
        pytest.param("vault-storage", "accountKey", id="a storage key that was decoded once too often"),
    ],
)
def test_a_value_that_is_no_text_is_named_and_not_shown(secret: str, key: str) -> None:
    """It ended the thread that makes snapshots: none of the server's machines heard of anything any more."""
    (broken,) = resolve(objects(), {**SECRETS, secret: {**SECRETS[secret], key: b"\x30\x82\xff"}}).broken
    assert f"key {key} of Secret {secret} is not text" in broken.message
    assert not broken.waits and "x82" not in broken.message


def test_a_bandwidth_schedule_changes_the_assignment_when_its_window_opens_and_closes() -> None:
    """Nothing else changes then, so the process server's snapshot must be made anew by the clock."""
    window = {"begin": "08:00", "to": "18:00", "limit": "10Mi"}
    bodies = objects()
    policy = next(body for body in bodies if body["kind"] == "ReplicationPolicy")
    policy["spec"] = {"bandwidth": {"limit": "100Mi", "schedule": [window]}}
    world, clock = World(bodies, SECRETS), [datetime(2026, 1, 1, tzinfo=UTC)]
    resolver = Resolver("ps-1", world, world, lambda: clock[0])  # type: ignore[arg-type]
    seen = []
    for hour in (7, 8, 17, 18):
        clock[0] = datetime(2026, 1, 1, hour, 30 if hour != 18 else 0, tzinfo=UTC)
        (machine,) = resolver.resolve().machines
        seen.append(machine.policy.bandwidth_limit >> 20)
    assert seen == [100, 10, 10, 100]


def test_the_members_of_a_consistency_group_are_those_that_replicate() -> None:
    bodies = objects()
    vm = next(body for body in bodies if body["kind"] == "ProtectedVM")
    vm["spec"]["consistencyGroup"] = "shop"
    others = [
        {**vm, "metadata": {"name": name}, "status": {**vm["status"], "desired": desired}}
        for name, desired in (("db-01", "Replicate"), ("db-02", "Pause"), ("db-03", "Stop"))
    ]
    machines = {machine.name: machine for machine in resolve([*bodies, *others]).machines}
    group = machines["web-01"].consistency_group
    assert (group.name, group.members) == ("shop", ("shop.db-01", "shop.web-01"))
    assert machines["db-01"].consistency_group == group
