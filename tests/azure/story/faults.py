"""Every kind of fault that is planned, for which calls it makes sense, and the cases that follow from a good run.

Calls are those of Resource Manager, the logins that they need (a token is dead at a call, and the token service in
trouble), and what is read and written of disks with their signatures.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from tests.azuresim import ArmError, AzureSim, Fault, Record
from tests.azuresim.arm.faults import Kind

LONG = 5
"""Calls in a row: more than an SDK repeats by itself."""
MAKES = ("PUT",)
CHANGES = ("PUT", "POST", "PATCH", "DELETE")
ALL = (*CHANGES, "GET")


@dataclass(frozen=True)
class Trouble:
    """A kind of fault. `plan` is given the simulator and the number of the call from 1 among those of its plane."""

    name: str
    methods: tuple[str, ...]
    plan: Callable[[AzureSim, int], object]
    plane: str = "arm"


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


def _login(sim: AzureSim, number: int, fault: Fault) -> object:
    """Let tokens be dead from a call on, and the logins that follow go wrong."""
    dead = sim.faults.expire_token("*", "*", nth=number, revoke=True)
    return sim.faults.plan(replace(fault, after=dead))


def _refused(plane: str, status: int, code: str, message: str, *, nth: int = 1, times: int = 1) -> Fault:
    error = ArmError(status, code, message, headers={"Retry-After": "0"} if status == 429 else {})
    return Fault(Kind.REFUSE, nth=nth, times=times, error=error, plane=plane)


_AWAY = ("temporarily_unavailable", "AADSTS90033: A transient error has occurred. Please try again.")
_SECRET = ("invalid_client", "AADSTS7000222: The provided client secret keys for app are expired.")
_BUSY = ("ServerBusy", "The server is currently unable to receive requests. Please retry your request.")
_TIME = ("AuthenticationFailed", "Signature not valid in the specified time frame.")

LOGINS = (
    Trouble("login away", ALL, lambda sim, n: _login(sim, n, _refused("token", 503, *_AWAY, times=2))),
    Trouble("login throttled", ALL, lambda sim, n: _login(sim, n, _refused("token", 429, *_AWAY, times=2))),
    Trouble("login lost", ALL, lambda sim, n: _login(sim, n, Fault(Kind.LOSE_REQUEST, times=2, plane="token"))),
    Trouble("login refused", ALL, lambda sim, n: _login(sim, n, _refused("token", 401, *_SECRET, times=2))),
)
DATA = (
    Trouble("disk away", ALL, lambda sim, n: sim.faults.plan(_refused("data", 503, *_BUSY, nth=n)), "data"),
    Trouble("disk long away", ALL, lambda sim, n: sim.faults.plan(
        _refused("data", 503, *_BUSY, nth=n, times=LONG)), "data"),
    Trouble("disk answer lost", ALL, lambda sim, n: sim.faults.lose_response("*", "*", nth=n, plane="data"), "data"),
    Trouble("disk cut", ALL, lambda sim, n: sim.faults.lose_request("*", "*", nth=n, times=LONG, plane="data"), "data"),
    Trouble("disk signature expired", ALL, lambda sim, n: sim.faults.plan(
        _refused("data", 403, *_TIME, nth=n)), "data"),
)  # fmt: skip
EVERY = (*TROUBLES, *LOGINS, *DATA)


def cases(act: str, calls: Sequence[Record], *, hub: bool) -> Iterator[Case]:
    """Return every fault that makes sense at each call in an act."""
    for plane in ("arm", "data"):
        for number, call in enumerate((one for one in calls if one.plane == plane), start=1):
            for trouble in EVERY:
                if trouble.plane == plane and call.method in trouble.methods:
                    yield Case(act, trouble, hub, number, f"{call.method} {_about(call)}")


def _about(call: Record) -> str:
    """Return what a call is about, without what is different each time."""
    return call.path.partition("/providers/")[2] if call.plane == "arm" else "disk data"


def sample(every: Sequence[Case], most: int) -> list[Case]:
    """Return a few that differ as much as may be in act, site, fault and call; the same ones each time."""
    seen: Counter[tuple[str, ...]] = Counter()
    chosen: list[Case] = []
    left = list(every)
    random.Random(6).shuffle(left)
    while left and len(chosen) < most:
        best = min(left, key=lambda one: sum(seen[mark] * weight for mark, weight in _marks(one)))
        chosen.append(best)
        left.remove(best)
        seen.update(mark for mark, _ in _marks(best))
    return chosen


def shuffled(every: Sequence[Case]) -> list[Case]:
    """Return all cases for a soak in an order that is the same each time, so that whoever ends it early has seen
    something of everything. FARSHORE_FAULTS_SHARE=0.3 plays only that much of them, and 0.3-1 the rest."""
    mixed = list(every)
    random.Random(6).shuffle(mixed)
    begin, dash, end = os.environ.get("FARSHORE_FAULTS_SHARE", "1").rpartition("-")
    return mixed[int(len(mixed) * float(begin)) if dash else 0 : int(len(mixed) * float(end))]


def _marks(case: Case) -> tuple[tuple[tuple[str, ...], int], ...]:
    """Return what makes a case like another, and how much it does."""
    method, _, path = case.call.partition(" ")
    kind = "/".join(path.split("/")[:2] + path.split("/")[3:])
    by_kind, by_method = ("kind", method, kind), ("method", method)
    return (("fault", case.trouble.name), 8), (by_kind, 6), (("act", case.act, str(case.hub)), 4), (by_method, 1)


def wrong(play: Callable[[Case], object], failed: type[Exception], chosen: Sequence[Case]) -> list[str]:
    """Play cases; returns what went wrong in which.

    Args:
        play: plays one, and raises AssertionError, or `failed`, where it does not end as it must.
    """
    found = []
    for case in chosen:
        try:
            print(f"{case}: {play(case)}", flush=True)
        except (AssertionError, failed) as error:
            found.append(f"{case}: {error}")
            print(f"WRONG {found[-1]}", flush=True)
    return found
