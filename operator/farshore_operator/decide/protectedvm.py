"""Decides on a ProtectedVM: who serves it, what that server should do, and what there is to tell."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.tasks import TaskInput, TaskKind
from farshore_operator.api.failoverplan import ActiveSite
from farshore_operator.api.protectedvm import AgentIdentity, ProtectedVMStatus, ProtectionPhase
from farshore_operator.api.task import TaskSpec
from farshore_operator.crypto.certificates import certificate_digest, request_digest
from farshore_operator.decide import history, machineruns, protection, prune, readiness
from farshore_operator.decide.actions import Certified, CreateOwned, SetFinalizer, SignMachine
from farshore_operator.decide.assignment import Placement, nobody, place
from farshore_operator.decide.decision import Action, Decision, Outcome
from farshore_operator.decide.identity import id_of
from farshore_operator.decide.naming import DOCTOR_ANNOTATION, MACHINE_LABEL, bounded, label, machine_id
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.references import summary
from farshore_operator.decide.replicas import warm_replica
from farshore_operator.decide.uninstall import Farewell, farewell
from farshore_operator.report.conditions import Verdict, settle, stalled, waiting
from farshore_operator.report.happening import EventType, Happening

FINALIZER = "farshore.dev/protection"
RETRY = timedelta(seconds=8)


def decide(observed: ObservedVM, now: datetime) -> Decision[ProtectedVMStatus]:
    """Decide on a machine."""
    if observed.vm.metadata.deletion_timestamp:
        return _leave(observed, now)
    if history.pending(observed):
        return _unread(observed, now)
    wish = machineruns.desired(observed)
    refused = protection.refusal(observed)
    unresolved = protection.missing(observed)
    current = observed.vm.status.assignment
    placement = Placement(current) if refused or (unresolved and current is None) else place(observed, wish, now)
    found = readiness.blockers(observed, now)
    situation = protection.Situation(observed, placement, readiness.failover_ready(observed, found, now), now)
    health = protection.verdict(situation)
    status = _status(situation, health, wish)
    actions: list[Action] = [] if refused else [*_hold(observed), *_sign(observed, now), *_doctor(observed, placement)]
    actions += [*history.actions(observed, now), *prune.drills(observed), *prune.preflights(observed.preflights)]
    broken = bool(unresolved) or bool(placement.reason)
    return Decision(status, tuple(actions), _again(observed, broken, now))


def _unread(observed: ObservedVM, now: datetime) -> Decision[ProtectedVMStatus]:
    """Leave everything as it is until it is known what the vault knows of the machine."""
    vm = observed.vm
    refused = protection.refusal(observed)
    unresolved = protection.missing(observed)
    if refused is not None:
        health = stalled(refused.reason, refused.message)
    elif unresolved:
        health = waiting(unresolved[0].reason, summary(unresolved).message)
    elif history.unasked(observed):
        reason, text = nobody(observed)
        health = waiting(reason, f"{text}. The vault is asked first what it knows of the machine")
    else:
        health = waiting("ReadingHistory", history.message(observed))
    found = readiness.blockers(observed, now)
    status = vm.status.model_copy(
        update={
            "observed_generation": vm.metadata.generation,
            "conditions": settle(vm.status.conditions, health, (), vm.metadata.generation, now),
            "phase": vm.status.phase or ProtectionPhase.PENDING,
            "failover_ready": readiness.failover_ready(observed, found, now),
            "next_step": None if health.reason == "ReadingHistory" else health.message,
        }
    )
    actions = () if refused or unresolved else (*_hold(observed), *history.actions(observed, now))
    return Decision(status, actions, RETRY)


def fold(status: ProtectedVMStatus, outcome: Outcome) -> ProtectedVMStatus:
    """Put a signed certificate into the status."""
    if not isinstance(outcome, Certified):
        return status
    agent = AgentIdentity(certificate=outcome.certificate, certificate_expires=outcome.expires)
    return status.model_copy(update={"agent": agent})


def _status(situation: protection.Situation, health: Verdict, wish: Desired) -> ProtectedVMStatus:
    observed = situation.observed
    vm, meta = observed.vm, observed.vm.metadata
    run, found = machineruns.under_way(observed), machineruns.life(observed)
    return ProtectedVMStatus(
        observed_generation=meta.generation,
        conditions=settle(
            vm.status.conditions, health, protection.conditions(situation), meta.generation, situation.now
        ),
        phase=protection.phase(observed),
        assignment=situation.placement.assignment,
        desired=wish.value if situation.placement.assignment else None,
        agent=vm.status.agent,
        active_run=run.metadata.name if run else None,
        active_site=(ActiveSite.RECOVERY if found.at_recovery else ActiveSite.SOURCE).value,
        standing=history.reckoned(observed, found.standing),
        recovered=found.recovered,
        failover_ready=situation.readiness,
        warm_replica=warm_replica(observed),
        next_step=protection.next_step(situation, health),
    )


def _leave(observed: ObservedVM, now: datetime) -> Decision[ProtectedVMStatus]:
    vm = observed.vm
    parting = farewell(observed, now)
    if FINALIZER not in vm.metadata.finalizers:
        return Decision(None)
    if parting.let_go:
        happenings = (_left_behind(parting),) if parting.left_behind else ()
        if parting.kept:
            happenings = (Happening(EventType.NORMAL, "ProtectionRetained", parting.kept, "Uninstall"),)
        return Decision(None, (SetFinalizer(id_of(vm), present=False),), None, happenings)
    # The annotation can be set at any time and raises an event; the bound is waited for here.
    health = waiting("Deleting", parting.message)
    status = vm.status.model_copy(
        update={
            "observed_generation": vm.metadata.generation,
            "conditions": settle(vm.status.conditions, health, (), vm.metadata.generation, now),
            "desired": Desired.UNINSTALL.value if vm.status.assignment else None,
            "next_step": parting.message,
        }
    )
    return Decision(status, (), RETRY)


def _left_behind(parting: Farewell) -> Happening:
    return Happening(EventType.WARNING, "AgentLeftBehind", parting.left_behind, "Uninstall")


def _hold(observed: ObservedVM) -> tuple[Action, ...]:
    if FINALIZER in observed.vm.metadata.finalizers:
        return ()
    return (SetFinalizer(id_of(observed.vm), present=True),)


def _sign(observed: ObservedVM, now: datetime) -> tuple[Action, ...]:
    """Sign the request of the server that is assigned, once for each request, and again before it expires."""
    vm, report = observed.vm, observed.report
    request = report.agent.certificate_request if report and report.agent else ""
    if not request:
        return ()
    agent = vm.status.agent
    if agent is not None and agent.certificate and agent.certificate_expires:
        same = certificate_digest(agent.certificate) == request_digest(request)
        if same and agent.certificate_expires - now > observed.timing.certificate_life / 3:
            return ()
    identity = machine_id(vm.metadata.namespace, vm.metadata.name)
    return (SignMachine(vm.metadata.namespace, request, identity),)


def _doctor(observed: ObservedVM, placement: Placement) -> tuple[Action, ...]:
    """Ask for a preflight when `farshore doctor` does; its name is that of the request, so it runs once."""
    vm = observed.vm
    request = vm.metadata.annotations.get(DOCTOR_ANNOTATION)
    if not request or placement.assignment is None:
        return ()
    meta = vm.metadata
    spec = TaskSpec(
        kind=TaskKind.PREFLIGHT,
        process_server=placement.assignment.process_server,
        protected_vm=meta.name,
        input=TaskInput(machine_id=machine_id(meta.namespace, meta.name)),
    )
    return (
        CreateOwned(
            "Task",
            meta.namespace,
            preflight_name(meta.name, request),
            spec.dump(),
            id_of(vm),
            {MACHINE_LABEL: label(meta.name)},
        ),
    )


def preflight_name(vm: str, request: str) -> str:
    """Return the name of the Task that answers a doctor's request (the annotation's value)."""
    return bounded(f"{vm}-preflight-{hashlib.sha256(request.encode()).hexdigest()[:8]}")


def _again(observed: ObservedVM, broken: bool, now: datetime) -> timedelta | None:
    """Look again when something missing may be there, the RPO threshold is crossed, or a server is given up."""
    if broken:
        return RETRY
    due: list[timedelta] = []
    report, policy, assignment = observed.vm.status.replication, observed.policy, observed.vm.status.assignment
    if report and report.last_point and policy:
        crossing = report.last_point.time + policy.spec.rpo_threshold - now
        if crossing > timedelta(0):
            due.append(crossing + timedelta(seconds=1))
    server = observed.server(assignment.process_server) if assignment else None
    if server is not None and not server.connected:
        due.append(timedelta(seconds=15))
    return min(due, default=None)
