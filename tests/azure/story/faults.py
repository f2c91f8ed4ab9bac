"""Every kind of fault that is planned, for which calls it makes sense, and the cases that follow from a good run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tests.azuresim import AzureSim, Fault, Record
from tests.azuresim.arm.faults import Kind

LONG = 5
"""Calls in a row: more than an SDK repeats by itself."""
MAKES = ("PUT",)
CHANGES = ("PUT", "POST", "PATCH", "DELETE")
ALL = (*CHANGES, "GET")


@dataclass(frozen=True)
class Trouble:
    """A kind of fault. `plan` is given the simulator and the number of the call from 1."""

    name: str
    methods: tuple[str, ...]
    plan: Callable[[AzureSim, int], object]


@dataclass(frozen=True)
class Case:
    """One fault at one call of one act."""

    act: str
    trouble: Trouble
    hub: bool
    number: int
    call: str

    def __str__(self) -> str:
        return f"{self.act}: {self.trouble.name} at {'Hub' if self.hub else 'Azure'} call {self.number}, {self.call}"


TROUBLES = (
    Trouble("throttled", ALL, lambda sim, n: sim.faults.throttle("*", "*", nth=n, times=LONG, retry_after=0)),
    Trouble("conflict", CHANGES, lambda sim, n: sim.faults.conflict("*", "*", nth=n)),
    Trouble("server error", ALL, lambda sim, n: sim.faults.server_error("*", "*", nth=n, times=LONG)),
    Trouble("away", ALL, lambda sim, n: sim.faults.server_error("*", "*", status=503, nth=n)),
    Trouble("fails at the end", CHANGES, lambda sim, n: sim.faults.fail_at_end("*", "*", nth=n)),
    Trouble("canceled", CHANGES, lambda sim, n: sim.faults.cancel_at_end("*", "*", nth=n)),
    Trouble("answer lost", ALL, lambda sim, n: sim.faults.lose_response("*", "*", nth=n)),
    Trouble("answers lost", CHANGES, lambda sim, n: sim.faults.lose_response("*", "*", nth=n, times=LONG)),
    Trouble("request lost", ALL, lambda sim, n: sim.faults.lose_request("*", "*", nth=n, times=LONG)),
    Trouble("stale", MAKES, lambda sim, n: sim.faults.plan(Fault(Kind.STALE, nth=n, polls=3))),
    Trouble("token expired", ALL, lambda sim, n: sim.faults.expire_token("*", "*", nth=n, revoke=True)),
    Trouble("quota", MAKES, lambda sim, n: sim.faults.quota("*", "*", nth=n)),
    Trouble("policy", MAKES, lambda sim, n: sim.faults.policy("*", "*", nth=n)),
    Trouble("forbidden", CHANGES, lambda sim, n: sim.faults.refuse("*", "*", 403, "AuthorizationFailed", nth=n)),
)


def cases(act: str, calls: Sequence[Record], *, hub: bool) -> Iterator[Case]:
    """Return every fault that makes sense at each call of Resource Manager in an act."""
    numbered = enumerate((one for one in calls if one.plane == "arm"), start=1)
    for number, call in numbered:
        for trouble in TROUBLES:
            if call.method in trouble.methods:
                yield Case(act, trouble, hub, number, f"{call.method} {call.path.partition('/providers/')[2]}")


def sample(every: Sequence[Case], most: int) -> list[Case]:
    """Return a few that differ as much as may be in act, site, fault and call; the same ones each time."""
    seen: Counter[tuple[str, ...]] = Counter()
    chosen: list[Case] = []
    left = list(every)
    while left and len(chosen) < most:
        best = min(left, key=lambda one: sum(seen[mark] * weight for mark, weight in _marks(one)))
        chosen.append(best)
        left.remove(best)
        seen.update(mark for mark, _ in _marks(best))
    return chosen


def _marks(case: Case) -> tuple[tuple[tuple[str, ...], int], ...]:
    """Return what makes a case like another, and how much it does."""
    method, _, path = case.call.partition(" ")
    kind = "/".join(path.split("/")[:2] + path.split("/")[3:])
    by_kind, by_method = ("kind", method, kind), ("method", method)
    return (("fault", case.trouble.name), 8), (by_kind, 6), (("act", case.act, str(case.hub)), 4), (by_method, 1)
