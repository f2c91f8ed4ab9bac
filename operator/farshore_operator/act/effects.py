"""What every effect is given, and the spelling of owners."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from farshore_operator.decide.actions import ObjectId
from farshore_operator.kube.cache import Cache
from farshore_operator.kube.client import Client, Json
from farshore_operator.kube.resources import BY_KIND
from farshore_operator.settings import Timing

MANAGED_BY = {"app.kubernetes.io/managed-by": "farshore"}


@dataclass(frozen=True)
class Effects:
    """The tools of an effect: the API, the cache that learns the answers, the clock, the settings."""

    client: Client
    cache: Cache
    now: Callable[[], datetime]
    timing: Timing


def owned_by(owner: ObjectId | None, *, controller: bool = True) -> Json:
    """Return the metadata that lets an object disappear with its owner."""
    if owner is None:
        return {}
    reference = {
        "apiVersion": BY_KIND[owner.kind].api_version,
        "kind": owner.kind,
        "name": owner.name,
        "uid": owner.uid,
        "controller": controller,
        "blockOwnerDeletion": False,  # needs no right on the owner's finalizers
    }
    return {"ownerReferences": [reference]}
