"""Finds the repository that this code runs from: the sources of the control plane are built from it."""

from __future__ import annotations

from pathlib import Path

from farshore_engine.contract.faults import StopFault


def checkout() -> Path:
    """Give the root of the repository.

    Raises StopFault where farshore was installed as a wheel, which carries no development environment.
    """
    root = Path(__file__).resolve().parents[3]
    if not (root / "tests" / "devcluster" / "go.mod").is_file():
        raise StopFault(
            "The development environment is not part of an installed farshore",
            "Clone the repository and run `make dev-up` in it",
            reason="NoCheckout",
        )
    return root
