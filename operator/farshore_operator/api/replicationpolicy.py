"""ReplicationPolicy: how often machines get recovery points, how long these are kept, and when to raise the alarm."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from farshore_operator.api.bandwidth import Bandwidth
from farshore_operator.api.cel import Rule, compare
from farshore_operator.api.resource import Column, Definition, Model, Resource, ResourceStatus, ready_column
from farshore_operator.api.values import Duration

Count = Annotated[int, Field(ge=0, le=1000)]


def _within(field: str, least: str, most: str) -> str:
    """Return CEL that holds a duration within two others."""
    return f"({compare(field, '>=', least)}) && ({compare(field, '<=', most)})"


class OnCommit(StrEnum):
    """What becomes of a machine's points when its failover is final."""

    KEEP = "Keep"
    DELETE = "Delete"


class Retention(Model):
    """How long recovery points are kept: all of the last time, then one an hour, a day and a week.

    A point is kept if any rule says so. Of each hour, day and week the newest point stays, and beside it the newest
    application-consistent one: these are counted on their own, so that crash-consistent points never displace them.
    """

    keep_all: Duration = timedelta(hours=24)
    """How long every recovery point is kept, such as 24h, counted back from the newest one. Default: 24h."""
    hourly: Count = 0
    """Of how many hours that have any points (the newest ones, by UTC) the last point is kept, and the last
    application-consistent one of as many hours that have any of these. Default: 0."""
    daily: Count = 0
    """The same for days, by UTC. Default: 0."""
    weekly: Count = 0
    """The same for weeks, which begin on Monday, by UTC. Default: 0."""
    on_commit: OnCommit = OnCommit.KEEP
    """What becomes of the points when a failover is committed: Keep (the rules above go on to say) or Delete (all but
    the one that the machine was made from, pinned and locked ones). Default: Keep."""


class HookBounds(Model):
    """How long the hooks of an application-consistent point may take."""

    rules = (
        Rule(
            "!has(self.timeout) || " + _within("self.timeout", "'1s'", "'10m'"),  # the default {} is checked as it is
            "hooks.timeout must be from 1s to 10m",
            path=".timeout",
        ),
        Rule(
            "!has(self.timeout) || !has(self.window) || " + _within("self.window", "self.timeout", "'30m'"),
            "hooks.window must not be shorter than hooks.timeout, and at most 30m, because applications may be held "
            "for as long",
            path=".window",
        ),
    )

    timeout: Duration = timedelta(seconds=30)
    """What one call of a hook may take before it is killed and the point is only crash-consistent, such as 30s.
    From 1s to 10m. Default: 30s."""
    window: Duration = timedelta(seconds=60)
    """What may pass from the first pre hook to the last post hook, the freeze between them included: applications
    are released then, and the point is only crash-consistent. At most 30m. Default: 60s."""


class ReplicationPolicySpec(Model):
    """How machines are replicated."""

    rules = (
        Rule(
            compare("self.crashConsistentInterval", ">=", "'1s'"),
            "spec.crashConsistentInterval must be at least 1s",
            path=".crashConsistentInterval",
        ),
        Rule(
            _within("self.freezeBound", "'1s'", "'60s'"),
            "spec.freezeBound must be from 1s to 60s: what is written waits for as long",
            path=".freezeBound",
        ),
        Rule(
            "!has(self.appConsistentInterval) || "
            + compare("self.appConsistentInterval", ">=", "self.crashConsistentInterval"),
            "spec.appConsistentInterval must not be shorter than spec.crashConsistentInterval, because an "
            "app-consistent "
            "point is one of the crash-consistent ones with the hooks run: raise it, or remove it to take none",
            "'spec.appConsistentInterval (' + self.appConsistentInterval + ') must not be shorter than "
            "spec.crashConsistentInterval (' + self.crashConsistentInterval + '), because an app-consistent "
            "point is one of "
            "the crash-consistent ones with the hooks run: raise it, or remove it to take none'",
            ".appConsistentInterval",
        ),
        Rule(
            compare("self.retention.keepAll", ">=", "self.crashConsistentInterval"),
            "spec.retention.keepAll must not be shorter than spec.crashConsistentInterval, or points would be pruned "
            "before the next one is taken: raise keepAll",
            "'spec.retention.keepAll (' + self.retention.keepAll + ') must not be shorter than "
            "spec.crashConsistentInterval "
            "(' + self.crashConsistentInterval + '), or points would be pruned before the next one is taken: "
            "raise keepAll'",
            ".retention.keepAll",
        ),
        Rule(
            compare("self.rpoThreshold", ">", "self.crashConsistentInterval"),
            "spec.rpoThreshold must be longer than spec.crashConsistentInterval, or the alarm would never end: "
            "raise it",
            "'spec.rpoThreshold (' + self.rpoThreshold + ') must be longer than spec.crashConsistentInterval (' + "
            "self.crashConsistentInterval + '), or the alarm would never end: raise it'",
            ".rpoThreshold",
        ),
    )

    rpo_threshold: Duration = timedelta(minutes=15)
    """Age of the newest recovery point at which an alarm is raised, such as 15m. It does not change how often points
    are taken. Default: 15m."""
    crash_consistent_interval: Duration = timedelta(minutes=5)
    """How often a crash-consistent point is taken, such as 5m. Default: 5m."""
    app_consistent_interval: Duration | None = None
    """How often an application-consistent point is taken (the machine's hooks run), such as 1h. Default: never."""
    retention: Retention = Retention()
    """How long recovery points are kept. Default: all of the last 24h."""
    freeze_bound: Duration = timedelta(seconds=10)
    """What a freeze of a machine's file systems may last before its watchdog ends it and the point is given up, such
    as 10s. From 1s to 60s. Default: 10s."""
    hooks: HookBounds = HookBounds()
    """How long the hooks of an application-consistent point may take. Default: 30s a call, 60s in all."""
    bandwidth: Bandwidth | None = None
    """Limit of what one machine sends, and when another one holds. Default: none."""


class ReplicationPolicyStatus(ResourceStatus):
    """What is known of the policy."""

    machines: int | None = None
    """Number of machines that use it."""


class ReplicationPolicy(Resource):
    """How often machines get recovery points, how long these are kept, and when to raise the alarm."""

    definition = Definition(
        "ReplicationPolicy",
        "replicationpolicies",
        ("rp",),
        (
            Column("RPO alarm", ".spec.rpoThreshold", description="Age of the newest point that raises the alarm."),
            Column("Every", ".spec.crashConsistentInterval", description="How often a point is taken."),
            Column("App every", ".spec.appConsistentInterval", description="How often an app-consistent one is."),
            Column("Keep all", ".spec.retention.keepAll", description="How long every point is kept."),
            Column("Machines", ".status.machines", "integer", description="Machines that use it."),
            ready_column(),
        ),
    )

    kind: str = "ReplicationPolicy"
    spec: ReplicationPolicySpec = ReplicationPolicySpec()
    """How machines are replicated."""
    status: ReplicationPolicyStatus = ReplicationPolicyStatus()
    """What is known of the policy."""
