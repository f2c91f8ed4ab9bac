"""Names an object as actions need it."""

from __future__ import annotations

from farshore_operator.api.resource import Resource
from farshore_operator.decide.actions import ObjectId


def id_of(resource: Resource) -> ObjectId:
    """Return kind, place and UID of an object."""
    meta = resource.metadata
    return ObjectId(resource.definition.kind, meta.namespace, meta.name, meta.uid)
