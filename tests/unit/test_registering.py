"""Why a registration key is refused, where a real API server would need five days to show it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from farshore_engine.contract.faults import StopFault
from farshore_operator.kube.appliance.registering import Candidate, register
from farshore_operator.kube.appliance.statedir import StateDir
from farshore_operator.kube.faults import Unauthorized
from farshore_operator.kube.registrationkey import RegistrationKey

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
