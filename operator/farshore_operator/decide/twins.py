"""One machine under protection twice, as while it goes from one engine to another: which of the two is to go on, and
that only one of them ever moves it.

The younger object is taken for the one that is to stay: somebody made it although there was another.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from farshore_operator.api.protectedvm import ProtectedVM, Verdict
from farshore_operator.decide.blocker import Blocker
from farshore_operator.decide.references import Problem


@dataclass(frozen=True)
class Twin:
    """Another ProtectedVM of the same machine: the same address at the same site, in another vault.

    Attributes:
        engine: of its vault, empty where that is not known.
        moved_by: name of the run that moves it now or has moved it, empty while it runs at its own site.
        leaving: whether it is being deleted.
        retained: whether its protection goes on when it is deleted.
    """

    name: str
    engine: str = ""
    made_at: datetime | None = None
    ready: bool = False
    moved_by: str = ""
    leaving: bool = False
    retained: bool = False


def in_the_way(name: str, twins: Collection[Twin]) -> list[Blocker]:
    """Return that the machine was moved as another object: a failover would make it a second time."""
    return [
        Blocker(
            "MovedAsAnother",
            f"{twin.name} protects the same machine, and run {twin.moved_by} moved it or moves it now: {name} would be "
            f"a second one. Go on with {twin.name}, or bring that home first",
            drills=False,
        )
        for twin in twins
        if twin.moved_by
    ]


def twice(name: str, twins: Collection[Twin], planned: Collection[str]) -> Problem | None:
    """Return that a plan means the same machine twice."""
    for twin in twins:
        if twin.name in planned:
            text = f"{name} and {twin.name} protect the same machine, which would be made twice: leave one of them out"
            return Problem("SameMachineTwice", text)
    return None


def next_step(vm: ProtectedVM, twins: Collection[Twin], planned: Collection[str]) -> str | None:
    """Return what a person does next with the two objects of a machine of which the plan means this one."""
    name, made = vm.metadata.name, vm.metadata.creation_timestamp
    ready = vm.status.failover_ready is not None and vm.status.failover_ready.verdict is Verdict.READY
    for twin in twins:
        problem = twice(name, (twin,), planned)
        if problem is not None:
            return problem.message
        if twin.leaving:
            continue
        by = f" with engine {twin.engine}" if twin.engine else ""
        if made is not None and twin.made_at is not None and twin.made_at > made:
            if twin.ready:
                return f"{twin.name} protects the machine of {name}{by}, and is ready: drill it, then name it instead"
            return f"{twin.name} is to protect the machine of {name}{by}: leave {name} in the plan until it is ready"
        if ready:
            do = "give deletionPolicy Disable to, then delete" if twin.retained else "delete"
            return f"{name} is ready: {do} ProtectedVM {twin.name}, which protects the same machine{by}, at its cost"
        return f"keep ProtectedVM {twin.name}, which protects the same machine{by}, until {name} is ready"
    return None
