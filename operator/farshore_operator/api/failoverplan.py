"""FailoverPlan: which machines, in which order, with which hooks, and where they should be running."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_operator.api.cel import Rule, checked, exactly_one
from farshore_operator.api.hook import Hooks
from farshore_operator.api.planstatus import FailoverPlanStatus
from farshore_operator.api.probe import Probes
from farshore_operator.api.resource import Column, Definition, Model, Resource, map_by, message_column, ready_column
from farshore_operator.api.values import CronSchedule, Duration, Name, OurName, PointSelector, Quantity, Word


class ActiveSite(StrEnum):
    """Where the machines should be running."""

    SOURCE = "source"
    RECOVERY = "recovery"


class Mode(StrEnum):
    """Whether the source is expected to take part."""

    PLANNED = "planned"
    UNPLANNED = "unplanned"


class ShutdownSource(StrEnum):
    """Whether the source machines are switched off first."""

    REQUIRED = "Required"
    BEST_EFFORT = "BestEffort"
    NEVER = "Never"


class LabelSelector(Model):
    """Objects by their labels."""

    match_labels: Annotated[
        dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]],
        Field(min_length=1, max_length=16),
    ]
    """Labels that a ProtectedVM must have, all of them."""


class Overrides(Model):
    """What is different for a member of the plan."""

    network: Word | None = None
    """Network that it joins after a failover. Default: the plan's network, else the machine's target.network."""
    recovery_point: PointSelector | None = None
    """Its recovery point, as in the plan's recoveryPoint. Default: the plan's."""
    size: Word | None = None
    """Its size, such as Standard_D2s_v5. Default: the machine's target.size. Not used by provider `local`."""
    cpus: Annotated[int, Field(ge=1, le=256)] | None = None
    """Number of CPUs. Default: the machine's target.cpus. Used by provider `local` only."""
    memory: Quantity | None = None
    """Memory, such as 2Gi. Default: the machine's target.memory. Used by provider `local` only."""


class Member(Model):
    """A machine of the group, or all that carry some labels."""

    rules = (
        Rule(
            exactly_one("name", "selector"),
            "a member is a machine or a selection of machines: set exactly one of name and selector",
        ),
    )

    name: OurName | None = None
    """Name of a ProtectedVM."""
    selector: LabelSelector | None = None
    """ProtectedVMs by their labels, as they are when the run starts."""
    overrides: Overrides | None = None
    """What is different for this machine, or for all that are selected. Default: nothing."""

    def means(self, name: str, labels: Mapping[str, str]) -> bool:
        """Tell whether a ProtectedVM of this name, with these labels, is meant."""
        if self.selector is None:
            return name == self.name
        return self.selector.match_labels.items() <= labels.items()


class Group(Model):
    """Machines that are recovered side by side; the next group starts when all of them answer."""

    rules = (
        Rule(
            "self.members.all(m, !has(m.name) || self.members.exists_one(n, has(n.name) && n.name == m.name))",
            "a machine is named twice in the same group: remove one of them",
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=63)]
    """Name of the group, unique in the plan."""
    members: Annotated[tuple[Member, ...], Field(min_length=1, max_length=50)]
    """Machines of the group."""
    max_parallel: Annotated[int, Field(ge=1, le=1000)] | None = None
    """How many of its machines are recovered at the same time. Default: all."""
    probes: Probes = ()
    """What is asked of each of its machines, beside the plan's probes; the next group waits for the answers. Default:
    nothing more."""
    before: Hooks = ()
    """What is done before the group is recovered. Default: nothing."""
    after: Hooks = ()
    """What is done after all its machines answer. Default: nothing."""


class ChangeRecoveryPoint(Model):
    """Another recovery point for a run that is not committed."""

    run: Name
    """FailoverRun whose machines are made again; it does nothing when the plan's run is another one."""
    point: PointSelector
    """Recovery point, as in recoveryPoint."""


class Drill(Model):
    """Drills that repeat by themselves."""

    schedule: CronSchedule
    """When a drill starts: five cron fields in UTC, such as 0 3 * * 6, or @weekly."""
    network: Word | None = None
    """Network that the drilled machines join. Default: the site's drillNetwork, else an isolated one."""
    cleanup_after: Duration = timedelta(hours=1)
    """How long after its end a drill is cleaned up. Default: 1h."""
    probes: Probes = ()
    """What is asked of each drilled machine. Default: the plan's probes."""
    suspend: bool = False
    """Whether no drill starts for the time being. Drills are also left out while the plan's machines are moved, or run
    at the recovery site. Default: false."""
    successful_drills_history_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """How many TestFailovers of drills that succeeded are kept after their clean-up; reports stay in the vault.
    Default: 3."""
    failed_drills_history_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """How many TestFailovers of drills that failed are kept after their clean-up. Default: 3."""
    max_age: Duration | None = None
    """After how long without a successful drill a machine of the plan is not FailoverReady; a failover goes on all the
    same. Default: never."""


