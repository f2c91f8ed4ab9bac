"""Long operations: accepted at once, ended after some polls, with Azure-AsyncOperation, Location and Retry-After.

Source: "Track asynchronous Azure operations",
learn.microsoft.com/azure/azure-resource-manager/management/async-operations, and ARM RPC async-api-reference.md.

Time is counted in looks, not in seconds: an operation ends at the `Pace.polls`-th look at it or at its resource after
the one that began it, so tests are repeatable and as fast as they want.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.azuresim.arm.call import Later
from tests.azuresim.arm.errors import ArmError

SPACE = uuid.UUID("5e1f5a7e-0000-4000-8000-00000000a2e5")


@dataclass
class Pace:
    """How slow operations are: looks until they end, and the Retry-After that they ask for (whole seconds)."""

    polls: int = 0
    retry_after: int = 0


@dataclass
class Operation:
    """One operation; `status` is InProgress, Succeeded, Failed or Canceled."""

    id: str
    later: Later
    status_path: str
    result_path: str
    api_version: str
    left: int
    began: str
    status: str = "InProgress"
    error: ArmError | None = None
    result: Any = None
    ended: str = ""
    planned: ArmError | None = None
    canceled: bool = False
    method: str = ""
    path: str = ""

    def end(self) -> None:
        """Do the effect, or fail as planned."""
        self.ended = now()
        try:
            if self.planned is not None:
                raise self.planned
            self.result = self.later.finish()
            self.status = "Succeeded"
        except ArmError as error:
            self.status, self.error = ("Canceled" if self.canceled else "Failed"), error
            self.later.failed(error)

    def body(self) -> dict[str, Any]:
        """The operation's status as the Azure-AsyncOperation URL answers it."""
        found: dict[str, Any] = {
            "id": self.status_path,
            "name": self.id,
            "status": self.status,
            "startTime": self.began,
        }
        if self.ended:
            found["endTime"] = self.ended
        if self.error:
            found["error"] = self.error.error
        elif self.status == "Succeeded" and self.result is not None:
            found["properties"] = {"output": self.result}
        return found


@dataclass
class Operations:
    """All operations of one simulator, by the lower-case paths of their two URLs."""

    pace: Pace = field(default_factory=Pace)
    all: list[Operation] = field(default_factory=list)
    running: list[Operation] = field(default_factory=list)
    made: int = 0
    by_path: dict[str, tuple[Operation, bool]] = field(default_factory=dict)
    paced: list[tuple[str, Pace]] = field(default_factory=list)

    def begin(self, operation: Operation) -> Operation:
        self.all.append(operation)
        self.running.append(operation)
        for path, is_status in ((operation.status_path, True), (operation.result_path, False)):
            if path:
                self.by_path.setdefault(path.lower().partition("?")[0], (operation, is_status))
        if operation.left <= 0:
            operation.end()
        return operation

    def look(self, operation: Operation) -> None:
        """Time passes for this operation."""
        if operation.status == "InProgress":
            operation.left -= 1
            if operation.left <= 0:
                operation.end()

    def look_at_resource(self, path: str) -> None:
        for operation in self.pending(path):
            self.look(operation)

    def pending(self, resource_id: str) -> list[Operation]:
        wanted = resource_id.lower().rstrip("/")
        self.running = [one for one in self.running if one.status == "InProgress"]
        return [one for one in self.running if one.later.resource_id.lower().rstrip("/") == wanted]

    def settle(self) -> None:
        """End everything that is under way, as if much time had passed."""
        for operation in list(self.running):
            if operation.status == "InProgress":
                operation.left = 0
                operation.end()

    def new_id(self, given: str = "") -> str:
        """Ids are the same in each run of a test."""
        self.made += 1
        return given or str(uuid.uuid5(SPACE, str(self.made)))


def now(clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> str:
    return clock().isoformat().replace("+00:00", "Z")
