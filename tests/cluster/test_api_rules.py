"""The API server refuses contradictions in our resources, with a sentence that a person understands.

Each case is a good manifest with one thing wrong, and the sentence that whoever applies it gets to read.
"""

from __future__ import annotations

from typing import Any

import pytest
from tests.cluster.api_objects import REMOVED, Answer, Caller, changed, example, install_kinds, path

from farshore_cli.dev.controlplane import ControlPlane

WORDS = (
    "use Latest, LatestProcessed, LatestAppConsistent, LatestCrashConsistent, the name of a point (farshore "
    "points lists "
    "them), or a time with its zone such as 2025-01-31T08:00:00Z"
)
HOST = "write the private IP address of the machine, such as 10.0.0.4, or its host name, without port, user or https://"
DURATION = "is not a duration: write numbers with units, days first, such as 30s, 15m, 24h or 7d"
CRON = "is not a cron schedule: write minute, hour, day of month, month and day of week"


@pytest.fixture(scope="module")
def caller(control_plane: ControlPlane) -> Caller:
    """An administrator of a control plane with our kinds."""
    install_kinds(control_plane)
    return Caller.operator(control_plane)


def replace(caller: Caller, namespace: str, manifest: dict[str, Any]) -> Answer:
    """Replace the whole object, as an edit does."""
    version = caller.get(namespace, manifest).body["metadata"]["resourceVersion"]
    return caller.send(
        "PUT", path(namespace, manifest, named=True), changed(manifest, {"metadata.resourceVersion": version})
    )


def member(name: str) -> dict[str, Any]:
    return {"name": name}


def groups(*members: list[Any]) -> list[dict[str, Any]]:
    return [{"name": f"group-{number}", "members": one} for number, one in enumerate(members)]


AZURE = {"subscription": "s", "resourceGroup": "g", "region": "westeurope"}
REPLICAS = {"accountURL": "https://contoso.blob.core.windows.net", "container": "warm"}
AZURE_VAULT = {"subscription": "s", "resourceGroup": "g", "vaultName": "v"}

REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    # RecoveryVault
    "vault with two storages": (
        "RecoveryVault",
        {"spec.storage.directory": {"path": "/srv"}},
        "a vault has exactly one storage: set storage.azureBlob or storage.directory, not both and not none",
    ),
    "vault with an empty storage": (
        "RecoveryVault",
        {"spec.storage": {}},
        "a vault has exactly one storage: set storage.azureBlob or storage.directory, not both and not none",
    ),
    "native vault without storage": (
        "RecoveryVault",
        {"spec.storage": REMOVED},
        "engine native needs spec.storage: set storage.azureBlob or storage.directory",
    ),
    "native vault without encryption": (
        "RecoveryVault",
        {"spec.encryption": REMOVED},
        "engine native encrypts every recovery point and needs spec.encryption",
    ),
    "vault with an empty encryption": (
        "RecoveryVault",
        {"spec.encryption": {}},
        "a vault has exactly one key-encryption key: set encryption.keySecretRef or encryption.keyVault",
    ),
    "Site Recovery without the Azure vault": (
        "RecoveryVault",
        {"spec": {"engine": "siteRecovery"}},
        "engine siteRecovery needs spec.azure: subscription, resourceGroup and vaultName",
    ),
    "Site Recovery with a storage of ours": (
        "RecoveryVault",
        {"spec.engine": "siteRecovery", "spec.azure": AZURE_VAULT},
        "engine siteRecovery keeps recovery points by itself: remove spec.storage and spec.encryption, or use "
        "engine native",
    ),
    "an engine that does not exist": (
        "RecoveryVault",
        {"spec.engine": "zerto"},
        'spec.engine: Unsupported value: "zerto": supported values: "native", "siteRecovery"',
    ),
    "account URL that is a name": (
        "RecoveryVault",
        {"spec.storage.azureBlob.accountURL": "contoso"},
        'storage.azureBlob.accountURL "contoso" is not the blob endpoint of a storage account; write one such as '
        "https://contoso.blob.core.windows.net",
    ),
    "container in capitals": (
        "RecoveryVault",
        {"spec.storage.azureBlob.container": "Vault"},
        "storage.azureBlob.container must have 3 to 63 lower-case letters, digits and single hyphens, as Azure demands",
    ),
    "a token that would go in the clear": (
        "RecoveryVault",
        {
            "spec.storage.azureBlob.accountURL": "http://127.0.0.1:10000/account",
            "spec.storage.azureBlob.credential.kind": "servicePrincipal",
        },
        "storage.azureBlob.accountURL must begin with https://: without a credential, and with a service principal, "
        "the login is a token, which goes over TLS only",
    ),
    "relative directory": (
        "RecoveryVault",
        {"spec.storage": {"directory": {"path": "vault"}}},
        "storage.directory.path must be an absolute path, such as /srv/farshore/vault",
    ),
    "immutability without a period": (
        "RecoveryVault",
        {"spec.immutability": {"mode": "Locked"}},
        "immutability.period is missing: say how long a recovery point cannot be deleted, such as 7d",
    ),
    "immutability of a minute": (
        "RecoveryVault",
        {"spec.immutability": {"mode": "Locked", "period": "1m"}},
        "immutability.period must be at least 1h",
    ),
    "immutability of a directory": (
        "RecoveryVault",
        {
            "spec.storage": {"directory": {"path": "/srv/vault"}},
            "spec.immutability": {"mode": "Locked", "period": "7d"},
        },
        "spec.immutability needs storage.azureBlob, because a directory cannot hold files against their owner",
    ),
    "a previous key that is none": (
        "RecoveryVault",
        {"spec.encryption.previousKeys": [{"remove": True}]},
        "each of encryption.previousKeys is exactly one key: set its keySecretRef or its keyVault",
    ),
    # Site
    "block of another provider": (
        "Site",
        {"spec.azure": AZURE},
        "spec.azure belongs to provider azure, but spec.provider is local: remove spec.azure, or set provider: azure",
    ),
    "local block with provider azure": (
        "Site",
        {"spec": {"provider": "azure", "azure": AZURE, "local": {}}},
        "spec.local belongs to provider local, but spec.provider is azure: remove spec.local, or set provider: local",
    ),
    "replicas in a container that Azure would refuse": (
        "Site",
        {"spec": {"provider": "azure", "azure": {**AZURE, "replicas": {**REPLICAS, "container": "Warm_1"}}}},
        "azure.replicas.container must have 3 to 63 lower-case letters, digits and single hyphens, as Azure demands",
    ),
    "a token over plain HTTP": (
        "Site",
        {"spec": {"provider": "azure", "azure": {**AZURE, "replicas": {**REPLICAS, "accountURL": "http://a.example"}}}},
        "azure.replicas.accountURL must begin with https://: the site's login is a token, which goes over TLS only",
    ),
    "provider azure without its block": (
        "Site",
        {"spec.provider": "azure"},
        "provider azure needs spec.azure: at least subscription, resourceGroup and region",
    ),
    "provider azureStackHub without its block": (
        "Site",
        {"spec.provider": "azureStackHub"},
        "provider azureStackHub needs spec.azureStackHub: at least resourceManagerEndpoint",
    ),
    "address pool that is one address": (
        "Site",
        {"spec.local": {"addressPool": "10.77.0.1"}},
        'local.addressPool "10.77.0.1" is not a range of addresses; write one such as 10.77.0.0/24',
    ),
    # ProcessServer
    "data port below 1024": (
        "ProcessServer",
        {"spec.dataPort": 22},
        "spec.dataPort must be 443 or from 1024 to 65535: choose another one, or leave it out for 9443",
    ),
    "data port beyond the last": (
        "ProcessServer",
        {"spec.dataPort": 70000},
        "spec.dataPort must be 443 or from 1024 to 65535",
    ),
    "spool size without a sense": (
        "ProcessServer",
        {"spec.spool.size": "50 GB"},
        '"50 GB" is not an amount of bytes: write a number with a unit, such as 200Mi or 10Gi',
    ),
    "relative spool": ("ProcessServer", {"spec.spool.path": "spool"}, "spool.path must be an absolute path"),
    # ReplicationPolicy
    "interval that is a number of minutes": (
        "ReplicationPolicy",
        {"spec.crashConsistentInterval": "5 min"},
        f'"5 min" {DURATION}',
    ),
    "app-consistent more often than crash-consistent": (
        "ReplicationPolicy",
        {"spec.appConsistentInterval": "1m"},
        "spec.appConsistentInterval (1m) must not be shorter than spec.crashConsistentInterval (5m), because an "
        "app-consistent point is one of the crash-consistent ones with the hooks run: raise it, or remove it to "
        "take none",
    ),
    "points pruned before the next": (
        "ReplicationPolicy",
        {"spec.crashConsistentInterval": "1h", "spec.rpoThreshold": "2h", "spec.retention.keepAll": "30m"},
        "spec.retention.keepAll (30m) must not be shorter than spec.crashConsistentInterval (1h), or points would be "
        "pruned before the next one is taken: raise keepAll",
    ),
    "alarm that never ends": (
        "ReplicationPolicy",
        {"spec.rpoThreshold": "5m"},
        "spec.rpoThreshold (5m) must be longer than spec.crashConsistentInterval (5m), or the alarm would never end",
    ),
    "alarm that never ends, in days": (
        "ReplicationPolicy",
        {"spec.crashConsistentInterval": "1d", "spec.appConsistentInterval": "1d", "spec.rpoThreshold": "23h59m"},
        "spec.rpoThreshold (23h59m) must be longer than spec.crashConsistentInterval (1d), or the alarm would "
        "never end",
    ),
    "no interval at all": (
        "ReplicationPolicy",
        {"spec.crashConsistentInterval": "0s"},
        "spec.crashConsistentInterval must be at least 1s",
    ),
    "bandwidth window without a clock time": (
        "ReplicationPolicy",
        {"spec.bandwidth": {"schedule": [{"from": "8", "to": "18:00", "limit": "1Mi"}]}},
        "a window of the bandwidth schedule begins and ends at a time of day such as 08:00 or 17:30 (24 hours)",
    ),
    "negative retention": (
        "ReplicationPolicy",
        {"spec.retention.daily": -1},
        "spec.retention.daily in body should be greater than or equal to 0",
    ),
    # ProtectedVM
    "consistency group in capitals": (
        "ProtectedVM",
        {"spec.consistencyGroup": "Shop DB"},
        "this is not the name of a consistency group: write lower-case letters, digits and dashes, such as shop-db",
    ),
    "host key as ssh-keyscan prints it, with the address": (
        "ProtectedVM",
        {"spec.source.hostKey": "10.0.0.4 ssh-ed25519 AAAA"},
        "this is not a host key: write its type and base64, such as ssh-ed25519 AAAAC3Nz..., which "
        "`ssh-keyscan ADDRESS` prints behind the address",
    ),
    "address with a user": (
        "ProtectedVM",
        {"spec.source.address": "root@10.0.0.4"},
        f'source.address "root@10.0.0.4" is neither an IP address nor a host name: {HOST}',
    ),
    "address with a port": ("ProtectedVM", {"spec.source.address": "10.0.0.4:22"}, f"nor a host name: {HOST}"),
    "address out of range": ("ProtectedVM", {"spec.source.address": "10.0.0.400"}, f"nor a host name: {HOST}"),
    "URL as address": ("ProtectedVM", {"spec.source.address": "https://web-01"}, f"nor a host name: {HOST}"),
    "disk included and excluded": (
        "ProtectedVM",
        {"spec.source.disks": {"include": ["/dev/sda", "/dev/sdb"], "exclude": ["/dev/sdb"]}},
        "source.disks names the same disk in include and in exclude, so whether to replicate it is not clear: "
        "remove it "
        "from one of them",
    ),
    "disks in one string": (
        "ProtectedVM",
        {"spec.source.disks": {"exclude": ["/dev/sda, /dev/sdb"]}},
        '"/dev/sda, /dev/sdb" is not the name of a disk: name disks as the machine does, such as /dev/sdb',
    ),
    "the same disk twice": (
        "ProtectedVM",
        {"spec.source.disks": {"exclude": ["/dev/sda", "/dev/sda"]}},
        'spec.source.disks.exclude[1]: Duplicate value: "/dev/sda"',
    ),
    "recovery at the site that is lost": (
        "ProtectedVM",
        {"spec.target.siteRef": {"name": "stack"}},
        "spec.target.siteRef is the site that the machine runs at, which would be lost together with it: name "
        "another one",
    ),
    "private IP that is a name": (
        "ProtectedVM",
        {"spec.target.privateIP": "web-01"},
        'target.privateIP "web-01" is not an IP address; write one such as 10.1.0.4',
    ),
    "private IP of an interface that is a name": (
        "ProtectedVM",
        {"spec.target.interfaces": [{"privateIP": "web-01"}]},
        "privateIP of an interface must be an IP address, such as 10.1.0.4; leave it out to get a free one of the "
        "subnet",
    ),
    "interfaces beside the short form": (
        "ProtectedVM",
        {"spec.target.interfaces": [{"subnet": "front"}], "spec.target.privateIP": "10.1.0.4"},
        "target.privateIP is the short form for one interface: with target.interfaces write it there",
    ),
    "two primary interfaces": (
        "ProtectedVM",
        {"spec.target.interfaces": [{"primary": True}, {"primary": True}]},
        "only one of target.interfaces can be primary",
    ),
    "two interfaces at one address": (
        "ProtectedVM",
        {"spec.target.interfaces": [{"privateIP": "10.1.0.4"}, {"privateIP": "10.1.0.4"}]},
        "two of target.interfaces have the same privateIP: give each its own, or leave it out",
    ),
    "reference with a namespace": (
        "ProtectedVM",
        {"spec.policyRef": {"name": "default/standard"}},
        "\"default/standard\" is not the name of an object: use lower-case letters, digits, '-' and '.'",
    ),
    "operating system in capitals": (
        "ProtectedVM",
        {"spec.source.osType": "Windows"},
        'spec.source.osType: Unsupported value: "Windows": supported values: "linux", "windows"',
    ),
    "a field that does not exist": (
        "ProtectedVM",
        {"spec.source.ip": "10.0.0.4"},
        'unknown field "spec.source.ip"',
    ),
    "name that is too long": (
        "ProtectedVM",
        {"metadata.name": "w" * 64},
        "metadata.name may have at most 63 characters, as other names contain it",
    ),
    # FailoverPlan
    "machine twice in a group": (
        "FailoverPlan",
        {"spec.groups": groups([member("web-01"), member("web-01")])},
        "a machine is named twice in the same group: remove one of them",
    ),
    "machine in two groups": (
        "FailoverPlan",
        {"spec.groups": groups([member("web-01")], [member("web-01")])},
        "a machine is named in two groups of the plan, so its turn is not clear: remove it from one of them",
    ),
    "two groups of one name": (
        "FailoverPlan",
        {"spec.groups": [groups([member("web-01")])[0], groups([member("web-02")])[0]]},
        'spec.groups[1]: Duplicate value: {"name":"group-0"}',
    ),
    "member by name and selector": (
        "FailoverPlan",
        {"spec.groups": groups([{"name": "web-01", "selector": {"matchLabels": {"app": "shop"}}}])},
        "a member is a machine or a selection of machines: set exactly one of name and selector",
    ),
    "hook that does nothing": (
        "FailoverPlan",
        {"spec.groups": [{"name": "web", "members": [member("web-01")], "after": [{"name": "check"}]}]},
        "a hook does exactly one thing: set one of job, http or approval",
    ),
    "plan without groups": ("FailoverPlan", {"spec.groups": []}, "spec.groups in body should have at least 1 items"),
    "planned failover that leaves the source on": (
        "FailoverPlan",
        {"spec.mode": "planned", "spec.shutdownSource": "Never"},
        "mode planned takes a last recovery point after the source machines are off, but shutdownSource is Never",
    ),
    "recovery point in small letters": (
        "FailoverPlan",
        {"spec.recoveryPoint": "latest"},
        f'"latest" is no recovery point: {WORDS}',
    ),
    "recovery point without a zone": (
        "FailoverPlan",
        {"spec.recoveryPoint": "2025-01-31T08:00:00"},
        f'"2025-01-31T08:00:00" is no recovery point: {WORDS}',
    ),
    "commit as a yes": (
        "FailoverPlan",
        {"spec.commit": "yes"},
        'spec.commit "yes" names no run: write Manual or Automatic, or the name of the FailoverRun that is meant, '
        "as in status.activeRun",
    ),
    "commit in small letters": ("FailoverPlan", {"spec.commit": "automatic"}, 'spec.commit "automatic" names no run'),
    "abort of everything": (
        "FailoverPlan",
        {"spec.abort": "All runs"},
        'spec.abort "All runs" names no run: write the name of the FailoverRun that is meant, as in status.activeRun',
    ),
    "abort and commit of one run": (
        "FailoverPlan",
        {"spec.abort": "shop-failover-2", "spec.commit": "shop-failover-2"},
        "spec.abort and spec.commit name the same run: remove one of them",
    ),
    "drill once a week, in words": (
        "FailoverPlan",
        {"spec.drill": {"schedule": "every Saturday"}},
        f'"every Saturday" {CRON}',
    ),
    "drill with six cron fields": ("FailoverPlan", {"spec.drill": {"schedule": "0 0 3 * * 6"}}, CRON),
    # TestFailover
    "drill of nothing": (
        "TestFailover",
        {"spec.protectedVMRef": REMOVED},
        "a drill is of one plan or of one machine: set exactly one of spec.planRef and spec.protectedVMRef",
    ),
    "drill of a plan and a machine": (
        "TestFailover",
        {"spec.planRef": {"name": "shop"}},
        "a drill is of one plan or of one machine: set exactly one of spec.planRef and spec.protectedVMRef",
    ),
    "probe of two things": (
        "TestFailover",
        {"spec.probes": [{"name": "web", "tcp": {"port": 80}, "ssh": {}}]},
        "a probe asks exactly one thing: set one of tcp, http, ssh or sql",
    ),
    "probe of a path without a slash": (
        "TestFailover",
        {"spec.probes": [{"name": "web", "http": {"path": "health"}}]},
        "a path begins with a slash",
    ),
    "clean-up after a number": ("TestFailover", {"spec.cleanupAfter": "2 hours"}, f'"2 hours" {DURATION}'),
}


