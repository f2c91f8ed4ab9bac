"""Consistency groups: decides when the machines of a group are cut together, and when one must take its point alone.

Each machine's keeper asks here before it asks its agent. A member that cannot take part holds the group up for a
while; then the others take their points alone, with a note, so that no machine's recovery point objective depends on
another machine's health. Nothing is kept: after a restart every attempt is a new one.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

import structlog

from farshore_engine.contract.assignment import ConsistencyGroup
from farshore_engine.contract.points import GroupCut
from farshore_engine.processserver.barrier import READY_SECONDS, SHORT_READY_SECONDS, Barrier, Stage, Word

log = structlog.get_logger(__name__)

MAX_MEMBERS = 16
ATTEMPTS = 3  # that may fail before the machines take their points alone
PATIENCE = 5.0  # seconds for which a missing member is waited for; then that counts as a failed attempt
LINGER = 20.0  # seconds after a cut for which a member that still sends keeps the group from its next one
PAST = 8  # cuts of which late members may still end their points
STALE = 3.0  # seconds after which what a member said of itself is not believed any more


class Member(Protocol):
    """A machine's replication as its group sees it. The calls come from a thread that may wait."""

    @property
    def machine_id(self) -> str:
        """The machine."""
        ...

    def freeze_now(self, point: str) -> None:
        """Tell the agent that every member is ready."""
        ...

    def cut_now(self, point: str) -> None:
        """Tell the agent that every member is frozen."""
        ...

    def call_off(self, point: str, why: str) -> None:
        """Give the point up, and tell the agent."""
        ...


@dataclass(frozen=True)
class Standing:
    """Whether a member could be asked for a point now.

    Attributes:
        blocked_by: what is in the way, "" if nothing is.
        passing: whether that is over in a moment, as a point that is under way is.
        due: whether a point is due by its own policy.
        freeze_bound: seconds for which it may be frozen.
    """

    blocked_by: str = ""
    passing: bool = False
    due: bool = False
    freeze_bound: float = 10.0


@dataclass(frozen=True)
class Turn:
    """What a machine is to do: take point `together`, take one alone (with `note`), or wait."""

    together: str = ""
    alone: bool = False
    note: str = ""


@dataclass
class _Seen:
    member: Member
    standing: Standing
    at: float


@dataclass
class _Group:
    members: frozenset[str] = frozenset()
    seen: dict[str, _Seen] = field(default_factory=dict)
    barrier: Barrier | None = None
    cut_seen: float | None = None  # since when the attempt is past its cut
    past: dict[str, Barrier] = field(default_factory=dict)  # cuts whose members have not all sent their points
    failures: int = 0  # in a row
    owed: set[str] = field(default_factory=set)  # members that may take their next point alone
    waiting: dict[str, float] = field(default_factory=dict)  # due members → since when they wait for others
    trouble: dict[str, str] = field(default_factory=dict)  # member → why it holds the group up


