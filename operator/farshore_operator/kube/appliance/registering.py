"""Registers a process server with a registration key: what can be refused is refused before anything is written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from farshore_engine.contract.faults import StopFault, WaitFault
from farshore_engine.contract.replication import ApplianceReport, SpoolReport
from farshore_operator.api import ProcessServer
from farshore_operator.api.processserver import RegistrationPhase
from farshore_operator.api.values import format_quantity
from farshore_operator.crypto.sealing import public_key, unseal
from farshore_operator.decide.naming import KEY_ANNOTATION
from farshore_operator.decide.processserver import MAX_SKEW, REGISTERED
from farshore_operator.kube.appliance.statedir import Registration, StateDir
from farshore_operator.kube.client import Client, Json
from farshore_operator.kube.faults import UNTRUSTED, AlreadyExists, Forbidden, Refused, Unauthorized
from farshore_operator.kube.registrationkey import RegistrationKey
from farshore_operator.kube.resources import PROCESS_SERVER

PATIENCE = 90.0
"""Seconds to wait for the operator's answer."""
POLL = 0.5


@dataclass(frozen=True)
class Candidate:
    """What an appliance says of itself when it registers; `certificate_request` is PEM, for its data port."""

    name: str
    version: str
    address: str
    data_port: int
    spool_bytes: int
    certificate_request: str
    can_run_machines: bool = False


def register(
    client: Client, key: RegistrationKey, candidate: Candidate, state: StateDir, now: Callable[[], datetime]
) -> Registration:
    """Register, and keep the credentials in the state directory.

    `client` uses the key's address, CA and token. Repeating it after an interruption goes on where it was.

    Raises:
        StopFault: the key or the clock is refused, by this appliance or by the operator.
        WaitFault: the API or the operator does not answer.
    """
    skew = _skew(client, key, now())
    check_clock(skew)
    check_expiry(key, now().timestamp() - skew)
    _claim(client, key, candidate, state)
    asked = now()
    _request(client, key, candidate, state, (asked, skew))
    registration, token = _await(client, key, candidate, state, asked)
    state.save(registration, token)
    return registration


def _skew(client: Client, key: RegistrationKey, now: datetime) -> float:
    """Ask for the clock: the first request, which shows whether the server is the one that the key trusts.

    A token that has expired is refused like one that was revoked; which of the two it is, only the key's file tells.
    """
    try:
        return client.clock_skew()
    except Unauthorized as fault:
        check_expiry(key, now.timestamp())
        raise _revoked(key) from fault
    except WaitFault as fault:
        if fault.reason != UNTRUSTED:
            raise
        raise StopFault(
            f"registration key {key.name} belongs to another cluster: {key.server} is not certified by the key's CA",
            _another(key),
            reason="KeyForeign",
        ) from fault


def check_clock(skew: float) -> None:
    """Refuse a clock that is more than five minutes off the API server's; `skew` in seconds, positive if ahead.

    Raises:
        StopFault: it is.
    """
    if abs(skew) > MAX_SKEW:
        word = "ahead of" if skew > 0 else "behind"
        raise StopFault(
            f"this machine's clock is {abs(skew):.0f} s {word} the API server's; at most {MAX_SKEW:.0f} s are accepted",
            "Set the clock (with chrony or systemd-timesyncd) and try again",
            reason="ClockSkew",
        )


def check_expiry(key: RegistrationKey, api_time: float) -> None:
    """Refuse a key that has ended by the API server's clock (seconds since 1970).

    Raises:
        StopFault: it has.
    """
    if key.expires.timestamp() <= api_time:
        raise StopFault(
            f"registration key {key.name} expired at {key.expires:%Y-%m-%dT%H:%M:%SZ}",
            _another(key),
            reason="KeyExpired",
        )


