"""Which providers can run recovered machines. With another target a machine is protected, but cannot fail over."""

from __future__ import annotations

from farshore_operator.api.site import Provider

RECOVERS = frozenset({Provider.LOCAL, Provider.AZURE})


def cannot_recover(provider: Provider, site: str) -> str:
    """Return why machines cannot be recovered at a site and what to do, empty if they can."""
    if provider in RECOVERS:
        return ""
    names = ", ".join(sorted(RECOVERS))
    return (
        f"target site {site} has provider {provider}, at which this release cannot start machines "
        f"(it can with: {names}); recovery points are taken all the same"
    )