class Groups:
    """The groups of a process server. Thread-safe; what it tells members is told from threads of its own.

    Args:
        clock: seconds, monotonic.
        now: the wall clock, for the instant of a cut.
        speakers: the threads that talk to members; one slow member must not keep another frozen.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        now: Callable[[], datetime],
        speakers: Executor | None = None,
    ) -> None:
        self._clock = clock
        self._now = now
        self._speakers = speakers or ThreadPoolExecutor(2 * MAX_MEMBERS, "barrier")
        self._lock = threading.Lock()
        self._groups: dict[str, _Group] = {}

    # -- the keepers -----------------------------------------------------------------------------------------------

    def turn(self, wanted: ConsistencyGroup, member: Member, standing: Standing) -> Turn:
        """Tell a member how it stands, and return what to do; to be called every moment while it has a group."""
        now = self._clock()
        with self._lock:
            group = self._groups.setdefault(wanted.name, _Group())
            group.members = frozenset(wanted.members)
            group.seen[member.machine_id] = _Seen(member, standing, now)
            self._watch(wanted.name, group, now)
            barrier = group.barrier
            if barrier is not None and not barrier.over:
                return self._join(barrier, member.machine_id, standing)
            if standing.blocked_by:
                return Turn()
            return self._begin(wanted, group, member.machine_id, now)

    def unasked(self, name: str, machine: str, point: str) -> None:
        """A member that was told to take a point could not ask its agent for it."""
        self.failed(name, machine, point, "its agent could not be asked")

    def trouble(self, name: str) -> dict[str, str]:
        """Return who holds the group up, and why; empty when nobody does."""
        with self._lock:
            group = self._groups.get(name)
            return dict(group.trouble) if group is not None else {}

    # -- the sessions ----------------------------------------------------------------------------------------------

    def ready(self, name: str, machine: str, point: str) -> None:
        """A member's agent says PointReady."""
        with self._lock:
            if (barrier := self._barrier(name, point)) is not None:
                self._tell(name, barrier, barrier.on_ready(machine, self._clock()))

    def frozen(self, name: str, machine: str, point: str) -> None:
        """A member's agent says Frozen."""
        with self._lock:
            if (barrier := self._barrier(name, point)) is not None:
                self._tell(name, barrier, barrier.on_frozen(machine, self._now()))

    def ended(self, name: str, machine: str, point: str) -> tuple[GroupCut, datetime] | None:
        """A member's point is complete: return the cut that it belongs to, and its instant; None if to none."""
        with self._lock:
            barrier = self._barrier(name, point)
            if barrier is None or barrier.cut_at is None or not barrier.on_end(machine):
                return None
            group = self._groups[name]
            cut = GroupCut(name=name, id=point, members=tuple(sorted(barrier.members)))
            self._settle(name, group, barrier)
            return cut, barrier.cut_at

    def failed(self, name: str, machine: str, point: str, why: str) -> None:
        """A member gave the point up, or its agent is gone."""
        with self._lock:
            if (barrier := self._barrier(name, point)) is not None:
                self._tell(name, barrier, barrier.on_failure(machine, why))
                self._settle(name, self._groups[name], barrier)

    # -- inside; the lock is held ----------------------------------------------------------------------------------

    def _barrier(self, name: str, point: str) -> Barrier | None:
        group = self._groups.get(name)
        if group is None:
            return None
        if group.barrier is not None and group.barrier.id == point:
            return group.barrier
        return group.past.get(point)

    def _join(self, barrier: Barrier, machine: str, standing: Standing) -> Turn:
        if machine not in barrier.members or machine in barrier.asked or barrier.stage is not Stage.GATHERING:
            return Turn()
        if standing.blocked_by:
            return Turn()  # it was free a moment ago; the attempt's own bound looks after it
        barrier.asked.add(machine)
        return Turn(together=barrier.id)

    def _begin(self, wanted: ConsistencyGroup, group: _Group, machine: str, now: float) -> Turn:
        due = {m for m in group.members if m in group.seen and group.seen[m].standing.due}
        if machine in due and machine in group.owed:
            return self._alone(wanted.name, group, machine)
        missing = {m: s for m in sorted(group.members) if (s := _in_the_way(group, m, now)) is not None}
        if not missing and due and not due & group.owed:
            group.waiting.clear()
            bound = min(group.seen[m].standing.freeze_bound for m in group.members)
            patience = READY_SECONDS if group.failures < ATTEMPTS else SHORT_READY_SECONDS
            group.barrier = Barrier(secrets.token_hex(6), group.members, now, bound, patience, asked={machine})
            log.debug("a cut begins", group=wanted.name, point=group.barrier.id)
            return Turn(together=group.barrier.id)
        if machine not in due or not missing:
            return Turn()
        return self._missing(wanted.name, group, (machine, missing), now)

    def _missing(self, name: str, group: _Group, whom: tuple[str, dict[str, Standing]], now: float) -> Turn:
        machine, missing = whom
        known = group.failures >= ATTEMPTS and not any(s.passing for s in missing.values())
        if not known and now - group.waiting.setdefault(machine, now) < PATIENCE * ATTEMPTS:
            return Turn()
        group.trouble = {m: s.blocked_by for m, s in missing.items()}
        group.failures = max(group.failures, ATTEMPTS)
        return self._alone(name, group, machine)

    def _alone(self, name: str, group: _Group, machine: str) -> Turn:
        group.owed.discard(machine)
        group.waiting.pop(machine, None)
        why = "; ".join(f"{m}: {text}" for m, text in group.trouble.items())
        log.warning("a point is taken without its group", group=name, machine=machine, why=why)
        return Turn(alone=True, note=f"taken without the other machines of consistency group {name} ({why})")

    def _watch(self, name: str, group: _Group, now: float) -> None:
        barrier = group.barrier
        if barrier is None or barrier.over:
            return
        if barrier.stage is Stage.CUT:
            group.cut_seen = now if group.cut_seen is None else group.cut_seen
            if now - group.cut_seen > LINGER:  # a slow link: the others need not wait for it
                group.barrier, group.cut_seen = None, None
                group.past[barrier.id] = barrier
                for oldest in list(group.past)[:-PAST]:
                    del group.past[oldest]
            return
        if barrier.stage is Stage.GATHERING and barrier.members != group.members:
            barrier.stage = Stage.CALLED_OFF
            barrier.failed.update(dict.fromkeys(barrier.members - group.members, "it is no longer in the group"))
            self._tell(name, barrier, Word.CALL_OFF)
        else:
            self._tell(name, barrier, barrier.on_time(now))
        self._settle(name, group, barrier)

    def _settle(self, name: str, group: _Group, barrier: Barrier) -> None:
        """Take note of an attempt that is over."""
        if not barrier.over:
            return
        if group.barrier is barrier:
            group.barrier, group.cut_seen = None, None
        elif group.past.pop(barrier.id, None) is None:
            return
        if barrier.stage is Stage.DONE:
            group.failures, group.trouble = 0, {}
            group.owed.clear()
            return
        group.failures += 1
        group.trouble = dict(barrier.failed)
        log.warning("a cut failed", group=name, point=barrier.id, failures=group.failures, why=group.trouble)
        if group.failures >= ATTEMPTS:
            group.owed = set(group.members)

    def _tell(self, name: str, barrier: Barrier, word: Word) -> None:
        """Tell every member that was asked; nobody waits for anybody else."""
        if word is Word.NOTHING:
            return
        why = "; ".join(f"{m}: {text}" for m, text in sorted(barrier.failed.items()))
        why = f"no common instant for consistency group {name} ({why})"
        for machine in sorted(barrier.asked):
            member = self._groups[name].seen[machine].member
            match word:
                case Word.FREEZE:
                    self._speakers.submit(member.freeze_now, barrier.id)
                case Word.CUT:
                    self._speakers.submit(member.cut_now, barrier.id)
                case Word.CALL_OFF:
                    self._speakers.submit(member.call_off, barrier.id, why)


def _in_the_way(group: _Group, machine: str, now: float) -> Standing | None:
    """Return how a member stands that cannot be asked now, None if it can be."""
    seen = group.seen.get(machine)
    if seen is None:
        return Standing("it is not replicated by this process server yet")
    if seen.standing.blocked_by:
        return seen.standing
    return Standing("nothing is heard of its replication", passing=True) if now - seen.at > STALE else None
