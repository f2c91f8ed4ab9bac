"""FailoverRun: the record of one failover, drill, commit, reprotect or failback. Only the operator writes it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_engine.contract.points import RecoveryPoint
from farshore_engine.contract.replication import Check
from farshore_engine.contract.site import CloudTarget
from farshore_engine.contract.tasks import ProbeResult
from farshore_operator.api.cel import Rule
from farshore_operator.api.failoverplan import Mode, ShutdownSource
from farshore_operator.api.hook import Hooks
from farshore_operator.api.probe import Probe
from farshore_operator.api.resource import Column, Definition, Model, Resource, ResourceStatus, map_by, message_column
from farshore_operator.api.values import Quantity, Text, Word


class RunKind(StrEnum):
    """What a run does."""

    TEST_FAILOVER = "TestFailover"
    FAILOVER = "Failover"
    CHANGE_POINT = "ChangePoint"  # make the machines again, from another point
    COMMIT = "Commit"
    ABORT = "Abort"  # undo a failover or failback that is not committed
    REPROTECT = "Reprotect"
    FAILBACK = "Failback"


class Owner(Model):
    """The object that asked for the run, at the generation that it had."""

    kind: Word
    """Kind of the object."""
    name: Word
    """Name of the object."""
    uid: Word
    """UID of the object."""
    generation: int
    """The metadata.generation whose inputs the run froze."""


class RequestedBy(Model):
    """Who asked for the run, as far as the object that asked says. See `docs/concepts/approval.md`."""

    user: Word | None = None
    """Who is meant to have asked: the annotation farshore.dev/requested-by, if whoever wrote the field wrote it too."""
    field_manager: Word | None = None
    """Field manager that wrote the field: kustomize-controller for Flux, argocd-controller for Argo CD, or a client."""
    revision: Word | None = None
    """Git revision (or chart version) that Flux or Argo CD applied; absent where it cannot be read."""
    applied_by: Word | None = None
    """Kustomization, HelmRelease or Application that applied it, with its namespace."""
    reason: Text | None = None
    """Why, by the annotation farshore.dev/reason; the admission policy demands it in an emergency."""


class RunMember(Model):
    """One machine of the run, with everything that the run must know of it."""

    protected_vm: Word
    """The ProtectedVM."""
    uid: Word | None = None
    """UID of the ProtectedVM."""
    generation: int | None = None
    """The metadata.generation of the ProtectedVM when the run started."""
    machine_id: Word
    """Identity of the machine in the vault, <namespace>.<name>."""
    vault: Word
    """RecoveryVault with its recovery points."""
    group: Word | None = None
    """Group of the plan; absent for a single machine."""
    source_site: Word
    """Site that the machine leaves."""
    target_site: Word
    """Site where it is recovered."""
    source_process_server: Word | None = None
    """ProcessServer that served the machine when the run started."""
    process_server: Word
    """ProcessServer that recovers the machine."""
    epoch: int
    """Epoch of the machine's assignment when the run started; a failover fences with a higher one."""
    target_name: Word
    """Name of the machine where it is recovered; the same for every repetition."""
    source_machine: Word | None = None
    """Name of the machine at the provider of the site that it leaves; absent for the ProtectedVM's name."""
    point: Word | None = None
    """Commit, Abort and Reprotect: recovery point that the machine was made from; absent if none was chosen."""
    stopped: bool = False
    """Abort: whether the machine was stopped, or may be, at the site that it leaves, by the run that is undone."""
    arrived: bool = False
    """Abort: whether the machine was started where it was recovered, by the run that is undone."""
    network: Word | None = None
    """Network that it joins; absent for an isolated one."""
    address: Word | None = None
    """Private address with its prefix length that it gets; absent for a free one."""
    cpus: int | None = None
    """Number of CPUs; absent for as many as the source has."""
    memory: Quantity | None = None
    """Memory, such as 2Gi; absent for as much as the source has."""
    size: Word | None = None
    """Size, such as Standard_D2s_v5; absent for the smallest that fits."""
    recovery_point: Word | None = None
    """Which recovery point, where it is another than the run's."""
    provider: Word | None = None
    """Provider of the site where it is recovered; absent for local."""
    target: CloudTarget | None = None
    """What it becomes in the cloud where it is recovered; absent for provider local."""
    engine: Word | None = None
    """Engine that moves it, where that is not native; absent for native."""
    delete_points: bool | None = None
    """Whether a commit deletes the machine's points, as its policy said when the run started; absent for no."""