@pytest.mark.parametrize("case", REFUSED, ids=str)
def test_a_contradiction_is_refused_with_a_sentence(caller: Caller, case: str) -> None:
    kind, changes, sentence = REFUSED[case]
    answer = caller.create("default", changed(example(kind), changes), dryRun="All")
    assert not answer.allowed
    assert sentence in answer.message
    assert "no such key" not in answer.message, "a rule failed instead of refusing"
    assert "evaluat" not in answer.message, "a rule failed instead of refusing"


ACCEPTED: dict[str, tuple[str, dict[str, Any]]] = {
    "vault in a directory": ("RecoveryVault", {"spec.storage": {"directory": {"path": "/srv/vault"}}}),
    "vault on an emulator": ("RecoveryVault", {"spec.storage.azureBlob.accountURL": "http://127.0.0.1:10000/account"}),
    "vault that is reached as a service principal": (
        "RecoveryVault",
        {"spec.storage.azureBlob.credential.kind": "servicePrincipal"},
    ),
    "vault that is reached as what the host is": (
        "RecoveryVault",
        {"spec.storage.azureBlob": {"accountURL": "https://contoso.blob.core.windows.net", "container": "points"}},
    ),
    "vault with locks": ("RecoveryVault", {"spec.immutability": {"mode": "Locked", "period": "7d"}}),
    "vault whose key is rotated from Key Vault": (
        "RecoveryVault",
        {
            "spec.encryption.previousKeys": [
                {
                    "keyVault": {
                        "url": "https://contoso.vault.azure.net",
                        "keyName": "farshore",
                        "credentialsSecretRef": {"name": "login"},
                    },
                    "remove": True,
                }
            ]
        },
    ),
    "Site Recovery": ("RecoveryVault", {"spec": {"engine": "siteRecovery", "azure": AZURE_VAULT}}),
    "Windows, left to the operator to judge": ("ProtectedVM", {"spec.source.osType": "windows"}),
    "host name": ("ProtectedVM", {"spec.source.address": "web-01.stack.contoso.com"}),
    "IPv6 address": ("ProtectedVM", {"spec.source.address": "fd00::4"}),
    "public address, which is a warning": ("ProtectedVM", {"spec.source.address": "20.40.60.80"}),
    "provider azure": ("Site", {"spec": {"provider": "azure", "azure": AZURE}}),
    "warm replicas": (
        "Site",
        {
            "spec": {
                "provider": "azure",
                "azure": {**AZURE, "replicas": {**REPLICAS, "interval": "0s"}},
                "defaults": {"warmReplica": True},
            }
        },
    ),
    "a warm replica": ("ProtectedVM", {"spec.target.warmReplica": True}),
    "address pool": ("Site", {"spec.local": {"addressPool": "10.77.0.0/24"}}),
    "data port 443": ("ProcessServer", {"spec.dataPort": 443}),
    "points of 15 seconds": (
        "ReplicationPolicy",
        {"spec.crashConsistentInterval": "15s", "spec.appConsistentInterval": REMOVED, "spec.rpoThreshold": "20s"},
    ),
    "days and hours": ("ReplicationPolicy", {"spec.retention.keepAll": "1d12h"}),
    "bandwidth at night": (
        "ReplicationPolicy",
        {"spec.bandwidth": {"limit": "10Mi", "schedule": [{"from": "22:00", "to": "06:00", "limit": "0"}]}},
    ),
    "point by name": ("FailoverPlan", {"spec.recoveryPoint": "p-20250131t080000z-12"}),
    "point by time with an offset": ("FailoverPlan", {"spec.recoveryPoint": "2025-01-31T08:00:00.5+01:00"}),
    "commit of a run": ("FailoverPlan", {"spec.commit": "shop-failover-2"}),
    "drill on Saturdays": ("FailoverPlan", {"spec.drill": {"schedule": "0 3 * * 6"}}),
    "drill every week": ("FailoverPlan", {"spec.drill": {"schedule": "@weekly"}}),
    "members by label": (
        "FailoverPlan",
        {"spec.groups": groups([{"selector": {"matchLabels": {"app": "shop"}}}], [member("db-01")])},
    ),
    "drill of a plan with probes": (
        "TestFailover",
        {
            "spec": {
                "planRef": {"name": "shop"},
                "probes": [{"name": "web", "http": {"port": 8080}}, {"name": "login", "ssh": {}}],
                "cleanupAfter": "2h",
            }
        },
    ),
    "drill of a plan with a command and a query": (
        "TestFailover",
        {
            "spec": {
                "planRef": {"name": "shop"},
                "probes": [
                    {"name": "service", "ssh": {"command": ["systemctl", "is-active", "shop"]}, "timeout": "20m"},
                    {"name": "orders", "sql": {"engine": "postgresql", "query": "SELECT 1 FROM orders LIMIT 1"}},
                ],
            }
        },
    ),
}


