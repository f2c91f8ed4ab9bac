"""How Azure says no: a status and {"error": {"code", "message", "target", "details"}}.

Source: Azure REST API guidelines / ARM RPC "common-api-details.md#error-response-content"
(github.com/Azure/azure-resource-manager-rpc).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class ArmError(Exception):
    """Raised by handlers; becomes the answer to the call, or the end of a long operation."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        target: str = "",
        details: Sequence[Mapping[str, Any]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status, self.code, self.message, self.target = status, code, message, target
        self.details, self.headers = list(details), dict(headers or {})

    @property
    def error(self) -> dict[str, Any]:
        """The inner object, as it also stands in the status of a failed operation."""
        found: dict[str, Any] = {"code": self.code, "message": self.message}
        if self.target:
            found["target"] = self.target
        if self.details:
            found["details"] = [dict(one) for one in self.details]
        return found

    @property
    def body(self) -> dict[str, Any]:
        return {"error": self.error}


class SimulatorBug(Exception):
    """The simulator was about to say what the SDK's models do not know: a mistake of ours, never of the client."""
