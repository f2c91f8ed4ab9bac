"""How Site Recovery says no. Statuses and codes without a source are [inf]; all are listed in
docs/azure-unverified.md."""

from __future__ import annotations

from tests.azuresim.arm.errors import ArmError
from tests.azuresim.siterecovery.state import CLASSIC, Item, Vault


def not_found(what: str, name: str) -> ArmError:
    """[MIGRATE, "Error handling": ResourceNotFound, RecoveryPointNotFound]; the status is ARM's own."""
    code = "RecoveryPointNotFound" if what == "recovery point" else "ResourceNotFound"
    return ArmError(404, code, f"The {what} '{name}' could not be found.")


def bad(message: str, target: str = "") -> ArmError:
    """A value that the model takes and Site Recovery does not [MIGRATE, "Error handling": InvalidParameter]."""
    return ArmError(400, "InvalidParameter", message, target=target)


def in_use(message: str) -> ArmError:
    """Something still depends on it [doc: "Manage the configuration server": disable protection, then dissociate and
    delete policies, then delete the server]; the code is [inf]."""
    return ArmError(409, "ResourceInUse", message)


def check_alive(vault: Vault, provider: str) -> None:
    """Refuse when the classic experience has stopped [inf: what the service then says]."""
    if vault.retired and provider == CLASSIC:
        raise ArmError(
            400,
            "ClassicExperienceRetired",
            "The classic experience is retired: move to the modernized one.",
        )


def not_allowed(item: Item, operation: str, allowed: list[str]) -> ArmError:
    """The operation is not among the machine's allowedOperations (`rules`); status and code are [inf]."""
    return ArmError(
        409, "OperationNotAllowed",
        f"The operation '{operation}' is not allowed on the protected item '{item.friendly}' in its current state "
        f"'{item.phase.value}'. Allowed operations: {', '.join(allowed) or 'none'}.",
    )  # fmt: skip


class SetupRefused(Exception):
    """Unified Setup or the appliance's configuration manager stops: nothing appears in the vault."""
