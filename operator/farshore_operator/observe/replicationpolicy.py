"""What the decision on a ReplicationPolicy is made from."""

from __future__ import annotations

from farshore_operator.api import ProtectedVM, ReplicationPolicy
from farshore_operator.decide.replicationpolicy import ObservedPolicy
from farshore_operator.observe.world import World, spec_ref


def observe(world: World, policy: ReplicationPolicy) -> ObservedPolicy:
    """Count the machines of a policy."""
    namespace, name = policy.metadata.namespace, policy.metadata.name
    return ObservedPolicy(policy, world.count(ProtectedVM, namespace, lambda body: spec_ref(body, "policyRef") == name))
