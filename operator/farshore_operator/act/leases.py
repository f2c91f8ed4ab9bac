"""Makes the Lease that a process server renews: it may renew that one, and create none."""

from __future__ import annotations

from farshore_operator.act.effects import MANAGED_BY, Effects, owned_by
from farshore_operator.decide.actions import EnsureLease
from farshore_operator.decide.decision import Outcome
from farshore_operator.kube.leases import LABEL
from farshore_operator.kube.resources import LEASE


def perform(effects: Effects, action: EnsureLease) -> tuple[Outcome, ...]:
    """Create the Lease unless it exists."""
    owner = action.owner
    meta = {
        "name": owner.name,
        "namespace": owner.namespace,
        "labels": {**MANAGED_BY, LABEL: owner.name[:63]},
        **owned_by(owner),
    }
    effects.client.ensure(LEASE, owner.namespace, {"metadata": meta, "spec": {"leaseDurationSeconds": 20}})
    return ()
