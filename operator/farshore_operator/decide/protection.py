"""Phase, conditions, health and next step of a machine's protection, from what was observed and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from farshore_engine.contract.assignment import Desired, InstallMode
from farshore_engine.contract.replication import CheckResult, Churn, ReplicationReport, State
from farshore_engine.contract.siterecovery import SWITCH
from farshore_operator.api.protectedvm import FailoverReady, Place, ProtectionPhase
from farshore_operator.api.protectedvm import Verdict as ReadyVerdict
from farshore_operator.decide import machineruns, placephase, switching
from farshore_operator.decide.assignment import Placement
from farshore_operator.decide.consistencygroup import conflict
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.references import ObjectUse, Problem, SecretUse, problems, summary
from farshore_operator.engines.capabilities import AGENT_FOR, FACTS, LACKING, Capability
from farshore_operator.report.conditions import Health, Seen, Verdict, ready, stalled, waiting

AGENT_INSTALLED = "AgentInstalled"
INITIAL_COMPLETE = "InitialReplicationComplete"
RPO_MET = "RPOMet"
FAILOVER_READY = "FailoverReady"
CHURN_FITS = "ChurnFitsLink"
COMMITTED = "Committed"
CONSISTENCY_GROUP = "ConsistencyGroup"
REPLICATION_HEALTHY = "ReplicationHealthy"

_NO_LOGIN = (
    "there is no SSH login for the installation of the agent: set spec.source.credentialsSecretRef, "
    "or spec.credentialsSecretRef of Site {site}, or spec.source.install to Manual"
)
_PHASES = {
    State.WAITING: ProtectionPhase.PENDING,
    State.PREFLIGHT: ProtectionPhase.INSTALLING_AGENT,
    State.INSTALLING: ProtectionPhase.INSTALLING_AGENT,
    State.INITIAL: ProtectionPhase.INITIAL_REPLICATION,
    State.RESYNC: ProtectionPhase.RESYNC_REQUIRED,
    State.PAUSED: ProtectionPhase.PAUSED,
    State.BLOCKED: ProtectionPhase.FAILED,
    State.UNINSTALLED: ProtectionPhase.PENDING,
}


@dataclass(frozen=True)
class Situation:
    """The parts of a decision on a machine from which its status is told."""

    observed: ObservedVM
    placement: Placement
    readiness: FailoverReady
    now: datetime


def refusal(observed: ObservedVM) -> Problem | None:
    """Return what this release or the engine cannot do, which no waiting heals."""
    vault = observed.vault
    if vault is None:
        return None
    facts = FACTS[vault.spec.engine]
    if AGENT_FOR[observed.vm.spec.source.os_type] not in facts.capabilities:
        return Problem("WindowsNotSupported", LACKING[vault.spec.engine][Capability.WINDOWS_AGENT])
    if observed.vm.spec.consistency_group and Capability.CONSISTENCY_GROUP not in facts.capabilities:
        return Problem("ConsistencyGroupNotSupported", LACKING[vault.spec.engine][Capability.CONSISTENCY_GROUP])
    return None


def has(observed: ObservedVM, wanted: Capability) -> bool:
    """Tell whether the engine of the machine's vault can do something; one that is not known can do all."""
    return observed.vault is None or wanted in FACTS[observed.vault.spec.engine].capabilities


def refuses(observed: ObservedVM, wanted: Capability) -> Problem | None:
    """Return by name what the engine of the machine's vault cannot do, with what to do instead; None if it can."""
    if observed.vault is None or has(observed, wanted):
        return None
    text = f"{observed.vm.metadata.name}: {LACKING[observed.vault.spec.engine][wanted]}"
    return Problem(f"{wanted}NotSupported", text)


def missing(observed: ObservedVM) -> tuple[Problem, ...]:
    """Return the references that do not resolve, those of the vault included."""
    spec, namespace = observed.vm.spec, observed.vm.metadata.namespace
    uses: list[ObjectUse | SecretUse] = [
        ObjectUse("spec.policyRef", "ReplicationPolicy", spec.policy_ref.name, observed.policy is not None),
        ObjectUse("spec.vaultRef", "RecoveryVault", spec.vault_ref.name, observed.vault is not None),
        ObjectUse("spec.source.siteRef", "Site", spec.source.site_ref.name, observed.source_site is not None),
        ObjectUse("spec.target.siteRef", "Site", spec.target.site_ref.name, observed.target_site is not None),
    ]
    own = has(observed, Capability.OWN_SERVERS)
    if observed.login is not None and own:
        uses.append(observed.login)
    found = problems(namespace, uses)
    if own and observed.login is None and observed.source_site is not None and spec.source.install is InstallMode.PUSH:
        found += (Problem("NoLogin", _NO_LOGIN.format(site=spec.source.site_ref.name)),)
    return found + tuple(
        Problem(problem.reason, f"RecoveryVault {spec.vault_ref.name}: {problem.message}")
        for problem in problems(namespace, observed.vault_secrets)
    )


