"""Sets or removes our finalizer by server-side apply: other finalizers and fields stay as they are."""

from __future__ import annotations

from farshore_operator.act.effects import Effects
from farshore_operator.decide.actions import SetFinalizer
from farshore_operator.decide.decision import Outcome
from farshore_operator.kube.client import Json
from farshore_operator.kube.faults import Conflict, NotFound
from farshore_operator.kube.resources import BY_KIND

FINALIZER = "farshore.dev/protection"


def perform(effects: Effects, action: SetFinalizer) -> tuple[Outcome, ...]:
    """Let the object have our finalizer, or not.

    The uid keeps a new object of the same name, or none at all, from being touched.
    """
    target = action.target
    resource = BY_KIND[target.kind]
    meta: Json = {"name": target.name, "namespace": target.namespace, "uid": target.uid}
    if action.present:
        meta["finalizers"] = [FINALIZER]
    try:
        answer = effects.client.apply(resource, target.namespace, {"metadata": meta})
    except (NotFound, Conflict):
        if action.present:
            raise
        return ()  # it is gone already: that is what was wanted
    effects.cache.learn(target.kind, answer)
    return ()
