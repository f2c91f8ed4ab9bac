"""Decides on a FailoverRun: which task comes next, what the tasks brought, and when the run is over.

The run's status is its journal. A step that is over stays over; a task that exists is found by its name. So the
operator can be killed at any moment and goes on, and nothing is done twice. `runsteps` has the tables of steps,
`runmember` takes a machine through them, `hooks` does what the plan wants between its groups.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from farshore_engine.contract.replication import Check
from farshore_operator.api.failoverrun import FailoverRunStatus, RunGroup, RunKind, RunMember, RunPhase, Step, StepPhase
from farshore_operator.decide import history, hooks
from farshore_operator.decide.decision import Decision, Outcome
from farshore_operator.decide.hooks import When, hook_step
from farshore_operator.decide.runchecks import prerequisites
from farshore_operator.decide.runcleanup import call_off, clean_up
from farshore_operator.decide.runhistory import adopt, begun_at, ended_at
from farshore_operator.decide.runjournal import OVER, Journal, ObservedRun
from farshore_operator.decide.runmember import advance_member, take_step
from farshore_operator.decide.runreport import next_step, own_conditions, verdict
from farshore_operator.decide.runreporting import report_conditions, reports_due, with_reports
from farshore_operator.decide.runresults import with_results
from farshore_operator.decide.runsteps import StepName, may_fail, sequence
from farshore_operator.decide.runundo import account
from farshore_operator.report.conditions import settle

AGAIN = timedelta(seconds=20)
OTHERS = timedelta(minutes=5)
"""How long a run that is taken up again awaits those of its machines whose manifests have not been applied yet."""
UNINTERRUPTED = (StepName.FINAL_POINT, StepName.SHUTDOWN_SOURCE, StepName.FENCE)
"""Steps that end before a run is called off: half-way, nobody could tell whether the machine runs."""
HOOK_AGAIN = timedelta(seconds=3)
"""How soon a run looks again at a hook: nothing tells it that a Job has ended."""


def decide(observed: ObservedRun, now: datetime) -> Decision[FailoverRunStatus]:
    """Decide on a run."""
    run = observed.run
    if run.metadata.deletion_timestamp:
        return Decision(None)
    now = now.replace(microsecond=0)
    status = run.status
    journal = Journal(observed, now)
    unread = _unread(observed, now)
    if not unread:
        adopt(journal)
    phase = status.phase or RunPhase.RUNNING
    checks = status.checks
    if phase is RunPhase.RUNNING and unread:
        pass  # what the vault knows of its machines is not known yet, also of what there is to be cleaned up
    elif observed.clean_up and phase is not RunPhase.CLEANED_UP:
        phase = clean_up(journal)
    elif phase is RunPhase.RUNNING and (observed.called_off or _aborted(observed)):
        phase = _call_off(journal)
    elif phase is RunPhase.RUNNING:
        checks, phase = _advance(journal, checks)
    made = _status(journal, phase, checks)
    hook_runs = any(hooks.is_hook(step) and step.phase is StepPhase.RUNNING for step in made.steps)
    actions = (*journal.actions, *reports_due(journal, made))
    return Decision(made, actions, _again(observed, phase, now, hook_runs=hook_runs))


def fold(status: FailoverRunStatus, outcome: Outcome) -> FailoverRunStatus:
    """Take over what a hook brought at once; tasks are found by their names."""
    return hooks.fold(status, outcome)


def _unread(observed: ObservedRun, now: datetime) -> bool:
    """Tell whether it is not known yet what the vault knows of the run's machines, of which some may be missing yet."""
    run = observed.run
    if any(history.pending(machine) for machine in observed.machines.values()):
        return True
    if not history.awaited(run):
        return False
    if not all(machine.history.answered for machine in observed.machines.values()):
        return True
    missing = any(member.protected_vm not in observed.machines for member in run.spec.members)
    made = run.metadata.creation_timestamp
    return missing and made is not None and now - made < OTHERS


def _aborted(observed: ObservedRun) -> bool:
    """Tell whether an abort of the run has begun: the run had ended then, whatever its journal knows of it."""
    name = observed.run.metadata.name
    runs = (run for machine in observed.machines.values() for run in machine.runs)
    return any(run.spec.kind is RunKind.ABORT and run.spec.previous_run == name for run in runs)


def _again(observed: ObservedRun, phase: RunPhase, now: datetime, *, hook_runs: bool) -> timedelta | None:
    if phase in (RunPhase.RUNNING, RunPhase.CLEANING_UP):
        return HOOK_AGAIN if hook_runs else AGAIN
    if phase is RunPhase.CLEANED_UP or observed.clean_up_at is None:
        return None
    return max(timedelta(seconds=1), observed.clean_up_at - now)


def _advance(journal: Journal, checks: tuple[Check, ...]) -> tuple[tuple[Check, ...], RunPhase]:
    if journal.get(StepName.PREREQUISITES) is None:
        checks = prerequisites(journal)
    begun = journal.get(StepName.PREREQUISITES)
    if begun is not None and begun.phase is StepPhase.FAILED:
        return checks, RunPhase.FAILED
    for group, members in _groups(journal):
        state = advance_group(journal, group, members)
        if state not in OVER:
            return checks, RunPhase.FAILED if state is StepPhase.FAILED else RunPhase.RUNNING
    return checks, RunPhase.SUCCEEDED


