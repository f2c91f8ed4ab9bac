"""Who asked for what a plan or a drill says, with the Git revision where there is one."""

from __future__ import annotations

from farshore_operator.api.failoverrun import RequestedBy
from farshore_operator.api.resource import Resource
from farshore_operator.decide.origin import ASKED_BY, DRILL_FIELD, Applied, applier, requested_by, writer
from farshore_operator.observe.world import World


def requests(world: World, resource: Resource, *, begins: bool) -> dict[str, RequestedBy]:
    """Return who wrote each field of an object that can ask for a run.

    Args:
        world: where the object is.
        resource: the plan or drill.
        begins: whether a run may begin now; only then the revision is looked up.
    """
    meta = resource.metadata
    body = world.cache.get(resource.definition.kind, meta.namespace, meta.name)
    if body is None or not begins:
        return {}
    fields = dict.fromkeys((*ASKED_BY.values(), DRILL_FIELD))
    found: dict[str, Applied | None] = {}
    result = {}
    for field in fields:
        manager = writer(body, "spec", field)
        if manager not in found:
            source = applier(body, manager)
            found[manager] = world.revision(source) if source is not None else None
        result[field] = requested_by(body, field, found[manager])
    return result