@pytest.mark.parametrize("case", ACCEPTED, ids=str)
def test_what_is_no_contradiction_is_accepted(caller: Caller, case: str) -> None:
    kind, changes = ACCEPTED[case]
    assert caller.create("default", changed(example(kind), changes), dryRun="All").message == ""


EDITS: dict[str, tuple[str, dict[str, Any], str]] = {
    "vault to another engine": (
        "RecoveryVault",
        {"spec": {"engine": "siteRecovery", "azure": AZURE_VAULT}},
        "spec.engine cannot be changed, because the engines cannot read each other's recovery points",
    ),
    "vault to another kind of storage": (
        "RecoveryVault",
        {"spec.storage": {"directory": {"path": "/srv/vault"}}},
        "spec.storage cannot become another kind of storage, because the recovery points would be left behind",
    ),
    "site to another provider": (
        "Site",
        {"spec": {"provider": "azure", "azure": AZURE}},
        "spec.provider cannot be changed, because machines and process servers belong to it: make another Site",
    ),
    "process server to another site": (
        "ProcessServer",
        {"spec.siteRef": {"name": "shore"}},
        "spec.siteRef cannot be changed: a registration is valid for one site",
    ),
    "machine to another vault": (
        "ProtectedVM",
        {"spec.vaultRef": {"name": "other"}},
        "spec.vaultRef cannot be changed, because the recovery points would be left behind",
    ),
    "machine that moved, back": (
        "ProtectedVM",
        {"spec.switchTo": REMOVED},
        "spec.switchTo cannot be taken back, because Site Recovery does not move a machine back",
    ),
    "machine from another site": (
        "ProtectedVM",
        {"spec.source.siteRef": {"name": "elsewhere"}},
        "source.siteRef cannot be changed, because the machine's recovery points belong to it",
    ),
    "drill to another point": (
        "TestFailover",
        {"spec.recoveryPoint": "Latest"},
        "spec.recoveryPoint cannot be changed, because one object is one drill: delete this TestFailover (which "
        "cleans up) "
        "and create another one. Only notes and cleanupAfter can be edited",
    ),
    "drill to another network": (
        "TestFailover",
        {"spec.network": "production"},
        "spec.network cannot be changed, because one object is one drill",
    ),
    "run": (
        "FailoverRun",
        {"spec.recoveryPoint": "LatestProcessed"},
        "a FailoverRun is a record with frozen inputs and cannot be changed: to commit, abort or change its "
        "point, edit "
        "the FailoverPlan",
    ),
    "approval": (
        "Approval",
        {"spec.answer": "Reject"},
        "an Approval is a record and cannot be changed: to take it back, reject the hook before it has gone on",
    ),
    "task": (
        "Task",
        {"spec.processServer": "ps-stack"},
        "a Task is written once by the operator and cannot be changed: edit the FailoverPlan or TestFailover "
        "that it serves",
    ),
}


