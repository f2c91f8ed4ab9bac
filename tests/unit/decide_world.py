"""Builders for decisions: a machine that is protected and could be failed over, and what may differ from that."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from farshore_engine.contract.points import Consistency, RecoveryPoint
from farshore_engine.contract.replication import AgentReport, ReplicationReport, State
from farshore_operator.api import FailoverRun, ProtectedVM, RecoveryVault, ReplicationPolicy, Site
from farshore_operator.api.protectedvm import Assignment
from farshore_operator.decide.observedvm import ObservedVM, ServerFacts
from farshore_operator.decide.references import SecretUse
from farshore_operator.settings import Timing

NOW = datetime(2025, 1, 31, 8, 0, tzinfo=UTC)
STACK = ServerFacts("ps-stack", "stack", True, True, 1, True, NOW)
SHORE = ServerFacts("ps-shore", "shore", True, True, 0, True, NOW)


def meta(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "namespace": "shop", "uid": f"uid-{name}", "generation": 1, "resourceVersion": "1", **more}


def point(age: timedelta = timedelta(minutes=1)) -> RecoveryPoint:
    return RecoveryPoint(name="p-20250131t075900z-1", slot=1, time=NOW - age, consistency=Consistency.CRASH)


def report(state: State = State.REPLICATING, **more: Any) -> ReplicationReport:
    fields: dict[str, Any] = {
        "process_server": "ps-stack",
        "epoch": 1,
        "vault_epoch": 1,
        "agent": AgentReport(version="1", connected=True),
        "last_point": point(),
        **more,
    }
    return ReplicationReport(state=state, **fields)


def vm(**status: Any) -> ProtectedVM:
    spec = {
        "source": {"siteRef": {"name": "stack"}, "address": "10.0.0.4", "credentialsSecretRef": {"name": "ssh"}},
        "policyRef": {"name": "standard"},
        "vaultRef": {"name": "vault"},
        "target": {"siteRef": {"name": "shore"}},
    }
    body = {"metadata": meta("web-01", finalizers=["farshore.dev/protection"]), "spec": spec}
    made = ProtectedVM.of(body)
    fields = {"assignment": Assignment(process_server="ps-stack", epoch=1), "replication": report(), **status}
    return made.model_copy(update={"status": made.status.model_copy(update=fields)})


def with_meta(machine: ProtectedVM, **more: Any) -> ProtectedVM:
    return machine.model_copy(update={"metadata": machine.metadata.model_copy(update=more)})


def with_spec(machine: ProtectedVM, **more: Any) -> ProtectedVM:
    return machine.model_copy(update={"spec": machine.spec.model_copy(update=more)})


def site(name: str, provider: str = "local") -> Site:
    spec: dict[str, Any] = {"provider": provider}
    if provider == "azure":
        spec["azure"] = {"subscription": "s", "resourceGroup": "r", "region": "w"}
    if provider == "azureStackHub":
        endpoint, login = "https://management.local.azurestack.external", {"name": "hub"}
        given = {"resourceManagerEndpoint": endpoint, "credentialsSecretRef": login}
        spec["azureStackHub"] = {"subscription": "s", "resourceGroup": "r", "region": "local", **given}
    return Site.of({"metadata": meta(name), "spec": spec})


def vault(engine: str = "native") -> RecoveryVault:
    spec: dict[str, Any] = {"engine": engine}
    if engine == "native":
        spec |= {"storage": {"directory": {"path": "/v"}}, "encryption": {"keySecretRef": {"name": "k", "key": "k"}}}
    return RecoveryVault.of({"metadata": meta("vault"), "spec": spec})


def found_secret(name: str = "ssh") -> SecretUse:
    return SecretUse("spec.source.credentialsSecretRef", name, ("password",), frozenset({"password"}))


def observed(machine: ProtectedVM | None = None, **more: Any) -> ObservedVM:
    base = ObservedVM(
        vm=machine or vm(),
        policy=ReplicationPolicy.of({"metadata": meta("standard")}),
        vault=vault(),
        vault_secrets=(),
        source_site=site("stack"),
        target_site=site("shore"),
        login=found_secret(),
        servers=(STACK, SHORE),
        runs=(),
        timing=Timing(),
    )
    return replace(base, **more)


def run(kind: str = "Failover", phase: str | None = "Running", name: str = "a-run", **more: Any) -> FailoverRun:
    member = {
        "protectedVM": "web-01",
        "machineId": "shop.web-01",
        "vault": "vault",
        "sourceSite": "stack",
        "targetSite": "shore",
        "sourceProcessServer": "ps-stack",
        "processServer": "ps-shore",
        "epoch": 1,
        "targetName": "web-01",
    }
    spec = {
        "kind": kind,
        "owner": {"kind": "FailoverPlan", "name": "plan", "uid": "uid-plan", "generation": 2},
        "inputsHash": "x",
        "recoveryPoint": more.pop("recovery_point", "LatestProcessed"),
        "shutdownSource": more.pop("shutdown", "Never"),
        "members": [member],
        "previousRun": more.pop("previous", None),
        "sequence": more.pop("sequence", 1),
        "undoes": more.pop("undoes", None),
        "mode": more.pop("mode", "unplanned"),
    }
    status = {"phase": phase, **more} if phase else more
    return FailoverRun.of({"metadata": meta(name, creationTimestamp=NOW.isoformat()), "spec": spec, "status": status})
