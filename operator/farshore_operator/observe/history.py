"""What was read of machines' journals in the vault, from the tasks that read them."""

from __future__ import annotations

from farshore_engine.contract.tasks import JournalledRun, TaskKind
from farshore_operator.api import FailoverRun, ProtectedVM, Task
from farshore_operator.decide.observedhistory import History
from farshore_operator.kube.client import Json
from farshore_operator.observe.world import World


def of_vm(world: World, vm: ProtectedVM) -> History:
    """Return what is being read of a machine."""
    return History(next((task for task in _tasks(world, vm.metadata.namespace) if _is_of(task, vm)), None))


def of_run(world: World, run: FailoverRun) -> dict[str, JournalledRun]:
    """Return what journals tell of a run, by machine."""
    found: dict[str, JournalledRun] = {}
    for task in _tasks(world, run.metadata.namespace):
        for one in History(task).runs:
            if one.run == run.metadata.name:
                found[task.spec.protected_vm] = one
    return found


def _tasks(world: World, namespace: str) -> list[Task]:
    return world.all(Task, namespace, _reads)


def _reads(body: Json) -> bool:
    spec = body["spec"]
    return bool(spec.get("kind") == TaskKind.READ_JOURNAL and not spec.get("run"))


def _is_of(task: Task, vm: ProtectedVM) -> bool:
    return task.spec.protected_vm == vm.metadata.name and any(
        owner.uid == vm.metadata.uid for owner in task.metadata.owner_references
    )
