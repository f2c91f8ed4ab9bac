"""The resources that exist, by id. Ids compare without regard to case, as in ARM; bodies are plain JSON values."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.azuresim.arm.errors import ArmError

IN_GROUP = re.compile(r"/subscriptions/([^/]+)/resourceGroups/([^/]+)(?:/providers/(.+))?", re.IGNORECASE)


@dataclass(frozen=True)
class Parsed:
    """The parts of a resource id: type `Microsoft.Network/virtualNetworks/subnets`, name `net/sub`."""

    subscription: str
    group: str
    kind: str
    name: str

    @property
    def last(self) -> str:
        return self.name.rpartition("/")[2]


def parse(resource_id: str) -> Parsed | None:
    found = IN_GROUP.fullmatch(resource_id.rstrip("/"))
    if found is None:
        return None
    words = (found[3] or "").split("/")
    return Parsed(found[1], found[2], "/".join([words[0], *words[1::2]]), "/".join(words[2::2]))


@dataclass
class Resource:
    """One resource. `body` is what a GET answers; `hidden` is what the provider remembers besides."""

    id: str
    kind: str
    body: dict[str, Any]
    hidden: dict[str, Any] = field(default_factory=dict)

    @property
    def properties(self) -> dict[str, Any]:
        found: dict[str, Any] = self.body.setdefault("properties", {})
        return found

    @property
    def name(self) -> str:
        return self.id.rpartition("/")[2]

    @property
    def group(self) -> str:
        parsed = parse(self.id)
        return parsed.group if parsed else ""

    @property
    def tags(self) -> dict[str, str]:
        return self.body.get("tags") or {}


@dataclass
class Store:
    """All resources of all groups, in the order in which they were made."""

    found: dict[str, Resource] = field(default_factory=dict)

    def get(self, resource_id: str) -> Resource | None:
        """By id, whatever its case, with or without the first slash (Azure's own examples leave it away at times)."""
        return self.found.get("/" + resource_id.lower().strip("/"))

    def need(self, resource_id: str) -> Resource:
        """Raises ArmError 404 `ResourceNotFound` in ARM's words."""
        resource = self.get(resource_id)
        if resource is None:
            raise missing(resource_id)
        return resource

    def put(self, resource: Resource) -> Resource:
        self.found[resource.id.lower()] = resource
        return resource

    def remove(self, resource_id: str) -> Resource | None:
        return self.found.pop(resource_id.lower().rstrip("/"), None)

    def of(self, kind: str, below: str = "") -> Iterator[Resource]:
        """Resources of a type, below an id (a group, a parent) when one is given."""
        start = below.lower().rstrip("/") + "/"
        for resource in list(self.found.values()):
            if resource.kind.lower() == kind.lower() and (not below or resource.id.lower().startswith(start)):
                yield resource

    def below(self, resource_id: str) -> list[Resource]:
        start = resource_id.lower().rstrip("/") + "/"
        return [one for key, one in self.found.items() if key.startswith(start)]


def missing(resource_id: str) -> ArmError:
    """Source: learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-not-found."""
    parsed = parse(resource_id)
    if parsed is None or not parsed.kind:
        group = parsed.group if parsed else resource_id
        return ArmError(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")
    kind, name = parsed.kind.split("/"), parsed.name.split("/")
    shown = "/".join([kind[0], *(part for pair in zip(kind[1:], name, strict=False) for part in pair)])
    return ArmError(
        404, "ResourceNotFound",
        f"The Resource '{shown}' under resource group '{parsed.group}' was not found. For more details please go to "
        "https://aka.ms/ARMResourceNotFoundFix",
    )  # fmt: skip
