"""Decides on a ReplicationPolicy: the API server has checked it already, so it is counted and called ready."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from farshore_operator.api import ReplicationPolicy
from farshore_operator.api.replicationpolicy import ReplicationPolicyStatus
from farshore_operator.decide.decision import Decision, Outcome
from farshore_operator.report.conditions import ready, settle


@dataclass(frozen=True)
class ObservedPolicy:
    """A policy and the number of machines that use it."""

    policy: ReplicationPolicy
    machines: int


def decide(observed: ObservedPolicy, now: datetime) -> Decision[ReplicationPolicyStatus]:
    """Decide on a policy."""
    policy, meta = observed.policy, observed.policy.metadata
    if meta.deletion_timestamp:
        return Decision(None)
    return Decision(
        ReplicationPolicyStatus(
            observed_generation=meta.generation,
            conditions=settle(policy.status.conditions, ready(), (), meta.generation, now),
            machines=observed.machines,
        )
    )


def fold(status: ReplicationPolicyStatus, outcome: Outcome) -> ReplicationPolicyStatus:
    """Take over nothing."""
    return status