def _word_or_run(words: tuple[str, ...], field: str) -> dict[str, object]:
    """Return the rules of a field that takes one of some words, or the name of a run."""
    allowed = " or ".join(words)
    pattern = "|".join((*words, "[a-z0-9]([-a-z0-9.]*[a-z0-9])?"))
    help_ = (
        f"write {f'{allowed}, or ' if words else ''}the name of the FailoverRun that is meant, as in status.activeRun"
    )
    mistaken = [word.lower() for word in words] + ["true", "false", "yes", "no", "latest", "all"]
    return checked(
        Rule(
            f"self == '' || self.matches('^({pattern})$') && !(self in {mistaken})",
            f"spec.{field} names no run: {help_}",
            f"'spec.{field} \"' + self + '\" names no run: {help_}'",
        )
    )


class FailoverPlanSpec(Model):
    """Which machines, in which order, and where they should be running."""

    rules = (
        Rule(
            "self.groups.all(g, g.members.all(m, !has(m.name) || self.groups.exists_one(h, "
            "h.members.exists(n, has(n.name) && n.name == m.name))))",
            "a machine is named in two groups of the plan, so its turn is not clear: remove it from one of them",
        ),
        Rule(
            "self.mode != 'planned' || self.shutdownSource != 'Never'",
            "mode planned takes a last recovery point after the source machines are off, but shutdownSource is "
            "Never: use "
            "Required or BestEffort, or mode unplanned",
        ),
        Rule(
            "self.mode != 'planned' || self.groups.all(g, g.members.all(m, !has(m.overrides) || "
            "!has(m.overrides.recoveryPoint)))",
            "mode planned takes a last recovery point of every machine, so a member's overrides.recoveryPoint has no "
            "meaning: remove it, or use mode unplanned",
        ),
        Rule(
            "!has(self.abort) || self.abort == '' || self.abort != self.commit",
            "spec.abort and spec.commit name the same run: remove one of them",
        ),
    )

    groups: Annotated[tuple[Group, ...], Field(min_length=1, max_length=10, json_schema_extra=map_by("name"))]
    """Groups of machines, recovered one after the other."""
    active_site: ActiveSite = ActiveSite.SOURCE
    """Where the machines should be running: source or recovery. Changing it starts a failover or a failback. Default:
    source."""
    mode: Mode = Mode.UNPLANNED
    """planned (the source is there: its machines are shut down, and the last change is taken along) or unplanned.
    Default: unplanned."""
    recovery_point: PointSelector = "Latest"
    """Latest (commit what is in the spool first), LatestProcessed, LatestAppConsistent, LatestCrashConsistent, the
    name of a point, or an RFC 3339 time (the newest point not after it). A name or a time is good for one run.
    Default: Latest."""
    shutdown_source: ShutdownSource = ShutdownSource.BEST_EFFORT
    """Whether the source machines are switched off first: Required (else the run fails), BestEffort or Never. Default:
    BestEffort."""
    network: Word | None = None
    """Network that the recovered machines join. Default: each machine's target.network."""
    probes: Probes = ()
    """What is asked of each recovered machine, also in a drill that names no probes of its own. Default: the greeting
    of its SSH server."""
    commit: Annotated[str, Field(max_length=253, json_schema_extra=_word_or_run(("Manual", "Automatic"), "commit"))] = (
        "Manual"
    )
    """When a failover is final: Manual (not yet), Automatic (as soon as all machines answer), or the name of the run to
    commit. Default: Manual."""
    abort: Annotated[str, Field(max_length=253, json_schema_extra=_word_or_run((), "abort"))] | None = None
    """Name of the run to abort, which is rolled back; a run that is committed is not. Default: none."""
    change_recovery_point: ChangeRecoveryPoint | None = None
    """Another recovery point for a run that is not committed. Default: none."""
    reprotect: Annotated[
        str, Field(max_length=253, json_schema_extra=_word_or_run(("Manual", "Automatic"), "reprotect"))
    ] = "Manual"
    """When recovered machines are protected in the other direction: Manual (not yet), Automatic (after the commit),
    or the name of the committed run. Default: Manual."""
    drill: Drill | None = None
    """Drills that repeat by themselves. Default: none."""
    runs_history_limit: Annotated[int, Field(ge=1, le=1000)] = 20
    """How many of the plan's FailoverRuns are kept, beside those that are still needed; the vault's journal keeps what
    all of them did. Default: 20."""


class FailoverPlan(Resource):
    """Which machines are recovered together, in which order, with which hooks, and where they should be running."""

    definition = Definition(
        "FailoverPlan",
        "failoverplans",
        ("fp",),
        (
            Column("Wanted", ".spec.activeSite", description="Where the machines should be running."),
            Column("Active", ".status.activeSite", description="Where they are running."),
            Column("Phase", ".status.phase", description="Idle, or what is under way."),
            ready_column(),
            Column("Failover", ".status.failoverReady", description="Machines that could fail over now."),
            Column("Run", ".status.activeRun", description="The run that is under way or awaits its commit."),
            Column("Next step", ".status.nextStep", wide=True, description="What a person should do."),
            message_column(),
        ),
    )

    kind: str = "FailoverPlan"
    spec: FailoverPlanSpec
    """Which machines, in which order, and where they should be running."""
    status: FailoverPlanStatus = FailoverPlanStatus()
    """What is known of the plan."""
