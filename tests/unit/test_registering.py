"""Why a registration key is refused, where a real API server would need five days to show it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from farshore_engine.contract.faults import StopFault
from farshore_operator.kube.appliance import registering
from farshore_operator.kube.appliance.registering import Candidate, register
from farshore_operator.kube.appliance.statedir import StateDir
from farshore_operator.kube.faults import Unauthorized
from farshore_operator.kube.registrationkey import RegistrationKey
from farshore_operator.kube.resources import Resource

NOW = datetime(2026, 1, 10, tzinfo=UTC)


class Refusing:
    """An API server that refuses the token, as it does with one that has expired and with one that was revoked."""

    def clock_skew(self) -> float:
        raise Unauthorized("asking for the API server's clock was refused (401): Unauthorized")


@pytest.mark.parametrize(
    ("age", "reason"),
    [
        pytest.param(timedelta(days=6), "KeyExpired", id="a key of six days has expired"),
        pytest.param(timedelta(days=1), "KeyRevoked", id="a key of one day was revoked"),
    ],
)
def test_a_refused_token_is_told_by_its_age(age: timedelta, reason: str, tmp_path: Path) -> None:
    ends = NOW - age + timedelta(days=5)
    key = RegistrationKey("https://k.example", "ca", "shop", "stack", "key-1", ends, "token")
    client: Any = Refusing()
    with pytest.raises(StopFault) as refused:
        register(client, key, Candidate("ps", "1", "10.0.0.1", 9443, 0, "request"), StateDir(tmp_path), lambda: NOW)
    assert refused.value.reason == reason
    assert "farshore site registration-key stack" in refused.value.remedy


class Slow:
    """An API server whose operator judges a report long after the next one came; the status refuses the earlier one."""

    def __init__(self) -> None:
        self.looks = 0
        self.report: dict[str, Any] = {}

    def clock_skew(self) -> float:
        return 0.0

    def apply(self, resource: Resource, namespace: str, body: dict[str, Any], *_: str) -> None:
        self.report = body["status"]["appliance"]

    def get(self, resource: Resource, namespace: str, name: str) -> dict[str, Any]:
        self.looks += 1
        late = self.looks < 20
        contact = "2026-01-09T23:59:00Z" if late else self.report.get("lastContact")
        said = {"reason": "ClockSkew", "message": "what was wrong before" if late else "what is wrong now"}
        status = {
            "registration": {"phase": "Refused", "refusedContact": contact},
            "conditions": [{"type": "Registered", "status": "False", "lastTransitionTime": contact, **said}],
        }
        meta = {"name": name, "namespace": namespace, "uid": "u", "generation": 1}
        return {"metadata": meta, "spec": {"siteRef": {"name": "stack"}}, "status": status}


def test_a_refusal_counts_when_it_is_about_this_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who corrected a clock and registered again was refused once more, where the operator took more than 3 s."""
    monkeypatch.setattr(registering, "POLL", 0.25)
    key = RegistrationKey("https://k.example", "ca", "shop", "stack", "key-1", NOW + timedelta(days=5), "token")
    client: Any = Slow()
    with pytest.raises(StopFault, match="what is wrong now"):
        register(client, key, Candidate("ps", "1", "10.0.0.1", 9443, 0, "request"), StateDir(tmp_path), lambda: NOW)
    assert client.looks >= 20
