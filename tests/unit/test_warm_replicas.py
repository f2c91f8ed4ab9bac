"""Warm replicas: who has one, where it is kept, and what a machine's status shows of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from tests.unit.decide_world import NOW, SHORE, observed
from tests.unit.test_appliance_resolve import SECRETS, resolve
from tests.unit.test_cloud_sites import LOGIN, in_azure, machine, world

from farshore_engine.contract.replication import RecoveryReport, WarmReplica
from farshore_operator.api import Site
from farshore_operator.api.site import ReplicaStorage
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.replicas import replica_access, warm_replica


def keeping(seen: ObservedVM, **replicas: Any) -> Site:
    """Return the recovery site with a place for warm replicas."""
    made = seen.target_site
    assert made is not None and made.spec.azure is not None
    given = {"account_url": "https://shore.blob.core.windows.net", "container": "warm", **replicas}
    azure = made.spec.azure.model_copy(update={"replicas": ReplicaStorage(**given)})
    return made.model_copy(update={"spec": made.spec.model_copy(update={"azure": azure})})


@pytest.mark.parametrize(
    ("own", "default", "wanted"),
    [(None, None, False), (True, None, True), (None, True, True), (False, True, False)],
    ids=["off by default", "the machine's own wish", "the site's default", "the machine against its site"],
)
def test_who_has_a_warm_replica(own: bool | None, default: bool | None, wanted: bool) -> None:
    seen = machine(in_azure(warm_replica=default), warm_replica=own)
    found = replica_access(seen.vm, keeping(seen), lambda name, field: {})
    assert found is not None and found.wanted is wanted
    assert found.storage.account_key is None, "the site's own login"
    assert warm_replica(observed(seen.vm, target_site=keeping(seen))) is None, "none is reported yet"


def test_a_machines_status_shows_the_warm_replica_that_was_seen_good_last() -> None:
    seen = machine(in_azure(), warm_replica=True)
    said = [
        WarmReplica(machine_id="shop.web-01", point="p-1", updated_at=NOW - timedelta(hours=1)),
        WarmReplica(machine_id="shop.web-01", point="p-2", updated_at=NOW, bytes_behind=7),
        WarmReplica(machine_id="shop.web-01", message="cannot", remedy="Do"),
        WarmReplica(machine_id="shop.other", point="p-9", updated_at=NOW),
    ]
    servers = tuple(
        replace(SHORE, name=f"ps-{number}", recovery=RecoveryReport(replicas=(one,))) for number, one in enumerate(said)
    )
    found = warm_replica(observed(seen.vm, target_site=keeping(seen), servers=servers))
    assert found is not None and (found.point, found.bytes_behind) == ("p-2", 7)
    nowhere = warm_replica(observed(seen.vm, target_site=seen.target_site, servers=servers))
    assert nowhere is not None and "keeps no warm replicas" in nowhere.message and nowhere.remedy


def test_a_process_server_is_told_where_replicas_are_and_no_failover_waits_for_their_secret() -> None:
    kept = {
        "accountURL": "https://shore.blob.core.windows.net", "container": "warm", "interval": "5m",
        "credential": {"secretRef": {"name": "replicas"}},
    }  # fmt: skip
    bodies = world(credentialsSecretRef={"name": "azure"}, replicas=kept)
    bodies[0]["spec"]["target"]["warmReplica"] = True
    resolved = resolve(bodies, {**SECRETS, "azure": LOGIN, "replicas": {"accountKey": b"c2VjcmV0"}})
    (task,), (target,) = resolved.tasks, resolved.recoverable
    assert task.replica is not None and task.replica.wanted and task.replica.interval == timedelta(minutes=5)
    assert "c2VjcmV0" not in repr(task) and target.replica == task.replica
    without = resolve(bodies, {**SECRETS, "azure": LOGIN})
    assert without.tasks[0].replica is None and without.recoverable[0].replica is None
    assert "names Secret replicas" in without.recoverable[0].replica_trouble
