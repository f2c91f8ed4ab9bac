"""Takes up a run that was begun under another control plane, from what the vault's journal tells of it."""

from __future__ import annotations

from datetime import datetime

from farshore_engine.contract.tasks import JournalledRun, TaskPhase
from farshore_operator.api.failoverrun import RunMember, Step, StepPhase
from farshore_operator.decide.history import awaited
from farshore_operator.decide.hooks import When, step_name
from farshore_operator.decide.runjournal import Journal
from farshore_operator.decide.runsteps import StepName, sequence

_PHASES = {TaskPhase.SUCCEEDED: StepPhase.SUCCEEDED, TaskPhase.FAILED: StepPhase.FAILED}

PASSED = "its turn was over when the control plane was lost"


def adopt(journal: Journal) -> None:
    """Write the steps that the vault's journal knows and the run's status does not."""
    if not awaited(journal.observed.run):
        return
    if journal.get(StepName.PREREQUISITES) is None:
        text = "the run was begun before; it is continued from the vault's journal"
        journal.set(StepName.PREREQUISITES, "", StepPhase.SUCCEEDED, message=text)
    _pass_hooks(journal)
    for member in journal.observed.run.spec.members:
        known = journal.observed.history.get(member.protected_vm)
        if known is not None:
            _adopt(journal, member, known)


def begun_at(journal: Journal) -> datetime | None:
    """Return when the run was begun as the vault knows, None if it does not."""
    return min((known.begun_at for known in journal.observed.history.values()), default=None)


def ended_at(journal: Journal) -> datetime | None:
    """Return when the last of its steps ended, if the run is known from the vault only."""
    if not journal.observed.history or journal.observed.tasks:
        return None
    return max((step.at for known in journal.observed.history.values() for step in known.steps), default=None)


def _pass_hooks(journal: Journal) -> None:
    """Take over the hooks that the vault knows, and leave out others whose turn is over: a second call may do harm."""
    spec = journal.observed.run.spec
    for known in journal.observed.history.values():
        for step in known.steps:
            if _is_hook(step.step) and journal.get(step.step) is None:
                journal.set(step.step, "", StepPhase.SKIPPED, message=PASSED)
    begun = {member.group for member in spec.members if _at_work(journal, member)}
    last = max((place for place, group in enumerate(spec.groups) if group.name in begun), default=-1)
    for place, group in enumerate(spec.groups[: last + 1]):
        passed = [step_name(group, When.BEFORE, hook) for hook in group.before]
        passed += [step_name(group, When.AFTER, hook) for hook in group.after] if place < last else []
        for name in passed:
            if journal.get(name) is None:
                journal.set(name, "", StepPhase.SKIPPED, message=PASSED)


def _at_work(journal: Journal, member: RunMember) -> bool:
    """Tell whether the vault knows a step of a machine."""
    known = journal.observed.history.get(member.protected_vm)
    return known is not None and any(not _is_hook(step.step) for step in known.steps)


def _is_hook(step: str) -> bool:
    return "/" in step


def _adopt(journal: Journal, member: RunMember, known: JournalledRun) -> None:
    name = member.protected_vm
    own = [step for step in known.steps if not _is_hook(step.step)]
    ended = {step.step: step for step in own if step.phase in _PHASES}
    for step in own:
        if step.phase in _PHASES and journal.get(step.step, name) is None:
            journal.steps[(step.step, name)] = Step(
                name=step.step,
                member=name,
                phase=_PHASES[step.phase],
                started_at=step.at,
                finished_at=step.at,
                message=step.message or None,
            )
    order = [rule.name for rule in sequence(journal.observed.run.spec, member)]
    last = max((place for place, one in enumerate(order) if one.value in ended), default=-1)
    for passed in order[: max(0, last)]:
        # Its turn is over: whoever does it now does it behind what came after it.
        if journal.get(passed, name) is None:
            journal.set(passed, name, StepPhase.SKIPPED, message="the vault's journal does not know of it")
