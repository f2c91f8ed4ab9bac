"""TestFailover: one drill. Deleting it cleans up."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_engine.contract.tasks import ProbeResult
from farshore_operator.api.cel import Rule, exactly_one
from farshore_operator.api.probe import Probes
from farshore_operator.api.resource import (
    Column,
    Definition,
    Model,
    Reference,
    Resource,
    ResourceStatus,
    map_by,
    message_column,
    ready_column,
)
from farshore_operator.api.values import Duration, PointSelector, Text, Word

_FIXED = ("planRef", "protectedVMRef", "recoveryPoint", "network", "probes")


class TestFailoverSpec(Model):
    """What is drilled."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    rules = (
        Rule(
            exactly_one("planRef", "protectedVMRef"),
            "a drill is of one plan or of one machine: set exactly one of spec.planRef and spec.protectedVMRef",
        ),
        *(
            Rule(
                f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
                f"spec.{field} cannot be changed, because one object is one drill: delete this TestFailover "
                f"(which cleans "
                "up) and create another one. Only notes and cleanupAfter can be edited",
                path=f".{field}",
            )
            for field in _FIXED
        ),
    )

    plan_ref: Reference | None = None
    """FailoverPlan to drill. Either this or protectedVMRef."""
    protected_vm_ref: Reference | None = None
    """ProtectedVM to drill. Either this or planRef."""
    recovery_point: PointSelector = "LatestProcessed"
    """Latest (commit what is in the spool first), LatestProcessed, LatestAppConsistent, LatestCrashConsistent, the
    name of a point, or an RFC 3339 time (the newest point not after it). Default: LatestProcessed."""
    network: Word | None = None
    """Network that the drilled machines join. Default: the site's drillNetwork, else an isolated one."""
    probes: Probes = ()
    """What is asked of each drilled machine. Default: the plan's probes, else the greeting of its SSH server."""
    cleanup_after: Duration | None = None
    """How long after its end the drill is cleaned up by itself, such as 2h. Default: when it is deleted."""
    notes: Text | None = None
    """What was observed; kept in the run and the vault."""


class TestFailoverPhase(StrEnum):
    """Where the drill is; a finished drill never restarts."""

    __test__ = False

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"  # every machine answered; they run until clean-up
    FAILED = "Failed"  # what was made stays for inspection until clean-up
    CLEANING_UP = "CleaningUp"
    CLEANED_UP = "CleanedUp"  # nothing is left; the object stays as a record


class DrilledMachine(Model):
    """One machine of the drill."""

    protected_vm: Word
    """The ProtectedVM."""
    point: Word | None = None
    """Recovery point that it was made from."""
    address: Word | None = None
    """Address at which it answers."""
    port: int | None = None
    """Port at which it answered."""
    probes: Annotated[tuple[ProbeResult, ...], Field(max_length=64)] = ()
    """What each probe was answered."""


class TestFailoverStatus(ResourceStatus):
    """What is known of the drill."""

    __test__ = False

    phase: TestFailoverPhase | None = None
    """Pending, Running, Succeeded, Failed, CleaningUp or CleanedUp."""
    run: Word | None = None
    """FailoverRun with the steps of the drill."""
    machines: Annotated[
        tuple[DrilledMachine, ...], Field(max_length=1000, json_schema_extra=map_by("protectedVM"))
    ] = ()
    """The drilled machines."""
    started_at: datetime | None = None
    """When the drill began."""
    finished_at: datetime | None = None
    """When the last machine answered, or the drill failed."""
    clean_up_at: datetime | None = None
    """When it is cleaned up by itself; absent if only deletion does."""
    rpo_seconds: float | None = None
    """Seconds of work that a failover at the drill's start would have lost: the worst of its machines."""
    rto_seconds: float | None = None
    """Seconds from its start until every machine had answered."""
    next_step: Annotated[str, Field(max_length=32768)] | None = None
    """What a person should do next; absent when nothing is to be done."""


class TestFailover(Resource):
    """One drill: machines are started from a recovery point, apart from production, and asked whether they serve.

    Deleting it cleans up.
    """

    __test__ = False

    definition = Definition(
        "TestFailover",
        "testfailovers",
        ("tf",),
        (
            Column("Plan", ".spec.planRef.name", description="The plan that is drilled."),
            Column("VM", ".spec.protectedVMRef.name", description="The machine that is drilled."),
            Column("Phase", ".status.phase", description="Where the drill is."),
            ready_column(),
            Column("RTO s", ".status.rtoSeconds", "number", description="Seconds until every machine answered."),
            Column("Run", ".status.run", description="The record of its steps."),
            Column("Next step", ".status.nextStep", wide=True, description="What a person should do."),
            message_column(),
        ),
    )

    kind: str = "TestFailover"
    spec: TestFailoverSpec
    """What is drilled."""
    status: TestFailoverStatus = TestFailoverStatus()
    """What is known of the drill."""
