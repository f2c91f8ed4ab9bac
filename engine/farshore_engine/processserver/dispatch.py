"""Who carries a task out: the same steps everywhere, another executor where a cloud does it in another way."""

from __future__ import annotations

from collections.abc import Mapping

from farshore_engine.azure.tasks import EXECUTORS as IN_AZURE
from farshore_engine.azurestack.tasks import EXECUTORS as AT_A_HUB
from farshore_engine.contract.faults import StopFault
from farshore_engine.contract.site import CloudProvider
from farshore_engine.contract.tasks import TaskAssignment, TaskKind
from farshore_engine.processserver.tasks import EXECUTORS, Executor

IN_CLOUDS: dict[CloudProvider, Mapping[TaskKind, Executor]] = {
    CloudProvider.AZURE: IN_AZURE,
    CloudProvider.AZURE_STACK_HUB: AT_A_HUB,
}
"""What is done in another way where the process server's site is in a cloud."""


def executor_of(task: TaskAssignment) -> Executor:
    """Return who carries a task out at its site; raises StopFault where nobody does."""
    own = IN_CLOUDS.get(task.site.provider, {}) if task.site is not None else {}
    found = own.get(task.kind) or EXECUTORS.get(task.kind)
    if found is None:
        where = f"a site of provider {task.site.provider.value}" if task.site is not None else "a local site"
        raise StopFault(
            f"{task.kind.value} is nothing that a process server of {where} does", "Look at the run", reason="BadTask"
        )
    return found