def phase(observed: ObservedVM) -> ProtectionPhase:
    """Return where the protection is."""
    moved = placephase.phase(observed)
    if moved is not None:
        return moved
    report = observed.report
    if report is None:
        return ProtectionPhase.PENDING
    if report.state is State.WAITING_FOR_AGENT:
        return ProtectionPhase.PROTECTED if report.last_point else ProtectionPhase.INSTALLING_AGENT
    if report.state is State.REPLICATING:
        return ProtectionPhase.PROTECTED if report.last_point else ProtectionPhase.INITIAL_REPLICATION
    if report.state is State.STOPPED:
        return ProtectionPhase.PENDING if report.last_point is None else ProtectionPhase.PROTECTED
    return _PHASES[report.state]


def verdict(situation: Situation) -> Verdict:
    """Return how kstatus should read the machine; the first thing that is wrong explains."""
    observed = situation.observed
    refused = refusal(observed)
    if refused:
        return stalled(refused.reason, refused.message)
    moved = placephase.verdict(observed)
    if moved:
        return moved
    unresolved = missing(observed)
    if unresolved:
        problem = summary(unresolved)
        return waiting(problem.reason, problem.message)
    if situation.placement.reason:
        placement = situation.placement
        make = stalled if placement.reason == "ProcessServerOfOtherSite" else waiting
        return make(placement.reason, placement.message)
    return _of_server(observed) or _of_report(observed.report)


def conditions(situation: Situation) -> tuple[Seen, ...]:
    """Return the machine's own conditions."""
    observed, report = situation.observed, situation.observed.vm.status.replication
    seen = [_agent(report), _initial(report), _rpo(observed, report, situation.now), _failover(situation.readiness)]
    if report is not None and report.churn is not None:
        seen.append(_churn(report.churn))
    if report is not None and not has(observed, Capability.OWN_SERVERS):
        seen.append(_healthy(report))
    seen += switching.seen(observed.vm, observed.vault, observed.switch_vault)
    if observed.vm.spec.consistency_group:
        seen.append(_group(observed, observed.vm.spec.consistency_group))
    if machineruns.life(observed).standing.place not in (Place.SOURCE, Place.FAILED_BACK):
        done = machineruns.committed(observed)
        text = "the failover is final" if done else "the failover can still be judged: commit it when all is well"
        seen.append(Seen(COMMITTED, done, "Committed" if done else "AwaitingCommit", text))
    return tuple(seen)


def _healthy(report: ReplicationReport) -> Seen:
    """Tell what the engine's service says of the machine, with its cause and remedy."""
    checks = [one for one in report.checks if one.name != SWITCH]  # that is told by a condition of its own
    wrong = [one for one in checks if one.result in (CheckResult.ERROR, CheckResult.WARNING)]
    if not wrong:
        return Seen(REPLICATION_HEALTHY, True, "Healthy", "no health error is reported")
    more = f" (and {len(wrong) - 1} more: see status.replication.checks)" if len(wrong) > 1 else ""
    severe = any(one.result is CheckResult.ERROR for one in wrong)
    text = f"{wrong[0].message}. {wrong[0].remedy}{more}"
    return Seen(REPLICATION_HEALTHY, not severe, wrong[0].name, text)


def next_step(situation: Situation, health: Verdict) -> str | None:
    """Return what a person should do next, None if nothing."""
    observed = situation.observed
    step = placephase.next_step(observed)
    if step is not None:
        return step
    if machineruns.desired(observed) is Desired.STOP:
        return None
    report = observed.report
    if report is not None and report.churn is not None and report.churn.outruns_link:
        return _churn(report.churn).message
    if health.health is Health.STALLED:
        return (report.remedy if report and report.state is State.BLOCKED else "") or health.message
    if health.health is Health.RECONCILING and (situation.placement.reason or missing(observed)):
        return health.message
    if observed.vm.spec.paused:
        return "Set spec.paused to false to replicate again"
    if machineruns.moving(observed) is not None or machineruns.life(observed).at_recovery:
        return None  # that it cannot be failed over now is as it should be
    if report is not None and report.last_point is not None and situation.readiness.verdict is not ReadyVerdict.READY:
        return situation.readiness.message
    return None


def _of_server(observed: ObservedVM) -> Verdict | None:
    assignment = observed.vm.status.assignment
    if assignment is None:
        return waiting("Assigning", "it is about to be assigned to a process server")
    server = observed.server(assignment.process_server)
    if server is not None and server.connected:
        return None
    text = f"ProcessServer {assignment.process_server}, which serves the machine, is not connected: start it"
    if observed.vm.spec.process_server_ref is None:
        text += "; if it stays away, another one of the site takes over"
    return waiting("ProcessServerNotConnected", text)


