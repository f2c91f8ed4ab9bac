"""What a vault needs before machines replicate into it: itself, a registered server, policies mapped to its container.

What is wrong with the server (registration, clock, heartbeat, certificate, process servers) is told as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.operation import Operation
from farshore_engine.contract.siterecovery import ApplianceFacts, SiteRecoveryReport
from farshore_operator.engines.siterecovery import naming
from farshore_operator.engines.siterecovery.calls import Call, CreatePolicy, CreateVault, MapContainer, RefreshServer
from farshore_operator.engines.siterecovery.decide.verdict import Verdict, checks, resting, told, under_way
from farshore_operator.engines.siterecovery.facts import Appliance, Job, PolicyFacts
from farshore_operator.engines.siterecovery.wishes import VaultWish

KEY = "farshore cannot issue it: the portal does, under Site Recovery infrastructure; it is good for five days"


@dataclass(frozen=True)
class VaultView:
    """A vault as it was read.

    Attributes:
        jobs: those of the recorded operations, by name; None for one that is unknown.
        protected: the names of the machines that have an item, and a policy with it.
    """

    wish: VaultWish
    exists: bool
    appliances: tuple[Appliance, ...] = ()
    policies: Mapping[str, PolicyFacts] = field(default_factory=dict)
    jobs: Mapping[str, Job | None] = field(default_factory=dict)
    protected: frozenset[str] = frozenset()


def decide(view: VaultView, now: datetime) -> Verdict[SiteRecoveryReport]:
    """Return the next call for a vault."""
    kept = tuple(one for one in view.wish.report.operations if _goes_on(view, one, now))
    base = SiteRecoveryReport(
        exists=view.exists,
        appliances=tuple(_facts(one) for one in view.appliances),
        checks=checks(tuple(dict.fromkeys(p for one in view.appliances for p in one.problems)))[:64],
        operations=kept,
        plans=view.wish.report.plans,
        refreshed=view.wish.report.refreshed,
    )
    if not view.exists:
        return _create(view, base)
    chosen = choose(view.wish, view.appliances)
    if chosen is None:
        return Verdict(_unregistered(view, base))
    call = _refresh(view, chosen) or _policy(view, chosen, kept)
    if isinstance(call, RefreshServer):
        base = base.model_copy(update={"refreshed": view.wish.refresh})
    failed = next((job for one in kept if (job := view.jobs.get(one.job)) is not None and job.failed), None)
    if failed is not None:
        why = told(failed)
        base = _said(base, "OperationFailed", why.message, f"{why.remedy}; it is tried again after a while")
    elif not chosen.connected:
        heard = f"since {chosen.heartbeat:%Y-%m-%dT%H:%M:%SZ}" if chosen.heartbeat is not None else "at all"
        base = _said(
            base,
            "ServerNotConnected",
            f"Site Recovery has not heard of {chosen.friendly} {heard}",
            "Start it, check its clock and HTTPS to Azure; a registration key that has expired needs a new one",
        )
    return Verdict(base, call)


def choose(wish: VaultWish, found: tuple[Appliance, ...]) -> Appliance | None:
    """Return the configuration server or appliance to use: the one that is named, else the only one."""
    if wish.appliance:
        names = wish.appliance.lower()
        return next((one for one in found if names in (one.name.lower(), one.friendly.lower())), None)
    return found[0] if len(found) == 1 else None


def policies_wished(view: VaultView, chosen: Appliance) -> dict[str, CreatePolicy]:
    """Return the policies that machines here need, by name."""
    wished = [one for one in view.wish.machines if one.desired is Desired.REPLICATE and one.name not in view.protected]
    named = ((naming.policy(chosen.scenario, one.policy), one.policy) for one in wished)
    return {name: CreatePolicy(name, settings, chosen) for name, settings in named}


def _goes_on(view: VaultView, one: Operation, now: datetime) -> bool:
    if one.call == CreateVault.__name__ and view.exists:
        return False
    job = view.jobs.get(one.job) if one.job else None
    return under_way(one, job, now) or resting(one, job, now)


def _create(view: VaultView, base: SiteRecoveryReport) -> Verdict[SiteRecoveryReport]:
    settings = view.wish.settings
    where = f"{settings.vault} of resource group {settings.resource_group}"
    if not settings.region:
        text = f"there is no Recovery Services vault {where}"
        remedy = "Make it, correct spec.azure, or set spec.azure.region to have it made"
        return Verdict(_said(base, "VaultNotFound", text, remedy))
    busy = any(one.call == CreateVault.__name__ for one in base.operations)
    report = _said(base, "CreatingVault", f"vault {where} is being made", "", waits=True)
    return Verdict(report, None if busy else CreateVault())


def _unregistered(view: VaultView, base: SiteRecoveryReport) -> SiteRecoveryReport:
    names = ", ".join(one.friendly for one in view.appliances)
    if not view.appliances:
        return _said(
            base,
            "NoServerRegistered",
            f"no configuration server or replication appliance is registered with vault {view.wish.settings.vault}",
            f"Set one up beside the machines and register it with the vault's key ({KEY}; the clocks may differ by "
            "five minutes). New vaults take a replication appliance only",
        )
    if view.wish.appliance:
        text = f"spec.azure.siteRecovery.appliance names {view.wish.appliance}, but the vault has {names}"
        return _said(base, "ServerNotFound", text, "Name one of these")
    text = f"the vault has more than one configuration server or appliance: {names}"
    return _said(base, "ServerAmbiguous", text, "Name one in spec.azure.siteRecovery.appliance")


def _refresh(view: VaultView, chosen: Appliance) -> Call | None:
    wanted = view.wish.refresh
    return RefreshServer(chosen) if wanted and wanted != view.wish.report.refreshed else None


def _policy(view: VaultView, chosen: Appliance, kept: tuple[Operation, ...]) -> Call | None:
    busy = {(one.call, one.subject) for one in kept}
    for name, create in sorted(policies_wished(view, chosen).items()):
        known = view.policies.get(name)
        call: Call | None = None
        if known is None:
            call = create
        elif chosen.container not in known.mapped:
            call = MapContainer(name, known.id, chosen)
        if call is not None and (call.name, call.subject) not in busy:
            return call
    return None


def _facts(one: Appliance) -> ApplianceFacts:
    return ApplianceFacts(
        name=one.friendly,
        scenario=one.scenario.value,
        connected=one.connected,
        last_heartbeat=one.heartbeat,
        version=one.version,
        process_servers=tuple(server.name for server in one.process_servers),
    )


def _said(
    base: SiteRecoveryReport, reason: str, message: str, remedy: str, *, waits: bool = False
) -> SiteRecoveryReport:
    return base.model_copy(update={"reason": reason, "message": message, "remedy": remedy, "waits": waits})
