"""Refusals that several providers share, in Azure's words."""

from __future__ import annotations

from tests.azuresim.arm.errors import ArmError
from tests.azuresim.arm.store import Resource


def conflict(message: str) -> ArmError:
    return ArmError(409, "Conflict", message)


def fixed(name: str) -> ArmError:
    return ArmError(409, "PropertyChangeNotAllowed", f"Changing property '{name}' is not allowed.", target=name)


def missing(name: str) -> ArmError:
    return ArmError(400, "InvalidParameter", f"Required parameter '{name}' is missing (null).", target=name)


def reference_missing(resource_id: str, by: str) -> ArmError:
    """Source: Azure docs, resource-manager/troubleshooting: InvalidResourceReference."""
    return ArmError(
        400, "InvalidResourceReference", f"Resource {resource_id} referenced by resource {by} was not found. Please "
        f"make sure "
        "that the referenced resource exists, and that both resources are in the same region.",
    )  # fmt: skip


def location_conflict(known: Resource, asked: str) -> ArmError:
    """Source: Azure docs, resource-manager/troubleshooting: InvalidResourceLocation."""
    group, place = known.group, known.body["location"]
    return ArmError(
        409, "InvalidResourceLocation", f"The resource '{known.name}' already exists in location '{place}' in resource "
        f"group '{group}'. A resource with the same name cannot be created in location '{asked}'. Please select a new "
        "resource name.",
    )  # fmt: skip