class RunGroup(Model):
    """A group of the plan as it was when the run started; `members` name it."""

    name: Word
    """Name of the group."""
    max_parallel: int | None = None
    """How many of its machines are recovered at the same time; absent for all."""
    before: Hooks = ()
    """What is done before the group is recovered."""
    after: Hooks = ()
    """What is done after all its machines answer."""
    probes: Annotated[tuple[Probe, ...], Field(max_length=16)] = ()
    """What is asked of each of its machines beside the run's probes."""


class FailoverRunSpec(Model):
    """The frozen inputs of the run. They cannot be changed."""

    rules = (
        Rule(
            "self == oldSelf",
            "a FailoverRun is a record with frozen inputs and cannot be changed: to commit, abort or change its "
            "point, edit "
            "the FailoverPlan",
        ),
    )

    kind: RunKind
    """TestFailover, Failover, ChangePoint, Commit, Abort, Reprotect or Failback."""
    owner: Owner
    """The FailoverPlan or TestFailover that asked for it."""
    inputs_hash: Word
    """Hash of all inputs; a run with the same one is never started twice."""
    recovery_point: Word
    """Which recovery point, as asked for; status.members has the chosen ones."""
    mode: Mode = Mode.UNPLANNED
    """planned (the machine's last change is taken along while it is stopped) or unplanned."""
    shutdown_source: ShutdownSource = ShutdownSource.NEVER
    """Whether the source machines are switched off first: Required, BestEffort or Never."""
    members: Annotated[tuple[RunMember, ...], Field(max_length=1000, json_schema_extra=map_by("protectedVM"))]
    """The machines of the run."""
    probes: Annotated[tuple[Probe, ...], Field(max_length=16)] = ()
    """What is asked of each recovered machine; none for one probe of its SSH server."""
    previous_run: Word | None = None
    """The run that this one commits, undoes, reverses or replaces."""
    undoes: RunKind | None = None
    """Commit, Abort and ChangePoint: whether the machines moved by a Failover or a Failback."""
    groups: Annotated[tuple[RunGroup, ...], Field(max_length=10, json_schema_extra=map_by("name"))] = ()
    """Groups of the plan in order, with their hooks; none for a single machine."""
    sequence: int = 0
    """Number of the run in the life of its machines, from 1; 0 for a drill, which moves none."""
    requested_by: RequestedBy | None = None
    """Who asked for it; a record that changes nothing of what the run does."""


