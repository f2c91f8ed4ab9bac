"""How network resources come into being: Updating until the operation ends, Failed when it fails."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from tests.azuresim.arm.call import Later
from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.store import Resource


def etag(resource_id: str) -> str:
    return f'W/"{uuid.uuid5(uuid.NAMESPACE_URL, resource_id.lower())}"'


def making(made: Resource, existed: bool, show: Callable[[], dict[str, Any]] | None = None) -> Later:
    """The operation of a PUT. `show` gives the answer's body when it is not the stored one."""

    def becomes(state: str) -> dict[str, Any]:
        made.properties["provisioningState"] = state
        return show() if show else made.body

    def failed(error: ArmError) -> None:
        becomes("Failed")

    first = becomes("Updating")
    answer = {**first, "properties": dict(first["properties"])}
    return Later(
        lambda: becomes("Succeeded"),
        made.id,
        body=answer,
        status=200 if existed else 201,
        failed=failed,
        result_path="",
    )
