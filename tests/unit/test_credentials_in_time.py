"""Tokens and certificates of process servers are exchanged well before they end, and not all the time."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.unit.decide_world import NOW, meta

from farshore_engine.contract.faults import StopFault
from farshore_engine.processserver.identity import ServerIdentity
from farshore_operator.api import ProcessServer
from farshore_operator.crypto.certificates import make_authority, sign_process_server
from farshore_operator.decide.actions import SealToken, SignProcessServer
from farshore_operator.decide.processserver import ObservedServer, decide
from farshore_operator.kube.appliance.credentials import Credentials, lifetime
from farshore_operator.kube.appliance.statedir import Registration, StateDir
from farshore_operator.settings import Timing

LIFE = Timing().certificate_life


def token(issued: datetime, expires: datetime) -> str:
    claims = json.dumps({"iat": int(issued.timestamp()), "exp": int(expires.timestamp())}).encode()
    return ".".join(("e30", base64.urlsafe_b64encode(claims).decode().rstrip("="), "c2ln"))


@pytest.mark.parametrize(
    ("age", "due"),
    [
        pytest.param(timedelta(days=3, hours=11), False, id="before half of its life"),
        pytest.param(timedelta(days=3, hours=13), True, id="after half of its life"),
        pytest.param(timedelta(days=8), True, id="when it has ended"),
    ],
)
def test_a_token_is_renewed_at_half_of_its_life(age: timedelta, due: bool, tmp_path: Path) -> None:
    state, issued = StateDir(tmp_path), NOW - age
    where = Registration("https://127.0.0.1:1", "", "shop", "stack", "ps", "farshore-ps-ps")
    state.save(where, token(issued, issued + timedelta(days=7)))
    assert Credentials(where, state).due(NOW) is due


def test_a_damaged_token_is_named_and_not_shown() -> None:
    with pytest.raises(StopFault) as refused:
        lifetime("s3cret")
    assert "s3cret" not in str(refused.value) and "Register again" in refused.value.remedy


def server(tmp_path: Path, ends: datetime, request: str = "") -> ObservedServer:
    """Return a registered process server whose certificate ends then; `request` is what it asks for now."""
    mine = ServerIdentity(tmp_path, "ps").request
    signed = sign_process_server(make_authority("shop", NOW, LIFE * 10), mine, "10.0.0.2", ends - LIFE, LIFE)
    registration = {
        "phase": "Registered",
        "registeredAt": NOW.isoformat(),
        "publicKey": "key",
        "sealedToken": "sealed",
        "tokenExpires": (NOW + timedelta(days=1)).isoformat(),
        "certificate": signed.certificate,
        "certificateExpires": ends.isoformat(),
    }
    report = {
        "version": "1",
        "address": "10.0.0.2",
        "dataPort": 9443,
        "lastContact": NOW.isoformat(),
        "clockSkewSeconds": 0,
        "spool": {"usedBytes": 0, "sizeBytes": 0},
        "certificateRequest": request or mine,
        "publicKey": "key",
    }
    status = {"registration": registration, "appliance": report}
    body: dict[str, Any] = {"metadata": meta("ps"), "spec": {"siteRef": {"name": "stack"}}, "status": status}
    return ObservedServer(ProcessServer.of(body), True, None, 0.0, True, NOW, frozenset(), 0, Timing())


@pytest.mark.parametrize(
    ("left", "signs"),
    [
        pytest.param(LIFE / 3 + timedelta(hours=1), False, id="before two thirds of its life"),
        pytest.param(LIFE / 3 - timedelta(hours=1), True, id="after two thirds of its life"),
        pytest.param(-timedelta(days=1), True, id="when it has ended"),
    ],
)
def test_a_certificate_is_signed_again_in_time(left: timedelta, signs: bool, tmp_path: Path) -> None:
    decision = decide(server(tmp_path, NOW + left), NOW)
    assert any(isinstance(action, SignProcessServer) for action in decision.actions) is signs
    if not signs:
        assert decision.again_in is not None and decision.again_in <= timedelta(hours=1, seconds=1)


def test_a_new_key_gets_a_certificate_at_once(tmp_path: Path) -> None:
    other = ServerIdentity(tmp_path / "new", "ps").request
    decision = decide(server(tmp_path, NOW + LIFE, other), NOW)
    assert any(isinstance(action, SignProcessServer) for action in decision.actions)


def test_who_was_away_until_its_token_ended_finds_a_new_one(tmp_path: Path) -> None:
    here = server(tmp_path, NOW + LIFE)
    assert not any(isinstance(action, SealToken) for action in decide(here, NOW).actions), "it renews its own"
    away = replace(here, connected=False)
    assert any(isinstance(action, SealToken) for action in decide(away, NOW).actions)