class RunPhase(StrEnum):
    """Where the run is."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    ABORTED = "Aborted"
    CLEANING_UP = "CleaningUp"
    CLEANED_UP = "CleanedUp"


class StepPhase(StrEnum):
    """Where a step is."""

    PENDING = "Pending"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    SKIPPED = "Skipped"


class Step(Model):
    """One step of the run for one machine, or for the whole run where `member` is empty."""

    name: Word
    """Name of the step, such as Prerequisites, SelectPoint, Hydrate or Probe."""
    member: Word
    """The ProtectedVM; empty for a step of the whole run."""
    phase: StepPhase
    """Pending, Running, Succeeded, Failed or Skipped."""
    task: Word | None = None
    """Task that carries it out; absent where the operator does."""
    started_at: datetime | None = None
    """When it began."""
    finished_at: datetime | None = None
    """When it ended."""
    percent: int | None = None
    """Whole percent done, where it can be told."""
    message: Annotated[str, Field(max_length=32768)] | None = None
    """What is going on, or what went wrong and where."""
    remedy: Annotated[str, Field(max_length=32768)] | None = None
    """What a person should do next; absent when nothing is to be done."""


class MemberResult(Model):
    """What the run made of one machine."""

    protected_vm: Word
    """The ProtectedVM."""
    point: RecoveryPoint | None = None
    """The recovery point that was chosen and pinned."""
    final_point: Word | None = None
    """Recovery point that was taken while the machine was switched off."""
    rpo_seconds: float | None = None
    """Seconds of work that were lost: from the point to the start of the run, or to the source's last contact if that
    was earlier."""
    rto_seconds: float | None = None
    """Seconds from the start of the run until the machine answered a probe from outside."""
    bytes_moved: int | None = None
    """Bytes that were read from the vault."""
    bytes_written: int | None = None
    """Bytes of blocks that differed from what was on its disks, and were written."""
    disk_bytes: int | None = None
    """Bytes of its disks."""
    disks_verified: bool | None = None
    """Whether its disks were read back and equal the digests of the point."""
    machine: Word | None = None
    """Name of the recovered machine."""
    machine_kind: Word | None = None
    """qemu, namespace or azure."""
    address: Word | None = None
    """Address at which it answers."""
    port: int | None = None
    """Port at which it answered."""
    changes: Annotated[tuple[Text, ...], Field(max_length=1000)] = ()
    """What was changed on its disks before it was started."""
    host_key: Annotated[str, Field(max_length=4096)] | None = None
    """SSH host key that was seen when it started."""
    evidence: Annotated[str, Field(max_length=32768)] | None = None
    """What it answered."""
    probes: Annotated[tuple[ProbeResult, ...], Field(max_length=64)] = ()
    """What each probe was answered."""
    removed: Annotated[tuple[Text, ...], Field(max_length=256)] = ()
    """What the clean-up removed."""
    looked_for: Annotated[tuple[Text, ...], Field(max_length=64)] = ()
    """What the clean-up looked for afterwards and did not find."""
    report: Word | None = None
    """Newest signed report of the machine in the vault: farshore vault report prints it."""


class FailoverRunStatus(ResourceStatus):
    """What happened so far."""

    phase: RunPhase | None = None
    """Pending, Running, Succeeded, Failed, Aborted, CleaningUp or CleanedUp."""
    started_at: datetime | None = None
    """When the run began."""
    finished_at: datetime | None = None
    """When its last machine answered, or it failed."""
    cleaned_up_at: datetime | None = None
    """When everything that it made was removed."""
    steps: Annotated[tuple[Step, ...], Field(max_length=20000, json_schema_extra=map_by("name", "member"))] = ()
    """Every step with its times."""
    checks: Annotated[tuple[Check, ...], Field(max_length=256)] = ()
    """Prerequisites, as they were found at the start."""
    members: Annotated[tuple[MemberResult, ...], Field(max_length=1000, json_schema_extra=map_by("protectedVM"))] = ()
    """What the run made of each machine."""
    rpo_seconds: float | None = None
    """The worst of its machines, in seconds."""
    rto_seconds: float | None = None
    """Seconds from its start until every machine had answered."""
    bytes_moved: int | None = None
    """Bytes that were read from the vault, of all machines."""
    disks_verified: bool | None = None
    """Whether all disks of all machines equal their point's digests."""
    account: Annotated[str, Field(max_length=32768)] | None = None
    """What a run that failed has done to its machines, and what of that can be undone; or what an abort has undone."""
    notes: Text | None = None
    """Notes of the drill."""
    next_step: Annotated[str, Field(max_length=32768)] | None = None
    """What a person should do next; absent when nothing is to be done."""


class FailoverRun(Resource):
    """The record of one failover, drill, commit, reprotect or failback, with its frozen inputs and every step.

    Only the operator writes it.
    """

    definition = Definition(
        "FailoverRun",
        "failoverruns",
        ("fr",),
        (
            Column("Kind", ".spec.kind", description="What it does."),
            Column("For", ".spec.owner.name", description="The plan or drill that asked for it."),
            Column("Phase", ".status.phase", description="Where it is."),
            Column("RPO s", ".status.rpoSeconds", "number", description="Seconds of work that were lost."),
            Column("RTO s", ".status.rtoSeconds", "number", description="Seconds until every machine answered."),
            Column("Verified", ".status.disksVerified", "boolean", description="Disks equal the point's digests."),
            Column("Bytes", ".status.bytesMoved", "integer", wide=True, description="Read from the vault."),
            Column("Next step", ".status.nextStep", wide=True, description="What a person should do."),
            message_column(),
        ),
        written_by_operator=True,
    )

    kind: str = "FailoverRun"
    spec: FailoverRunSpec
    """The frozen inputs of the run. They cannot be changed."""
    status: FailoverRunStatus = FailoverRunStatus()
    """What happened so far."""