def _of_report(report: ReplicationReport | None) -> Verdict:
    if report is None:
        return waiting("Assigned", "the process server has not reported on the machine yet")
    told = report.message or report.state.value
    match report.state:
        case State.BLOCKED:
            text = f"{told}. {report.remedy}" if report.remedy else told
            return stalled(_word(report.reason, "Blocked"), text)
        case State.PAUSED:
            return ready("Paused", "replication rests, as spec.paused says; writes are still tracked")
        case State.REPLICATING if report.last_point is not None:
            return ready("Protected", "recovery points are taken as the policy says")
        case State.RESYNC:
            why = f" after {report.resync_reason}" if report.resync_reason else ""
            return waiting("ResyncRequired", f"digests are compared{why}, and only blocks that differ are sent: {told}")
        case State.WAITING_FOR_AGENT:
            return waiting("AgentNotConnected", f"the agent is not connected: {told}")
        case _:
            return waiting(_word(report.reason, report.state.value), told)


def _word(reason: str, otherwise: str) -> str:
    return reason if reason.isalnum() and reason[:1].isupper() else otherwise


def _agent(report: ReplicationReport | None) -> Seen:
    if report is not None and report.agent is not None and report.agent.version:
        tracker = f", tracking writes by {report.agent.tracker}" if report.agent.tracker else ""
        return Seen(AGENT_INSTALLED, True, "Installed", f"agent {report.agent.version}{tracker}")
    if report is not None and report.state is State.UNINSTALLED:
        return Seen(AGENT_INSTALLED, False, "Uninstalled", "the agent was removed")
    return Seen(AGENT_INSTALLED, False, "NotInstalled", "no agent has been seen yet")


def _initial(report: ReplicationReport | None) -> Seen:
    if report is not None and report.last_point is not None:
        return Seen(INITIAL_COMPLETE, True, "Complete", "the first recovery point is in the vault")
    if report is not None and report.progress is not None and report.state is State.INITIAL:
        # No percentage here: a condition that changes with every report would be written with every report.
        return Seen(
            INITIAL_COMPLETE, False, "InProgress", "status.replication.progress shows how far the first copy is"
        )
    return Seen(INITIAL_COMPLETE, False, "NotStarted", "the first copy has not begun")


def _rpo(observed: ObservedVM, report: ReplicationReport | None, now: datetime) -> Seen:
    if report is None or report.last_point is None:
        return Seen(RPO_MET, None, "NoRecoveryPoint", "there is no recovery point yet")
    if observed.policy is None:
        return Seen(RPO_MET, None, "PolicyNotFound", "the policy that sets the threshold does not exist")
    limit = observed.policy.spec.rpo_threshold
    point = report.last_point
    threshold = f"{int(limit.total_seconds())} s"
    if now - point.time <= limit:
        return Seen(RPO_MET, True, "WithinThreshold", f"the newest recovery point is younger than {threshold}")
    if machineruns.desired(observed) is Desired.STOP:
        return Seen(
            RPO_MET,
            None,
            "FailedOver",
            "no points are taken between a failover and the reprotect, nor after a failback",
        )
    text = f"the newest recovery point, {point.name}, is older than the policy's threshold of {threshold}"
    return Seen(RPO_MET, False, "ThresholdExceeded", text)


def _group(observed: ObservedVM, name: str) -> Seen:
    """Tell whether the machine is cut together with its group."""
    trouble = conflict(name, observed.group)
    if trouble is not None:
        return Seen(CONSISTENCY_GROUP, False, trouble.reason, f"{trouble.message}; until then each takes points alone")
    report = observed.report
    group = report.group if report is not None else None
    if group is None or group.name != name:
        return Seen(CONSISTENCY_GROUP, None, "NotReported", f"nothing is known of consistency group {name} yet")
    if group.held_up_by:
        held = ", ".join(group.held_up_by)
        text = f"{held} holds up consistency group {name}, so each takes points alone: see status.replication.group"
        return Seen(CONSISTENCY_GROUP, False, "HeldUp", text)
    if len(group.members) < 2:
        return Seen(CONSISTENCY_GROUP, True, "Alone", f"no other machine of consistency group {name} replicates now")
    if group.last_cut is None:
        return Seen(CONSISTENCY_GROUP, None, "NoCutYet", f"consistency group {name} was not cut at one instant yet")
    text = f"consistency group {name} is cut at one instant: {', '.join(group.members)}"
    return Seen(CONSISTENCY_GROUP, True, "CutTogether", text)


def _churn(churn: Churn) -> Seen:
    if not churn.outruns_link:
        # No figures here: a condition that changes with every report would be written with every report.
        return Seen(CHURN_FITS, True, "Fits", "what is written can be sent; status.replication.churn shows how much")
    written, sent = (f"{rate / 2**20:.2g} MiB/s" for rate in (churn.written_rate, churn.sent_rate))
    text = (
        f"churn outruns the link: {written} written, {sent} sent, so the last recovery point was given up: raise the "
        "bandwidth of the ReplicationPolicy or of the ProcessServer, or lengthen spec.crashConsistentInterval"
    )
    return Seen(CHURN_FITS, False, "ChurnOutrunsLink", text)


def _failover(readiness: FailoverReady) -> Seen:
    if readiness.verdict is ReadyVerdict.READY:
        return Seen(FAILOVER_READY, True, "Ready", "a failover would work now")
    return Seen(FAILOVER_READY, False, readiness.reason or "Unknown", readiness.message or "")
