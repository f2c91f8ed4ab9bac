"""Decides on a ProcessServer: whether it may register, what it may read, and whether it is there."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from farshore_operator.api import ProcessServer
from farshore_operator.api.processserver import ProcessServerStatus, Registration, RegistrationPhase
from farshore_operator.crypto.certificates import certificate_digest, request_digest
from farshore_operator.decide.actions import (
    Certified,
    EnsureLease,
    GrantAccount,
    SealToken,
    SignProcessServer,
    TokenSealed,
)
from farshore_operator.decide.decision import Action, Decision, Outcome
from farshore_operator.decide.identity import id_of
from farshore_operator.decide.naming import appliance
from farshore_operator.decide.rbac import appliance_rules
from farshore_operator.report.conditions import Seen, Verdict, ready, settle, stalled, waiting
from farshore_operator.settings import Timing

REGISTERED = "Registered"
CONNECTED = "Connected"
CLOCK = "ClockInSync"

MAX_SKEW = 300.0
"""Seconds by which a process server's clock may differ from the API server's."""

HEARTBEAT_SHOWN_EVERY = timedelta(minutes=1)
"""How exact `lastHeartbeat` is while all is well; when it is lost, it is exact."""


@dataclass(frozen=True)
class KeyFacts:
    """The registration key that was used: its Secret, the site it is for, and when it ends."""

    name: str
    exists: bool
    site: str = ""
    expires: datetime | None = None


@dataclass(frozen=True)
class ObservedServer:
    """A process server and what its registration rests on.

    Attributes:
        key: the registration key it names, None if it names none or is registered already.
        clock_offset: seconds by which its clock is ahead of the API server's, by its last report; None before that.
        heartbeat: when its last heartbeat was seen.
        secrets: names of the Secrets that it must be able to read.
    """

    server: ProcessServer
    site_exists: bool
    key: KeyFacts | None
    clock_offset: float | None
    connected: bool
    heartbeat: datetime | None
    secrets: frozenset[str]
    machines: int
    timing: Timing


@dataclass(frozen=True)
class Refusal:
    """Why it may not register or is not trusted any more."""

    reason: str
    message: str


def decide(observed: ObservedServer, now: datetime) -> Decision[ProcessServerStatus]:
    """Decide on a process server."""
    server, meta = observed.server, observed.server.metadata
    if meta.deletion_timestamp:
        return Decision(None)
    refusal = _refusal(observed, now)
    actions = () if refusal or not _asked(server) else _actions(observed, now)
    registration = _registration(observed, refusal, now)
    verdict = _verdict(observed, registration, refusal)
    status = ProcessServerStatus(
        observed_generation=meta.generation,
        conditions=settle(
            server.status.conditions, verdict, _seen(observed, registration, refusal), meta.generation, now
        ),
        registration=registration,
        last_heartbeat=_shown_heartbeat(observed),
        assigned_machines=observed.machines,
    )
    again = timedelta(seconds=8) if not observed.site_exists else _renewal(registration, observed.timing, now)
    return Decision(status, actions, again)


def fold(status: ProcessServerStatus, outcome: Outcome) -> ProcessServerStatus:
    """Put a certificate or a sealed token into the registration."""
    registration = status.registration or Registration(phase=RegistrationPhase.PENDING)
    match outcome:
        case Certified():
            update = {
                "certificate": outcome.certificate,
                "ca": outcome.authority,
                "certificate_expires": outcome.expires,
            }
        case TokenSealed():
            update = {
                "sealed_token": outcome.sealed,
                "public_key": outcome.public_key,
                "token_expires": outcome.expires,
            }
        case _:
            return status
    return status.model_copy(update={"registration": registration.model_copy(update=update)})


def _asked(server: ProcessServer) -> bool:
    appliance_report = server.status.appliance
    return bool(appliance_report and appliance_report.public_key and appliance_report.certificate_request)


def _refusal(observed: ObservedServer, now: datetime) -> Refusal | None:
    return _bad_key(observed, now) or _bad_clock(observed) or _changed_identity(observed)


def _bad_key(observed: ObservedServer, now: datetime) -> Refusal | None:
    key, site = observed.key, observed.server.spec.site_ref.name
    again = f"Issue a new one with `farshore site registration-key {site}` and register again"
    if key is None:
        return None
    if not key.exists:
        return Refusal("KeyRevoked", f"the registration key {key.name} was revoked. {again}")
    if key.site != site:
        return Refusal("KeyForeign", f"the registration key {key.name} is for site {key.site}, not {site}. {again}")
    if key.expires is not None and key.expires <= now:
        return Refusal(
            "KeyExpired", f"the registration key {key.name} expired at {key.expires:%Y-%m-%dT%H:%M:%SZ}. {again}"
        )
    return None


def _bad_clock(observed: ObservedServer) -> Refusal | None:
    report = observed.server.status.appliance
    if report is None:
        return None
    offsets = (report.clock_skew_seconds, observed.clock_offset or 0.0)
    worst = max(offsets, key=abs)
    if abs(worst) <= MAX_SKEW:
        return None
    word = "ahead of" if worst > 0 else "behind"
    return Refusal(
        "ClockSkew",
        f"its clock is {abs(worst):.0f} s {word} the API server's; at most {MAX_SKEW:.0f} s are accepted. "
        "Set its clock (with chrony or systemd-timesyncd) and start it again",
    )


def _changed_identity(observed: ObservedServer) -> Refusal | None:
    registration, report = observed.server.status.registration, observed.server.status.appliance
    if registration is None or not registration.registered_at or report is None:
        return None
    if not report.public_key or not registration.public_key or report.public_key == registration.public_key:
        return None
    name = observed.server.metadata.name
    return Refusal(
        "IdentityChanged",
        "another appliance, or this one with an empty state directory, claims the name of a registered process server. "
        f"If that is wanted, delete ProcessServer {name} and register again; if not, revoke the registration key",
    )


def _actions(observed: ObservedServer, now: datetime) -> tuple[Action, ...]:
    server, meta, report = observed.server, observed.server.metadata, observed.server.status.appliance
    assert report is not None
    account = appliance(meta.name)
    actions: list[Action] = [
        GrantAccount(id_of(server), account, appliance_rules(meta.name, observed.secrets)),
        EnsureLease(id_of(server)),
    ]
    if _needs_certificate(server, observed.timing, now):
        actions.append(SignProcessServer(meta.namespace, report.certificate_request, report.address))
    if _needs_token(observed, now):
        actions.append(SealToken(meta.namespace, account, report.public_key, meta.name))
    return tuple(actions)


def _needs_certificate(server: ProcessServer, timing: Timing, now: datetime) -> bool:
    registration, report = server.status.registration, server.status.appliance
    if registration is None or not registration.certificate or not registration.certificate_expires or report is None:
        return True
    if certificate_digest(registration.certificate) != request_digest(report.certificate_request):
        return True
    return registration.certificate_expires - now < timing.certificate_life / 3


def _needs_token(observed: ObservedServer, now: datetime) -> bool:
    """Seal a token once; a process server that was away until its own ran out finds a new one."""
    registration = observed.server.status.registration
    if registration is None or not registration.sealed_token or registration.token_expires is None:
        return True
    return not observed.connected and registration.token_expires - now < observed.timing.token_life / 2


def _registration(observed: ObservedServer, refusal: Refusal | None, now: datetime) -> Registration:
    old = observed.server.status.registration or Registration(phase=RegistrationPhase.PENDING)
    if old.registered_at:
        return old  # what happens later, such as a wrong clock, does not undo it
    if refusal:
        report = observed.server.status.appliance
        judged = report.last_contact if report is not None else None
        return old.model_copy(update={"phase": RegistrationPhase.REFUSED, "refused_contact": judged})
    if not _asked(observed.server):
        return old.model_copy(update={"phase": RegistrationPhase.PENDING, "refused_contact": None})
    update = {
        "phase": RegistrationPhase.REGISTERED,
        "refused_contact": None,
        "service_account": appliance(observed.server.metadata.name),
        "registered_at": now.replace(microsecond=0),
    }
    return old.model_copy(update=update)


def _verdict(observed: ObservedServer, registration: Registration, refusal: Refusal | None) -> Verdict:
    server = observed.server
    site = server.spec.site_ref.name
    if not observed.site_exists:
        where = f"{server.metadata.namespace}/{site}"
        return waiting(
            "SiteNotFound", f"spec.siteRef names Site {where}, which does not exist. It is looked at again within 10 s"
        )
    if refusal:
        return stalled(refusal.reason, refusal.message)
    if registration.phase is not RegistrationPhase.REGISTERED:
        return waiting(
            "NotRegistered",
            f"the appliance has not registered yet. Issue a key with `farshore site registration-key {site}` and start "
            f"`farshore processserver --registration-key FILE --name {server.metadata.name} --state DIR` on it",
        )
    if not observed.connected:
        return waiting("NotConnected", _lost(observed))
    return ready("Connected", "it is registered and its heartbeat arrives")


def _lost(observed: ObservedServer) -> str:
    if observed.heartbeat is None:
        return "it is registered but no heartbeat has arrived yet. Check that `farshore processserver` runs on it"
    return (
        f"no heartbeat since {observed.heartbeat:%Y-%m-%dT%H:%M:%SZ} (last contact). Check that it runs and reaches "
        "the Kubernetes API; it is Ready again as soon as a heartbeat arrives"
    )


def _seen(observed: ObservedServer, registration: Registration, refusal: Refusal | None) -> tuple[Seen, ...]:
    registered = registration.phase is RegistrationPhase.REGISTERED
    if registered:
        first = Seen(REGISTERED, True, "Registered", "it has its token and its certificate")
    elif refusal:
        first = Seen(REGISTERED, False, refusal.reason, refusal.message)
    else:
        first = Seen(REGISTERED, False, "NotRegistered", "the appliance has not registered yet")
    connected = (
        Seen(CONNECTED, True, "HeartbeatArrives", "its heartbeat arrives")
        if observed.connected
        else Seen(CONNECTED, False, "NoHeartbeat", _lost(observed) if registered else "it is not registered")
    )
    clock = _bad_clock(observed)
    if observed.server.status.appliance is None:
        return first, connected, Seen(CLOCK, None, "NotReported", "it has not reported yet")
    if clock:
        return first, connected, Seen(CLOCK, False, clock.reason, clock.message)
    return first, connected, Seen(CLOCK, True, "WithinLimit", "its clock agrees with the API server's")


def _shown_heartbeat(observed: ObservedServer) -> datetime | None:
    old, new = observed.server.status.last_heartbeat, observed.heartbeat
    if new is None:
        return old
    if observed.connected and old is not None and timedelta(0) <= new - old < HEARTBEAT_SHOWN_EVERY:
        return old
    return new.replace(microsecond=0)


def _renewal(registration: Registration, timing: Timing, now: datetime) -> timedelta | None:
    if registration.certificate_expires is None:
        return None
    due = registration.certificate_expires - timing.certificate_life / 3 - now
    return max(timedelta(seconds=30), due)
