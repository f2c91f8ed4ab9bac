"""What is not done at a Hub: to recover a machine from a point there while its own place is elsewhere."""

from __future__ import annotations

from typing import NoReturn

from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.tasks import TaskAssignment
from farshore_engine.processserver.tasks.context import TaskContext


def refused(task: TaskAssignment, context: TaskContext) -> NoReturn:
    """See `Executor`. A machine comes to a Hub by failback only."""
    raise StopFault(
        f"{task.kind.value} cannot be done at an Azure Stack Hub: a machine comes there by failback only",
        "Name a Site of provider azure or local in spec.target.siteRef",
        reason="NotAtAHub",
    )