@pytest.mark.parametrize("case", EDITS, ids=str)
def test_an_edit_that_cannot_be_followed_is_refused(caller: Caller, namespace: str, case: str) -> None:
    kind, changes, sentence = EDITS[case]
    assert caller.create(namespace, changed(example(kind), BEFORE.get(case, {}))).message == ""
    answer = replace(caller, namespace, changed(example(kind), changes))
    assert not answer.allowed
    assert sentence in answer.message


BEFORE: dict[str, dict[str, Any]] = {"machine that moved, back": {"spec.switchTo": {"name": "asr-new"}}}
"""What an object is like before its edit, where the example does not do."""

FREE_EDITS: dict[str, tuple[str, dict[str, Any]]] = {
    "notes of a drill": ("TestFailover", {"spec.notes": "the application answered", "spec.cleanupAfter": "1h"}),
    "machine moved to another address": ("ProtectedVM", {"spec.source.address": "10.0.0.5", "spec.paused": True}),
    "rotated credential of a vault": ("RecoveryVault", {"spec.storage.azureBlob.credential.key": "second"}),
    "machine to the modernized experience": ("ProtectedVM", {"spec.switchTo": {"name": "asr-new"}}),
    "process server to another port": ("ProcessServer", {"spec.dataPort": 9444}),
}


@pytest.mark.parametrize("case", FREE_EDITS, ids=str)
def test_an_edit_that_can_be_followed_is_accepted(caller: Caller, namespace: str, case: str) -> None:
    kind, changes = FREE_EDITS[case]
    assert caller.create(namespace, example(kind)).message == ""
    assert replace(caller, namespace, changed(example(kind), changes)).message == ""
