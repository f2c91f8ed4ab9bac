"""One call to Resource Manager as a handler sees it, and the two ways to answer it: now, or later."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.azuresim.arm.errors import ArmError

if TYPE_CHECKING:
    from tests.azuresim.arm.identity import Principal
    from tests.azuresim.arm.registry import Route
    from tests.azuresim.sim import AzureSim


@dataclass(frozen=True)
class Asked:
    """One request as it came in, on whichever plane: arm, token or data."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    raw: bytes = b""


@dataclass(frozen=True)
class Call:
    """`args` are the path's variables, by the names in the template; `body` is checked against the route's model."""

    sim: AzureSim
    route: Route
    method: str
    path: str
    args: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    api_version: str
    who: Principal
    body: Any = None

    @property
    def resource_id(self) -> str:
        """The resource that the call is about: the path, without the action of a POST."""
        return self.path.rpartition("/")[0] if self.method == "POST" else self.path

    @property
    def group_id(self) -> str:
        return f"/subscriptions/{self.args['subscription']}/resourceGroups/{self.args['group']}"

    def require(self, action: str, scope: str) -> None:
        """Refuse with `LinkedAuthorizationFailed` when the caller may not do `action` on another resource that this
        call links to (source: Azure docs, role-based-access-control/troubleshooting, "LinkedAuthorizationFailed")."""
        if not self.sim.roles.allowed(self.who, action, scope):
            raise ArmError(
                403, "LinkedAuthorizationFailed",
                f"The client '{self.who.client_id}' with object id '{self.who.object_id}' has permission to perform "
                f"action '{self.route.action}' on scope '{self.path}'; however, it does not have permission to perform "
                f"action(s) '{action}' on the linked scope(s) '{scope}' (respectively) or the linked scope(s) are "
                "invalid.",
            )  # fmt: skip


@dataclass(frozen=True)
class Reply:
    """The answer now. `model` overrides the route's for this answer."""

    body: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    model: type | None = None


@dataclass(frozen=True)
class Later:
    """The answer is an operation: the client polls it.

    `finish()` does the effect when the operation ends and returns the result (JSON values, for the Location header's
    URL); it may raise ArmError, which is how an operation fails at the end. `failed(error)` leaves the state that
    Azure leaves then (for instance provisioningState Failed).

    `status_path` and `result_path` are templates with `{operation}`; without them the provider's usual ones are used.
    An empty string leaves that header away.
    """

    finish: Callable[[], Any]
    resource_id: str = ""
    body: Any = None
    status: int = 202
    failed: Callable[[ArmError], None] = lambda error: None
    result_model: type | None = None
    result_status: int = 0
    status_path: str | None = None
    result_path: str | None = None
    operation: str = ""
    """Id of the operation; one is made when it is empty."""
