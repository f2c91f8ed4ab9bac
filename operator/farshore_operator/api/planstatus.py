"""The status of a FailoverPlan, kept apart from its spec so that each can be read at a glance."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_engine.contract.siterecovery import RecoveryPlanReport
from farshore_operator.api.resource import Model, ResourceStatus, map_by
from farshore_operator.api.values import Word


class PlanPhase(StrEnum):
    """What the plan is doing."""

    IDLE = "Idle"  # the machines run where they should
    FAILING_OVER = "FailingOver"
    AWAITING_COMMIT = "AwaitingCommit"  # every machine answered; a person decides
    FAILED_OVER = "FailedOver"  # committed
    REPROTECTING = "Reprotecting"
    FAILING_BACK = "FailingBack"
    ABORTING = "Aborting"
    MISMATCH = "Mismatch"  # activeSite says otherwise, but the edit's preconditions did not hold: nothing is done
    FAILED = "Failed"  # it needs a person: nextStep says what


class SeenEdit(Model):
    """The verdict on the newest edit of activeSite, made once when its generation was first seen."""

    generation: int
    """The metadata.generation of the edit."""
    active_site: Word
    """The activeSite that it asks for."""
    accepted: bool
    """Whether its preconditions held then; if not, it never starts a run, and a new edit is needed."""
    reason: Word | None = None
    """Why it was not accepted, as one CamelCase word."""
    message: Annotated[str, Field(max_length=32768)] | None = None
    """Why it was not accepted, and what to do."""
    seen_at: datetime
    """When it was first seen."""


class SeenRequest(Model):
    """The verdict on a field that names a run, made once when its value was first seen."""

    field: Word
    """abort, changeRecoveryPoint, commit or reprotect."""
    value: Annotated[str, Field(max_length=1024)]
    """What it said."""
    generation: int
    """The metadata.generation in which it was first seen."""
    accepted: bool
    """Whether its preconditions held then; if not, it never does anything, and a new edit is needed."""
    run: Word | None = None
    """FailoverRun that it meant."""
    message: Annotated[str, Field(max_length=32768)] | None = None
    """Why it was not accepted, and what to do."""


class PlanMember(Model):
    """One machine of the plan."""

    protected_vm: Word
    """The ProtectedVM."""
    group: Word
    """Its group."""
    phase: Word | None = None
    """Its phase."""
    failover_ready: Word | None = None
    """Whether it could fail over now: Ready, NotReady or Unknown."""


class Drift(Model):
    """What differs between the plan, its run and the machines of the namespace."""

    joined: Annotated[tuple[Word, ...], Field(max_length=1000)] = ()
    """Machines that the plan means now and the active run does not: they came after it was frozen, and stay."""
    left: Annotated[tuple[Word, ...], Field(max_length=1000)] = ()
    """Machines of the active run that the plan does not mean any more."""
    unplanned: Annotated[tuple[Word, ...], Field(max_length=1000)] = ()
    """Machines of the namespace that are in no plan."""


class LastDrill(Model):
    """What became of the newest scheduled drill."""

    name: Word
    """The TestFailover; it may be gone, by the history limits."""
    scheduled_at: datetime
    """When it was due."""
    result: Word
    """Running, Succeeded or Failed."""
    rpo_seconds: float | None = None
    """Seconds of work that a failover at its start would have lost."""
    rto_seconds: float | None = None
    """Seconds from its start until every machine had answered."""
    finished_at: datetime | None = None
    """When the last machine answered, or the drill failed."""


class FailoverPlanStatus(ResourceStatus):
    """What is known of the plan."""

    phase: PlanPhase | None = None
    """Idle, FailingOver, AwaitingCommit, FailedOver, Reprotecting, FailingBack, Aborting, Mismatch or Failed."""
    active_site: Word | None = None
    """Where the machines are running: source or recovery."""
    active_run: Word | None = None
    """FailoverRun that is under way, or that awaits its commit; the one that commit, abort and changeRecoveryPoint
    name."""
    last_run: Word | None = None
    """FailoverRun that ended last."""
    last_drill: LastDrill | None = None
    """The drill that was started last by the schedule."""
    next_drill: datetime | None = None
    """When the drill schedule starts the next one; absent without a schedule."""
    drill_schedule: Word | None = None
    """Schedule from which nextDrill was computed."""
    edit: SeenEdit | None = None
    """The verdict on the newest edit of activeSite."""
    requests: Annotated[tuple[SeenRequest, ...], Field(max_length=8, json_schema_extra=map_by("field"))] = ()
    """The verdicts on the fields that name a run, as they are now."""
    members: Annotated[tuple[PlanMember, ...], Field(max_length=1000, json_schema_extra=map_by("protectedVM"))] = ()
    """The machines that the plan means now."""
    failover_ready: Word | None = None
    """How many machines could fail over now, such as 3/4."""
    drift: Drift | None = None
    """What differs between the plan, its run and the machines of the namespace; absent if nothing does."""
    site_recovery: RecoveryPlanReport | None = None
    """The recovery plan at Azure Site Recovery, if machines replicate with that engine; the operator's driver alone
    writes this."""
    next_step: Annotated[str, Field(max_length=32768)] | None = None
    """What a person should do next; absent when nothing is to be done."""
