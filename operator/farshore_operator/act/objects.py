"""Creates the objects that only the operator makes: runs and tasks, whose names are deterministic."""

from __future__ import annotations

from farshore_operator.act.effects import MANAGED_BY, Effects, owned_by
from farshore_operator.decide.actions import CreateOwned
from farshore_operator.decide.decision import Outcome
from farshore_operator.kube.resources import BY_KIND


def perform(effects: Effects, action: CreateOwned) -> tuple[Outcome, ...]:
    """Create the object, or find the one that an earlier attempt made."""
    meta = {
        "name": action.name,
        "namespace": action.namespace,
        "labels": {**MANAGED_BY, **action.labels},
        "annotations": dict(action.annotations),
        **owned_by(action.owner),
    }
    body = {"metadata": meta, "spec": dict(action.spec)}
    made = effects.client.ensure(BY_KIND[action.kind], action.namespace, body)
    effects.cache.put(action.kind, made)
    return ()
