"""Creates and deletes the objects that only the operator makes: runs and tasks, whose names are deterministic."""

from __future__ import annotations

from contextlib import suppress

from farshore_operator.act.effects import MANAGED_BY, Effects, owned_by
from farshore_operator.decide.actions import CreateOwned, DeleteOwned
from farshore_operator.decide.decision import Outcome
from farshore_operator.kube.faults import Conflict
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
    effects.cache.learn(action.kind, made)
    return ()


def perform_delete(effects: Effects, action: DeleteOwned) -> tuple[Outcome, ...]:
    """Delete the object; one that is gone, or another one of its name, is left alone."""
    target = action.target
    with suppress(Conflict):
        effects.client.delete(BY_KIND[target.kind], target.namespace, target.name, uid=target.uid)
    return ()
