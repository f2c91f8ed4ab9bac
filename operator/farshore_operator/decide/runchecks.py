"""What each kind of run needs before it does anything: checked once, at its start."""

from __future__ import annotations

from farshore_engine.contract.replication import Check, CheckResult
from farshore_operator.api.failoverrun import RunKind, RunMember, StepPhase
from farshore_operator.decide import failback, readiness
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.runjournal import Journal
from farshore_operator.decide.runsteps import StepName, on, sequence
from farshore_operator.decide.servicesteps import refusals

RECOVERS = (RunKind.TEST_FAILOVER, RunKind.FAILOVER)


def prerequisites(journal: Journal) -> tuple[Check, ...]:
    """Check what the run needs, and write the step; hard blockers fail the run, soft ones are warnings."""
    checks: list[Check] = []
    for member in journal.observed.run.spec.members:
        machine = journal.observed.machines.get(member.protected_vm)
        if machine is None:
            text = f"ProtectedVM {member.protected_vm} does not exist any more"
            checks.append(Check(name=member.protected_vm, result=CheckResult.ERROR, message=text))
            continue
        found = [*_refused(journal, member), *_blockers(journal, member, machine), *_nobody(journal, member)]
        checks += found
        if not found:
            text = f"{member.protected_vm} can be recovered by {member.process_server}"
            checks.append(Check(name=member.protected_vm, result=CheckResult.PASSED, message=text))
    errors = [check.message for check in checks if check.result is CheckResult.ERROR]
    phase = StepPhase.FAILED if errors else StepPhase.SUCCEEDED
    journal.set(StepName.PREREQUISITES, "", phase, message="; ".join(errors) or None)
    return tuple(checks)


def _refused(journal: Journal, member: RunMember) -> list[Check]:
    """Find what the engine of a machine cannot do."""
    name = member.protected_vm
    return [
        Check(name=f"{name}.{lacks}NotSupported", result=CheckResult.ERROR, message=f"{name}: {text}")
        for lacks, text in refusals(journal.observed.run.spec, member)
    ]


def _blockers(journal: Journal, member: RunMember, machine: ObservedVM) -> list[Check]:
    run, name = journal.observed.run, member.protected_vm
    if run.spec.kind is RunKind.FAILBACK:
        problem = failback.hindrance(machine, run.spec.mode)
        if problem is None:
            return []
        return [Check(name=f"{name}.{problem.reason}", result=CheckResult.ERROR, message=problem.message)]
    if run.spec.kind not in RECOVERS:
        return []
    # A machine of its name is in nobody's way in a drill, and its own in a run that goes on from the vault's journal.
    own = run.spec.kind is RunKind.TEST_FAILOVER or bool(journal.observed.history)
    return [
        Check(
            name=f"{name}.{blocker.reason}",
            result=CheckResult.ERROR if blocker.hard else CheckResult.WARNING,
            message=f"{name}: {blocker.message}",
        )
        for blocker in readiness.blockers(machine, journal.now, ignoring=run.metadata.name)
        if blocker.drills or not own
    ]


def _nobody(journal: Journal, member: RunMember) -> list[Check]:
    """Find steps that nobody would ever take, because no process server was there when the run was frozen."""
    spec, name = journal.observed.run.spec, member.protected_vm
    if member.process_server and spec.kind in (*RECOVERS, RunKind.FAILBACK):
        return []
    lacking = [rule for rule in sequence(spec, member) if rule.kind is not None and not on(rule, member)]
    if not lacking:
        return []
    text = f"{name}: no process server of site {member.target_site} could recover it at the start"
    return [Check(name=f"{name}.NoServer", result=CheckResult.ERROR, message=text)]
