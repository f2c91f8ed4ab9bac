"""Task: one step for one appliance. The operator makes it; the process server carries it out and reports on it."""

from __future__ import annotations

from datetime import datetime

from farshore_engine.contract.tasks import TaskInput, TaskKind, TaskReport
from farshore_operator.api.cel import Rule
from farshore_operator.api.resource import Column, Definition, Model, Resource
from farshore_operator.api.values import Word


class TaskSpec(Model):
    """What is to be done. It cannot be changed."""

    rules = (
        Rule(
            "self == oldSelf",
            "a Task is written once by the operator and cannot be changed: edit the FailoverPlan or TestFailover "
            "that it "
            "serves",
        ),
    )

    kind: TaskKind
    """Preflight, CommitSpool, SelectPoint, ShutdownSource, FinalPoint, Fence, Hydrate, PrepareGuest, StartMachine,
    ProbeMachine, StartSource, WriteBack, ReadJournal, Note, WriteReport or CleanUp."""
    process_server: Word
    """ProcessServer that carries it out."""
    run: Word | None = None
    """FailoverRun that it belongs to; absent for a preflight."""
    step: Word | None = None
    """Step of the run that it carries out."""
    protected_vm: Word
    """ProtectedVM that it is about."""
    input: TaskInput = TaskInput()
    """Input of the step."""
    deadline: datetime | None = None
    """When it counts as failed; absent for no limit."""


class Task(Resource):
    """One step for one appliance. Written by the operator only; its status is written by the process server."""

    definition = Definition(
        "Task",
        "tasks",
        ("ft",),
        (
            Column("Kind", ".spec.kind", description="What is to be done."),
            Column("VM", ".spec.protectedVM", description="The machine that it is about."),
            Column("Process server", ".spec.processServer", description="Who carries it out."),
            Column("Phase", ".status.phase", description="Pending, Running, Succeeded or Failed."),
            Column("%", ".status.percent", "integer", description="Done."),
            Column("Run", ".spec.run", wide=True, description="The run that it belongs to."),
            Column("Message", ".status.message", wide=True, description="What is going on."),
        ),
        written_by_operator=True,
    )

    kind: str = "Task"
    spec: TaskSpec
    """What is to be done. It cannot be changed."""
    status: TaskReport | None = None
    """How far it is; written by the process server."""
