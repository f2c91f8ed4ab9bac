"""The two families of failure: those that time heals, and those that need a person.

Every fault carries what happened and what to do about it, so that a status, an event and a log line can say both.
Vendor exceptions are translated into these once, at the edge where they appear.
"""

from __future__ import annotations


class Fault(Exception):
    """A failure with a remedy.

    Args:
        message: what went wrong and where, as one sentence without a trailing full stop.
        remedy: what a person should do next; empty if there is nothing to do but wait.
        reason: CamelCase word for conditions and events.
    """

    def __init__(self, message: str, remedy: str = "", *, reason: str = "Fault") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.reason = reason

    def __str__(self) -> str:
        """Give the message and, behind it, the remedy."""
        return f"{self.message}. {self.remedy}" if self.remedy else self.message


class WaitFault(Fault):
    """A failure that is retried: the peer is away, throttled, not there yet.

    Args:
        retry_after: seconds after which a retry makes sense; None leaves the choice to the caller.
    """

    def __init__(
        self, message: str, remedy: str = "", *, reason: str = "Waiting", retry_after: float | None = None
    ) -> None:
        super().__init__(message, remedy, reason=reason)
        self.retry_after = retry_after


class StopFault(Fault):
    """A failure that no retry heals: wrong key, fenced writer, contradiction. It needs a person."""

    def __init__(self, message: str, remedy: str = "", *, reason: str = "Stopped") -> None:
        super().__init__(message, remedy, reason=reason)
