"""What a run does before and after each group of its plan."""

from __future__ import annotations

from enum import StrEnum

from farshore_operator.api.failoverrun import RunGroup, StepPhase
from farshore_operator.api.hook import Hook
from farshore_operator.decide.runjournal import Journal


class When(StrEnum):
    """On which side of its group a hook stands."""

    BEFORE = "before"
    AFTER = "after"


def hook_step(journal: Journal, group: RunGroup, when: When, hook: Hook) -> StepPhase:
    """Take one hook as far as it goes now, and return where it is.

    It is called at every decision until it returns a final phase; the hooks of a list one after the other, before the
    group's first member begins or after its last one has succeeded. The step is kept with
    `journal.set(name, "", phase, ...)`, under a name that is the same each time; what is to be done is appended to
    `journal.actions`. RUNNING makes the run wait here, FAILED fails it, SUCCEEDED and SKIPPED let it go on.
    """
    name = f"{group.name}/{when}/{hook.name}"
    known = journal.get(name)
    if known is not None and known.phase in (StepPhase.SUCCEEDED, StepPhase.SKIPPED, StepPhase.FAILED):
        return known.phase
    text = "this release does not carry out hooks"
    return journal.set(name, "", StepPhase.FAILED, message=text, remedy="Remove it from the plan").phase
