"""Which calls exist: path template, API versions, models of both bodies, handler. Providers plug in here."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from tests.azuresim.arm.call import Call, Later, Reply
from tests.azuresim.arm.errors import ArmError

VARIABLE = re.compile(r"\{(\w+)(\*?)\}")
ACTIONS = {"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete", "POST": "action"}

SUBSCRIPTION = "/subscriptions/{subscription}"
GROUP = SUBSCRIPTION + "/resourceGroups/{group}"


@dataclass(frozen=True)
class Route:
    """One call. `template`: literal segments match whatever their case; `{name}` is one segment, `{name*}` the rest."""

    method: str
    template: str
    handler: Callable[[Call], Reply | Later]
    versions: tuple[str, ...]
    """API versions that the endpoint knows for it, oldest first."""
    body: type | None = None
    """Model of the request; None when there is none, or when no SDK has one (the JSON goes to the handler as it is)."""
    reply: type | None = None
    items: type | None = None
    """Model of each element of "value" in the answer, for lists: the SDKs have no model of a page."""
    action: str = ""
    """The permission it needs; derived from the template when empty: Microsoft.Compute/disks/write."""
    body_optional: bool = False
    anonymous: bool = False
    """Needs no token, as a Hub's /metadata/endpoints."""

    def __post_init__(self) -> None:
        if not self.action:
            object.__setattr__(self, "action", _action(self.method, self.template))

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        parts, at = [], 0
        for found in VARIABLE.finditer(self.template):
            parts.append(re.escape(self.template[at : found.start()]))
            parts.append(f"(?P<{found[1]}>{'.+' if found[2] else '[^/]+'})")
            at = found.end()
        parts.append(re.escape(self.template[at:]))
        return re.compile("".join(parts) + "/?", re.IGNORECASE)

    @property
    def namespace(self) -> str:
        """Microsoft.Compute; Microsoft.Resources for what belongs to Resource Manager itself."""
        return self.kind.split("/")[0]

    @property
    def kind(self) -> str:
        """Microsoft.Compute/disks, Microsoft.Network/virtualNetworks/subnets."""
        return self.action.rsplit("/", 1)[0] if self.method != "POST" else self.action.rsplit("/", 2)[0]


def _action(method: str, template: str) -> str:
    _, found, tail = template.rpartition("/providers/")
    literal = [one for one in (tail if found else template).split("/") if one and not one.startswith("{")]
    if not found:
        literal = ["Microsoft.Resources", *literal]
    return "/".join([*literal, ACTIONS[method]])


@dataclass
class Registry:
    """All routes of one endpoint. `limits` holds, for "Namespace/type" or "Namespace", the API versions that the
    endpoint knows instead of the routes' own: an Azure Stack Hub knows old ones only."""

    routes: list[Route] = field(default_factory=list)
    limits: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, routes: Iterable[Route]) -> None:
        self.routes.extend(routes)

    def limit(self, kind: str, versions: Iterable[str]) -> None:
        """From now on `kind` ("Microsoft.Compute" or "Microsoft.Compute/disks") answers to these API versions only."""
        self.limits[kind.lower()] = tuple(versions)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """The route for a path. Raises ArmError 404 or 405 in ARM's words."""
        other = False
        for route in self.routes:
            if found := route.pattern.fullmatch(path):
                if route.method == method:
                    return route, found.groupdict()
                other = True
        if other:
            raise ArmError(405, "MethodNotAllowed", f"The requested resource does not support http method '{method}'.")
        found = re.search(r"/providers/([^/]+)/([^/]+)", path, re.IGNORECASE)
        if found:
            raise ArmError(
                404, "InvalidResourceType",
                f"The resource type '{found[2]}' could not be found in the namespace '{found[1]}' for the request "
                f"'{method} {path}'.",
            )  # fmt: skip
        raise ArmError(404, "NotFound", f"The requested path '{path}' is not known to the simulator.")

    def supported(self, route: Route) -> tuple[str, ...]:
        kind = route.kind.lower()
        while kind:
            if kind in self.limits:
                return self.limits[kind]
            kind = kind.rpartition("/")[0]
        return route.versions

    def check_version(self, route: Route, given: str) -> None:
        """Refuse a missing or unknown API version.

        Source: Azure docs, azure-resource-manager/troubleshooting/common-deployment-errors
        (InvalidApiVersionParameter, MissingApiVersionParameter, NoRegisteredProviderFound).
        """
        if not given:
            raise ArmError(
                400,
                "MissingApiVersionParameter",
                "The api-version query parameter (?api-version=) is required for all requests.",
            )
        versions = self.supported(route)
        if given not in versions:
            shown = ",".join(sorted(versions, reverse=True))
            raise ArmError(
                400, "InvalidApiVersionParameter",
                f"The api-version '{given}' is invalid. The supported versions are '{shown}'.",
            )  # fmt: skip
