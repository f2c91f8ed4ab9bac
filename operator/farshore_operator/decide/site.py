"""Decides on a Site: its registrar and CA exist, its references resolve, its process servers are counted."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from farshore_operator.api import Site
from farshore_operator.api.site import SiteStatus
from farshore_operator.decide.actions import EnsureAuthority, GrantAccount
from farshore_operator.decide.decision import Decision, Outcome
from farshore_operator.decide.identity import id_of
from farshore_operator.decide.naming import SITE_LABEL, label, registrar
from farshore_operator.decide.rbac import registrar_rules
from farshore_operator.decide.references import SecretUse, problems, summary
from farshore_operator.report.conditions import Seen, Verdict, ready, settle, waiting

SERVERS_AVAILABLE = "ProcessServersAvailable"
RETRY = timedelta(seconds=8)


@dataclass(frozen=True)
class ObservedSite:
    """A site, its Secrets, and the number of its process servers and machines."""

    site: Site
    secrets: tuple[SecretUse, ...]
    registered: int
    alive: int
    machines: int


def decide(observed: ObservedSite, now: datetime) -> Decision[SiteStatus]:
    """Decide on a site. It is ready without process servers: registering one is the next step, not a fault."""
    site, meta = observed.site, observed.site.metadata
    if meta.deletion_timestamp:
        return Decision(None)
    name = registrar(meta.name)
    grant = GrantAccount(id_of(site), name, registrar_rules(), {SITE_LABEL: label(meta.name)})
    missing = problems(meta.namespace, observed.secrets)
    verdict: Verdict = ready()
    if missing:
        problem = summary(missing)
        verdict = waiting(problem.reason, problem.message)
    status = SiteStatus(
        observed_generation=meta.generation,
        conditions=settle(site.status.conditions, verdict, (_servers(observed),), meta.generation, now),
        registrar=name,
        process_servers=observed.registered,
        process_servers_alive=observed.alive,
        machines=observed.machines,
    )
    return Decision(status, (EnsureAuthority(meta.namespace), grant), RETRY if missing else None)


def fold(status: SiteStatus, outcome: Outcome) -> SiteStatus:
    """Take over nothing: the CA is found by its name."""
    return status


def _servers(observed: ObservedSite) -> Seen:
    name = observed.site.metadata.name
    if observed.alive:
        count = f"{observed.alive} of {observed.registered} registered process servers are connected"
        return Seen(SERVERS_AVAILABLE, True, "Connected", count)
    if observed.registered:
        message = f"none of the {observed.registered} registered process servers of the site is connected: start one"
        return Seen(SERVERS_AVAILABLE, False, "NotConnected", message)
    message = f"no process server is registered: issue a key with `farshore site registration-key {name}`"
    return Seen(SERVERS_AVAILABLE, False, "NoneRegistered", message)
