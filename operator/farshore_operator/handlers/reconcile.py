"""One reconciliation: observe, decide, act, report. The same for every kind, and blocking: it runs in a thread."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import structlog

from farshore_engine.contract.faults import Fault, WaitFault
from farshore_operator.act.perform import Performer
from farshore_operator.decide.decision import Decision
from farshore_operator.handlers.kinds import KINDS, Kind
from farshore_operator.handlers.queue import Key
from farshore_operator.kube.client import Json
from farshore_operator.kube.faults import Conflict, NotFound
from farshore_operator.kube.resources import BY_KIND
from farshore_operator.observe.world import World
from farshore_operator.report.writer import StatusWriter, after_fault

log = structlog.get_logger(__name__)

QUIET_FAILURES = 2
"""Failures in a row that time may heal before they are shown: the API server restarts more often than anybody cares."""


@dataclass(frozen=True)
class Result:
    """How a reconciliation ended: the fault that stopped it, or when to look again."""

    fault: Fault | None = None
    again_in: timedelta | None = None
    gone: bool = False


class Reconciler:
    """Reconciles objects of every kind."""

    def __init__(self, world: World, performer: Performer, writer: StatusWriter) -> None:
        self._world = world
        self._performer = performer
        self._writer = writer

    def reconcile(self, key: Key, failures: int) -> Result:
        """Reconcile one object; `failures` is how often in a row that failed before."""
        body = self._world.cache.get(key.kind, key.namespace, key.name)
        if body is None:
            self._world.forget(key.kind, key.namespace, key.name)
            self._writer.forget(key.kind, key.namespace, key.name)
            return Result(gone=True)
        kind = KINDS[key.kind]
        resource: Any = self._world.parse(kind.model, body)
        before = resource.status
        try:
            decision = kind.decide(kind.observe(self._world, resource), self._world.now())
            # First, because an object that was let go is gone: whoever reads the events then finds what is left behind,
            # and an operator that ends in between has told of it.
            self._writer.tell(body, decision.happenings, self._world.now())
            status = self._act(kind, decision)
        except Conflict as fault:
            return Result(fault)
        except Fault as fault:
            return self._report_fault(key, body, before, fault, failures)
        if status is not None:
            # Finalizers may have been written since the body was read: the write needs the newest version.
            return self._report(key, kind, self._newest(key, body), before, status, decision.again_in)
        return Result(again_in=decision.again_in)

    def _act(self, kind: Kind, decision: Decision[Any]) -> Any:
        status = decision.status
        for action in decision.actions:
            for outcome in self._performer.perform(action):
                if status is not None:
                    status = kind.fold(status, outcome)
        return status

    def _report(self, key: Key, kind: Kind, body: Json, before: Any, status: Any, again: timedelta | None) -> Result:
        try:
            if self._writer.write(BY_KIND[key.kind], body, before, status, kind.foreign):
                self._writer.tell_transitions(body, before, status, self._world.now())
        except NotFound:
            return Result(gone=True)
        except Fault as fault:
            return Result(fault)
        return Result(again_in=again)

    def _report_fault(self, key: Key, body: Json, before: Any, fault: Fault, failures: int) -> Result:
        if isinstance(fault, WaitFault) and failures < QUIET_FAILURES:
            return Result(fault)
        status = after_fault(before, fault, body["metadata"].get("generation", 0), self._world.now())
        wrote = self._report(key, KINDS[key.kind], self._newest(key, body), before, status, None)
        if wrote.fault is not None:
            log.warning("the status could not be written after a failure", object=str(key), cause=str(wrote.fault))
        return Result(fault)

    def _newest(self, key: Key, body: Json) -> Json:
        """Return the newest version of the same generation: our own writes, or reports of a process server.

        A report that came meanwhile has put the key into the queue again, so what is written now is decided anew at
        once. After an edit of the spec the version that was read stays, so that the write conflicts.
        """
        newest = self._world.cache.get(key.kind, key.namespace, key.name)
        if newest is None or newest["metadata"].get("generation") != body["metadata"].get("generation"):
            return body
        return newest
