"""Whether a failover of a machine would work now: ordered checks, of which the first that fails explains.

Hard blockers make a failover impossible and are what its prerequisites ask. Soft ones make it worse than promised: old
points lose more work, but when the source is gone they are what there is.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from farshore_operator.api import FailoverRun, Site
from farshore_operator.api.failoverrun import RunKind
from farshore_operator.api.protectedvm import FailoverBlocker, FailoverReady, Place, Verdict
from farshore_operator.api.recoveryvault import Engine
from farshore_operator.api.site import Provider
from farshore_operator.api.target import Target
from farshore_operator.decide import history, machineruns, twins
from farshore_operator.decide.blocker import Blocker
from farshore_operator.decide.naming import MACHINE_NAME_LENGTH, bounded, machine_id
from farshore_operator.decide.observedvm import ObservedVM, ServerFacts
from farshore_operator.decide.references import ObjectUse, problems
from farshore_operator.engines.capabilities import FACTS, LACKING, Capability
from farshore_operator.providers.capabilities import cannot_recover
from farshore_operator.providers.targets import TargetFacts, in_the_way

MOST = 32
"""Blockers that a status tells."""


def recovery_server(observed: ObservedVM) -> ServerFacts | None:
    """Return the process server that would recover the machine: connected, able to run machines, least loaded."""
    site = observed.vm.spec.target.site_ref.name
    able = [s for s in observed.servers if s.site == site and s.registered and s.connected and s.can_run_machines]
    return min(able, key=lambda server: (server.load, server.name), default=None)


def blockers(observed: ObservedVM, now: datetime, *, ignoring: str = "") -> tuple[Blocker, ...]:
    """Return everything that is in the way of a failover, in the order in which it should be dealt with.

    `ignoring` is the name of the run that asks, which is not in its own way.
    """
    found: list[Blocker] = []
    if history.pending(observed):
        found.append(Blocker("ReadingHistory", history.message(observed)))
    if machineruns.life(observed).standing.place is Place.FAILED_BACK:
        found.append(Blocker("NotCommitted", "the machine was failed back, which is not committed yet"))
    if machineruns.recovered(observed) is not None:
        found.append(Blocker("AlreadyFailedOver", "the machine runs at its recovery site already"))
    run = machineruns.under_way(observed)
    if run is not None and run.metadata.name != ignoring and run.spec.kind is not RunKind.TEST_FAILOVER:
        found.append(Blocker("RunUnderWay", f"{run.spec.kind} {run.metadata.name} is under way"))
    found += twins.in_the_way(observed.vm.metadata.name, observed.twins)
    moved = bool(found)
    found += [*_vault(observed), *_target(observed), *_points(observed, now)]
    # What the recovery site must have for the machine is of no interest while the machine is there, or on its way.
    return (*found, *(() if moved else _recovery_site(observed)), *_drills(observed, now))


def failover_ready(observed: ObservedVM, found: tuple[Blocker, ...], now: datetime) -> FailoverReady:
    """Return the verdict for the status; `since` stays while the verdict does."""
    if not found:
        new = FailoverReady(verdict=Verdict.READY)
    else:
        rest = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        told = tuple(FailoverBlocker(reason=one.reason, message=one.message, hard=one.hard) for one in found[:MOST])
        new = FailoverReady(
            verdict=Verdict.NOT_READY, reason=found[0].reason, message=found[0].message + rest, blockers=told
        )
    old = observed.vm.status.failover_ready
    since = old.since if old and old.verdict is new.verdict and old.since else now.replace(microsecond=0)
    return new.model_copy(update={"since": since})


def _vault(observed: ObservedVM) -> list[Blocker]:
    namespace, spec = observed.vm.metadata.namespace, observed.vm.spec
    if observed.vault is None:
        use = ObjectUse("spec.vaultRef", "RecoveryVault", spec.vault_ref.name, exists=False)
        return [Blocker(problem.reason, problem.message) for problem in problems(namespace, (use,))]
    return [Blocker(problem.reason, problem.message) for problem in problems(namespace, observed.vault_secrets)]


def _target(observed: ObservedVM) -> list[Blocker]:
    namespace, name = observed.vm.metadata.namespace, observed.vm.spec.target.site_ref.name
    if observed.target_site is None:
        return [Blocker("SiteNotFound", f"spec.target.siteRef names Site {namespace}/{name}, which does not exist")]
    if not _own(observed):
        return _service_target(observed.target_site, observed.vm.spec.target)
    cannot = cannot_recover(observed.target_site.spec.provider, name)
    if cannot:
        return [Blocker("ProviderNotSupported", cannot)]
    if recovery_server(observed) is not None:
        return []
    here = [server for server in observed.servers if server.site == name]
    if not here:
        text = f"recovery site {name} has no process server: issue a key with `farshore site registration-key {name}`"
        return [Blocker("NoRecoveryProcessServer", text)]
    connected = [server for server in here if server.registered and server.connected]
    names = ", ".join(server.name for server in (connected or here))
    if connected:
        text = (
            f"no process server of recovery site {name} can run machines ({names}): install QEMU on one, run it as root"
        )
        return [Blocker("CannotRunMachines", text)]
    text = f"no process server of recovery site {name} is connected ({names}): start one"
    return [Blocker("RecoveryProcessServerNotConnected", text)]


def _own(observed: ObservedVM) -> bool:
    """Tell whether process servers of ours recover the machine."""
    vault = observed.vault
    return vault is None or Capability.OWN_SERVERS in FACTS[vault.spec.engine].capabilities


def _service_target(site: Site, target: Target) -> list[Blocker]:
    """Return what is wrong with the target of a machine that Site Recovery recovers: not in Azure, or too detailed."""
    if site.spec.provider is Provider.AZURE:
        if not (target.private_ip or target.interfaces):
            return []
        wanted = Capability.CHOSEN_INTERFACES
        return [Blocker(f"{wanted}NotSupported", LACKING[Engine.SITE_RECOVERY][wanted])]
    text = (
        f"target site {site.metadata.name} has provider {site.spec.provider}, and Site Recovery recovers to Azure "
        "only: name a Site of provider azure, or use a RecoveryVault of engine native"
    )
    return [Blocker("ProviderNotSupported", text)]


def _points(observed: ObservedVM, now: datetime) -> list[Blocker]:
    report = observed.vm.status.replication
    if report is None or report.last_point is None:
        return [Blocker("NoRecoveryPoint", "there is no recovery point yet: wait for the initial replication")]
    if observed.policy is None:
        return []
    age = now - report.last_point.time
    limit = observed.policy.spec.rpo_threshold
    if age <= limit:
        return []
    text = (
        f"the newest recovery point is of {report.last_point.time:%Y-%m-%dT%H:%M:%SZ}, older than the policy's "
        f"threshold of {int(limit.total_seconds())} s: a failover would lose that much work"
    )
    return [Blocker("PointsTooOld", text, hard=False)]


def _recovery_site(observed: ObservedVM) -> tuple[Blocker, ...]:
    """Return what the recovery site lacks, as its process server sees it."""
    server, site = recovery_server(observed), observed.target_site
    if server is None or site is None or not _own(observed):
        return ()
    meta, target = observed.vm.metadata, observed.vm.spec.target
    name = bounded((target.name or meta.name).lower(), MACHINE_NAME_LENGTH)
    facts = TargetFacts(machine_id(meta.namespace, meta.name), name, server.name, server.recovery)
    return in_the_way(site.spec.provider, facts)


def _drills(observed: ObservedVM, now: datetime) -> list[Blocker]:
    """Return what the machine's last drill says: it failed, or is too long ago."""
    found = []
    judged = [run for run in observed.runs if run.spec.kind is RunKind.TEST_FAILOVER and _verdict(run) is not None]
    if judged and _verdict(judged[-1]) is False:
        name = judged[-1].metadata.name
        text = f"the last drill failed: see FailoverRun {name}, correct what it met, and drill again"
        found.append(Blocker("LastDrillFailed", text, hard=False))
    limit = observed.drill_max_age
    if limit is None:
        return found
    good = [run.status.finished_at for run in judged if _verdict(run) and run.status.finished_at]
    if not good or now - max(good) > limit:
        when = f"was at {max(good):%Y-%m-%dT%H:%M:%SZ}" if good else "has not been yet"
        text = (
            f"the last drill that succeeded {when}, and spec.drill.maxAge of the plan is {_days(limit)}: drill it, "
            "with a TestFailover"
        )
        found.append(Blocker("DrillTooOld", text, hard=False))
    return found


def _verdict(run: FailoverRun) -> bool | None:
    """Tell whether a drill succeeded, None if it was not over, or called off."""
    told = run.status.condition("Succeeded")
    if told is None or told.reason == "CalledOff":
        return None
    return told.status.value == "True"


def _days(span: timedelta) -> str:
    return f"{span.days} days" if span >= timedelta(days=2) else f"{int(span.total_seconds() // 3600)} hours"