def _claim(client: Client, key: RegistrationKey, candidate: Candidate, state: StateDir) -> None:
    """Find the ProcessServer or make it; the first request with the key's token shows whether it is good."""
    try:
        body = client.get(PROCESS_SERVER, key.namespace, candidate.name)
        if body is None:
            spec: Json = {"siteRef": {"name": key.site}, "dataPort": candidate.data_port}
            if candidate.spool_bytes:
                spec["spool"] = {"size": format_quantity(candidate.spool_bytes)}
            meta = {"name": candidate.name, "annotations": {KEY_ANNOTATION: key.name}}
            try:
                client.create(PROCESS_SERVER, key.namespace, {"metadata": meta, "spec": spec})
            except AlreadyExists:
                body = client.get(PROCESS_SERVER, key.namespace, candidate.name)
    except Unauthorized as fault:
        raise _revoked(key) from fault
    except (Forbidden, Refused) as fault:
        raise StopFault(
            f"registration key {key.name} does not allow {candidate.name} at site {key.site}: {fault.message}",
            _another(key),
            reason="KeyForeign",
        ) from fault
    if body is not None:
        _check_taken(ProcessServer.of(body), key, state)


def _check_taken(server: ProcessServer, key: RegistrationKey, state: StateDir) -> None:
    name, site = server.metadata.name, server.spec.site_ref.name
    if site != key.site:
        raise StopFault(
            f"ProcessServer {name} belongs to site {site}, but registration key {key.name} is for site {key.site}",
            f"Use a key of site {site} (`farshore site registration-key {site}`), or another name",
            reason="KeyForeign",
        )
    registration = server.status.registration
    if registration is None or not registration.registered_at:
        return
    if registration.public_key and registration.public_key != public_key(state.sealing_key()):
        raise StopFault(
            f"ProcessServer {name} is registered already, by another appliance or with another state directory",
            f"Use the old state directory or another name, or delete ProcessServer {name} first",
            reason="NameTaken",
        )


def _request(
    client: Client, key: RegistrationKey, candidate: Candidate, state: StateDir, clock: tuple[datetime, float]
) -> None:
    now, skew = clock
    report = ApplianceReport(
        version=candidate.version,
        address=candidate.address,
        data_port=candidate.data_port,
        last_contact=now,
        clock_skew_seconds=round(skew, 1),
        spool=SpoolReport(used_bytes=0, size_bytes=candidate.spool_bytes),
        certificate_request=candidate.certificate_request,
        public_key=public_key(state.sealing_key()),
        can_run_machines=candidate.can_run_machines,
    )
    status = {"appliance": report.model_dump(mode="json", by_alias=True, exclude_none=True)}
    client.apply(PROCESS_SERVER, key.namespace, {"metadata": {"name": candidate.name}, "status": status}, "status")


def _await(
    client: Client, key: RegistrationKey, candidate: Candidate, state: StateDir, asked: datetime
) -> tuple[Registration, str]:
    """Wait for the operator's answer to the report of that moment, and open the token.

    The status may still refuse an earlier report, however long the operator takes.
    """
    began = time.monotonic()
    mine = public_key(state.sealing_key())
    while time.monotonic() - began < PATIENCE:
        body = client.get(PROCESS_SERVER, key.namespace, candidate.name)
        server = ProcessServer.of(body) if body else None
        answer = server.status.registration if server else None
        if server is not None and answer is not None:
            refused = server.status.condition(REGISTERED)
            if answer.phase is RegistrationPhase.REFUSED and answer.refused_contact == asked and refused is not None:
                raise StopFault(f"the operator refuses {candidate.name}: {refused.message}", reason=refused.reason)
            if answer.sealed_token and answer.service_account and answer.public_key == mine:
                token = unseal(answer.sealed_token, state.sealing_key(), f"{key.namespace}/{candidate.name}")
                account = answer.service_account
                where = (key.server, key.authority, key.namespace, key.site, candidate.name, account)
                return Registration(*where), token
        time.sleep(POLL)
    raise WaitFault(
        f"the operator has not answered the registration of {candidate.name} within {PATIENCE:.0f} s",
        f"Check that the operator runs, look at ProcessServer {key.namespace}/{candidate.name}, and try again",
        reason="OperatorSilent",
    )


def _revoked(key: RegistrationKey) -> StopFault:
    return StopFault(
        f"the API server refuses registration key {key.name}: it was revoked, or belongs to another cluster",
        _another(key),
        reason="KeyRevoked",
    )


def _another(key: RegistrationKey) -> str:
    return f"Issue another one with `farshore site registration-key {key.site} --out FILE`"
