"""Planned faults: what goes wrong at the nth call that matches a method and a path.

sim.faults.throttle("PUT", "*/disks/*", nth=2, retry_after=1)
sim.faults.lose_response("PUT", "*/virtualMachines/*")
sim.faults.fail_at_end("PUT", "*/virtualMachines/*", "AllocationFailed", "...")
"""

from __future__ import annotations

import enum
import fnmatch
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.azuresim.arm.errors import ArmError


class Kind(enum.Enum):
    """When and how a call goes wrong."""

    REFUSE = "the call is refused with `error`; nothing happens"
    FAIL_AT_END = "the call is accepted, its operation ends as Failed with `error` (a call without one is refused)"
    CANCELED = "the call is accepted, its operation ends as Canceled"
    LOSE_REQUEST = "the connection closes before anything happened"
    LOSE_RESPONSE = "everything happens, then the connection closes without an answer"
    STALE = "what the call made is not seen by the next `polls` reads and lists"
    EXPIRED = "401 ExpiredAuthenticationToken; with `revoke` all tokens given out so far are dead from now on"
    CLAIMS = "401 with a claims challenge (continuous access evaluation): the client must ask for a fresh token"


@dataclass(frozen=True)
class Fault:
    """`nth` counts matching calls from 1, those since `after` struck if that is given; it strikes `times` calls in a
    row. `plane`: arm, data or token."""

    kind: Kind
    method: str = "*"
    path: str = "*"
    nth: int = 1
    times: int = 1
    error: ArmError | None = None
    polls: int = 0
    revoke: bool = False
    plane: str = "arm"
    after: Fault | None = None

    def matches(self, plane: str, method: str, path: str) -> bool:
        return (
            self.plane == plane
            and self.method in ("*", method)
            and fnmatch.fnmatchcase(path.lower(), self.path.lower())
        )


@dataclass
class Faults:
    """The plan, and how often each fault has struck (`struck`)."""

    planned: list[Fault] = field(default_factory=list)
    struck: list[tuple[Fault, str, str]] = field(default_factory=list)
    _seen: dict[int, int] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def plan(self, fault: Fault) -> Fault:
        with self._lock:
            self.planned.append(fault)
        return fault

    def clear(self) -> None:
        with self._lock:
            self.planned.clear()
            self._seen.clear()

    def strike(self, plane: str, method: str, path: str) -> Fault | None:
        """The fault for this call, if one is due; counts the call for every fault that it matches."""
        due = None
        with self._lock:
            for fault in self.planned:
                if not fault.matches(plane, method, path) or not self._is_on(fault):
                    continue
                count = self._seen[id(fault)] = self._seen.get(id(fault), 0) + 1
                if due is None and fault.nth <= count < fault.nth + fault.times:
                    due = fault
            if due is not None:
                self.struck.append((due, method, path))
        return due

    def _is_on(self, fault: Fault) -> bool:
        return fault.after is None or any(one is fault.after for one, _, _ in self.struck)

    def refuse(
        self, method: str, path: str, status: int, code: str, message: str = "Planned by a test.", *,
        nth: int = 1, times: int = 1, headers: Mapping[str, str] | None = None, plane: str = "arm",
    ) -> Fault:  # fmt: skip
        error = ArmError(status, code, message, headers=headers)
        return self.plan(Fault(Kind.REFUSE, method, path, nth, times, error, plane=plane))

    def throttle(self, method: str, path: str, *, nth: int = 1, times: int = 1, retry_after: int = 1) -> Fault:
        """429 with Retry-After in seconds (source: learn.microsoft.com/azure/azure-resource-manager/management/
        request-limits-and-throttling)."""
        return self.refuse(
            method, path, 429, "TooManyRequests", "The request is being throttled as the limit has been reached.",
            nth=nth, times=times, headers={"Retry-After": str(retry_after)},
        )  # fmt: skip

    def conflict(self, method: str, path: str, *, nth: int = 1, times: int = 1) -> Fault:
        return self.refuse(
            method, path, 409, "Conflict", "The request failed due to conflict with a concurrent request. To resolve "
            "it, please refer to https://aka.ms/activitylog to get more details on the conflicting requests.",
            nth=nth, times=times,
        )  # fmt: skip

    def server_error(self, method: str, path: str, *, status: int = 500, nth: int = 1, times: int = 1) -> Fault:
        code = {502: "BadGateway", 503: "ServiceUnavailable", 504: "GatewayTimeout"}.get(status, "InternalServerError")
        return self.refuse(method, path, status, code, "Encountered internal server error.", nth=nth, times=times)

    def quota(self, method: str, path: str, *, nth: int = 1, times: int = 1) -> Fault:
        """Source: learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-resource-quota."""
        return self.refuse(
            method, path, 409, "OperationNotAllowed", "Operation could not be completed as it results in exceeding "
            "approved Total Regional Cores quota. Additional details - Deployment Model: Resource Manager, Location: "
            "westeurope, Current Limit: 10, Current Usage: 10, Additional Required: 2, (Minimum) New Limit: 12.",
            nth=nth, times=times,
        )  # fmt: skip

    def policy(self, method: str, path: str, *, nth: int = 1, times: int = 1) -> Fault:
        """Source: Azure docs, azure-resource-manager/troubleshooting/error-policy-requestdisallowedbypolicy."""
        return self.refuse(
            method, path, 403, "RequestDisallowedByPolicy", "Resource was disallowed by policy. Policy identifiers: "
            "'[{\"policyAssignment\":{\"name\":\"Allowed resource types\"}}]'.", nth=nth, times=times,
        )  # fmt: skip

    def fail_at_end(
        self, method: str, path: str, code: str = "InternalExecutionError",
        message: str = "An internal execution error occurred. Please retry later.", *, nth: int = 1, times: int = 1,
        status: int = 500,
    ) -> Fault:  # fmt: skip
        return self.plan(Fault(Kind.FAIL_AT_END, method, path, nth, times, ArmError(status, code, message)))

    def cancel_at_end(self, method: str, path: str, *, nth: int = 1) -> Fault:
        error = ArmError(409, "Canceled", "The operation has been preempted by a more recent operation.")
        return self.plan(Fault(Kind.CANCELED, method, path, nth, 1, error))

    def lose_response(self, method: str, path: str, *, nth: int = 1, times: int = 1, plane: str = "arm") -> Fault:
        return self.plan(Fault(Kind.LOSE_RESPONSE, method, path, nth, times, plane=plane))

    def lose_request(self, method: str, path: str, *, nth: int = 1, times: int = 1, plane: str = "arm") -> Fault:
        return self.plan(Fault(Kind.LOSE_REQUEST, method, path, nth, times, plane=plane))

    def stale(self, method: str, path: str, *, polls: int = 2, nth: int = 1) -> Fault:
        return self.plan(Fault(Kind.STALE, method, path, nth, 1, polls=polls))

    def expire_token(self, method: str = "*", path: str = "*", *, nth: int = 1, revoke: bool = False) -> Fault:
        return self.plan(Fault(Kind.EXPIRED, method, path, nth, 1, revoke=revoke))

    def challenge_claims(self, method: str = "*", path: str = "*", *, nth: int = 1) -> Fault:
        return self.plan(Fault(Kind.CLAIMS, method, path, nth, 1))