def advance_group(journal: Journal, group: RunGroup, members: list[RunMember]) -> StepPhase:
    """Take one group as far as it goes now: its hooks before, its members side by side, its hooks after."""
    state = _hooks(journal, group, When.BEFORE)
    if state not in OVER:
        return state
    states = _side_by_side(journal, group, members)
    for phase in (StepPhase.RUNNING, StepPhase.FAILED):
        if phase in states:
            return phase
    return _hooks(journal, group, When.AFTER)


def _side_by_side(journal: Journal, group: RunGroup, members: list[RunMember]) -> list[StepPhase]:
    """Take the members as far as they go; no more than `maxParallel` are under way, and none begins after a failure."""
    room = group.max_parallel or len(members)
    known = {step.member for step in journal.observed.run.status.steps}
    states = {m.protected_vm: advance_member(journal, m) for m in members if m.protected_vm in known}
    for member in members:
        if member.protected_vm in states:
            continue
        under_way = list(states.values())
        if StepPhase.FAILED in under_way:
            break
        if under_way.count(StepPhase.RUNNING) >= room:
            return [*under_way, StepPhase.RUNNING]  # its turn comes
        states[member.protected_vm] = advance_member(journal, member)
    return list(states.values())


def _hooks(journal: Journal, group: RunGroup, when: When) -> StepPhase:
    for hook in group.before if when is When.BEFORE else group.after:
        state = hook_step(journal, group, when, hook)
        if state not in OVER:
            return state
    return StepPhase.SUCCEEDED


def _groups(journal: Journal) -> list[tuple[RunGroup, list[RunMember]]]:
    """Return the run's groups in order with their members."""
    spec = journal.observed.run.spec
    kept = {group.name: group for group in spec.groups}
    names = dict.fromkeys([*kept, *(member.group or "" for member in spec.members)])
    return [
        (kept.get(name, RunGroup(name=name)), [member for member in spec.members if (member.group or "") == name])
        for name in names
    ]


def _call_off(journal: Journal) -> RunPhase:
    """End a run whose plan aborts it: what must not be left half-way ends first, the rest is called off."""
    spec = journal.observed.run.spec
    for member in spec.members:
        for rule in sequence(spec, member):
            step = journal.get(rule.name, member.protected_vm)
            begun = step is not None and step.phase is StepPhase.RUNNING and rule.name in UNINTERRUPTED
            if begun and take_step(journal, member, rule).phase is StepPhase.RUNNING:
                return RunPhase.RUNNING
    if all(_is_over(journal, member) for member in spec.members):
        return RunPhase.SUCCEEDED  # it had ended well, and is undone by another run
    call_off(journal, "called off: the plan's abort names the run")
    text = "the plan's abort named the run while it was under way"
    journal.set(StepName.CALLED_OFF, "", StepPhase.FAILED, message=text)
    return RunPhase.FAILED


def _is_over(journal: Journal, member: RunMember) -> bool:
    """Tell whether every step of a machine has ended well, or may fail."""
    spec = journal.observed.run.spec
    steps = [(rule, journal.get(rule.name, member.protected_vm)) for rule in sequence(spec, member)]
    return all(step is not None and (step.phase in OVER or may_fail(spec, rule.name)) for rule, step in steps)


def _status(journal: Journal, phase: RunPhase, checks: tuple[Check, ...]) -> FailoverRunStatus:
    run, now = journal.observed.run, journal.now
    old = run.status
    begun = old.started_at or begun_at(journal) or run.metadata.creation_timestamp or now
    over = phase not in (RunPhase.PENDING, RunPhase.RUNNING)
    base = old.model_copy(
        update={
            "observed_generation": run.metadata.generation,
            "phase": phase,
            "started_at": begun,
            "finished_at": old.finished_at or (ended_at(journal) or now if over else None),
            "cleaned_up_at": old.cleaned_up_at or (now if phase is RunPhase.CLEANED_UP else None),
            "steps": _in_order(journal),
            "checks": checks,
            "notes": journal.observed.notes or old.notes,
        }
    )
    full = with_reports(journal, with_results(journal, base))
    full = full.model_copy(update={"account": account(run.model_copy(update={"status": full}))})
    health = verdict(run, full)
    own = (*own_conditions(run, old, full), *report_conditions(journal, full))
    conditions = settle(old.conditions, health, own, run.metadata.generation, now)
    return full.model_copy(update={"conditions": conditions, "next_step": next_step(run, full, health)})


def _in_order(journal: Journal) -> tuple[Step, ...]:
    """Return the steps as they come in the run: those of the whole run first, then machine by machine."""
    spec = journal.observed.run.spec
    rank = {
        (member.protected_vm, rule.name.value): (place, number)
        for place, member in enumerate(spec.members)
        for number, rule in enumerate(sequence(spec, member))
    }
    last = {member.protected_vm: (place, len(StepName)) for place, member in enumerate(spec.members)}
    # Sorting is stable: steps of the whole run stay in the order in which they began.
    return tuple(
        sorted(journal.steps.values(), key=lambda s: rank.get((s.member, s.name), last.get(s.member, (-1, 0))))
    )
