"""What a provider needs at the target for a machine, and what of that is missing: the seam for each one's checks.

The process server of the site finds out what it has for a machine: on its own host, or in its subscription.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from farshore_engine.contract.replication import RecoveryReport
from farshore_operator.api.site import Provider
from farshore_operator.decide.blocker import Blocker


@dataclass(frozen=True)
class TargetFacts:
    """A machine and the process server that would recover it.

    Attributes:
        machine_id: in the vault.
        name: that the recovered machine gets.
        server: name of the process server.
        recovery: what it reports; None from one that does not report it.
    """

    machine_id: str
    name: str
    server: str
    recovery: RecoveryReport | None


def in_the_way(provider: Provider, facts: TargetFacts) -> tuple[Blocker, ...]:
    """Return what is missing at the target, nothing for a provider that is not asked."""
    return _CHECKS[provider](facts) if provider in _CHECKS else ()


def _reported(facts: TargetFacts) -> tuple[Blocker, ...]:
    if facts.recovery is None:
        return ()
    found = [
        Blocker(one.reason, f"{facts.server}: {one.message}", hard=one.hard)
        for one in facts.recovery.obstacles
        if one.machine_id == facts.machine_id
    ]
    if facts.name in facts.recovery.machines:
        text = (
            f"{facts.server} has a machine {facts.name} already: clean it up, or give this one another name in "
            "spec.target.name"
        )
        found.append(Blocker("NameTaken", text, drills=False))
    return tuple(found)


_CHECKS: dict[Provider, Callable[[TargetFacts], tuple[Blocker, ...]]] = {
    Provider.LOCAL: _reported,
    Provider.AZURE: _reported,
}
