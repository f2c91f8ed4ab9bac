"""The acts of the tutorial at Site Recovery, and how each is mended when it fails: as a person would mend it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.azure.conformance.service import Service

NAME = "web1"


class Failed(Exception):
    """An act stopped; what it says, and what it tells a person to do."""


@dataclass(frozen=True)
class Act:
    """`play` is what is to happen; when it raises Failed, `mend` is what a person does, and then it has happened.

    `ends` is where the machine runs afterwards.
    """

    name: str
    play: Callable[[Service], None]
    mend: Callable[[Service], None]
    ends: str


def _stopped(life: Service, kind: str) -> Failed:
    """Return why a run stopped; what it says must be of use."""
    run = life.last_run(kind)
    step = life.plan.status.next_step or life.get("FailoverRun", run.metadata.name).status.next_step
    return Failed(f"{life.run_told(run)}\nnext: {step}")


def _vault(life: Service) -> None:
    if life.cache.get("RecoveryVault", "shop", "vault") is None:
        life.apply("RecoveryVault", "vault", life.vault_spec())
    life.until_so(lambda: bool(life.get("RecoveryVault", "vault").status.site_recovery.exists), minutes=11)


def _protect(life: Service) -> None:
    if life.cache.get("ProtectedVM", "shop", NAME) is None:
        life.apply("ProtectedVM", NAME, life.machine_spec(NAME))
    life.until_so(lambda: life.phase(NAME) == "Protected" and life.ready(NAME), minutes=2)
    life.write(NAME, "old")
    life.later()


def _drill(life: Service) -> None:
    if life.cache.get("TestFailover", "shop", "drill") is None:
        life.apply("TestFailover", "drill", {"protectedVMRef": {"name": NAME}, "notes": "as it should be"})
    good = "DrillSucceeded=True" in life.said("TestFailover", "drill")
    told = "" if good else str(_stopped(life, "TestFailover")) + life.said("TestFailover", "drill")
    life.remove("TestFailover", "drill")
    if life.cache.get("TestFailover", "shop", "drill") is not None:
        raise Failed(life.said("TestFailover", "drill") + str(_stopped(life, "TestFailover")))
    if not good:
        raise Failed(told)


def _fail_over(life: Service) -> None:
    if life.running()[NAME]:  # one that failed may have switched the machine off, after it had written this
        life.write(NAME, "new")
    life.wish(activeSite="recovery")
    if life.phase(NAME) != "FailedOver":
        raise _stopped(life, "Failover")


def _fail_over_again(life: Service) -> None:
    life.wish(activeSite="source")
    life.until_so(lambda: life.phase(NAME) == "Protected", minutes=2)
    _fail_over(life)


def _change(life: Service) -> None:
    # The newest one but that which the failover made of what had arrived.
    life.wish(changeRecoveryPoint={"run": life.last_run("Failover").metadata.name, "point": life.point_names(NAME)[-2]})
    if life.last_run("ChangePoint").status.phase != "Succeeded":
        raise _stopped(life, "ChangePoint")


def _change_again(life: Service) -> None:
    life.wish(changeRecoveryPoint=None)
    _change(life)


def _commit(life: Service) -> None:
    life.wish(commit=life.get("ProtectedVM", NAME).status.standing.run)
    if life.phase(NAME) != "Committed":
        raise _stopped(life, "Commit")


def _commit_again(life: Service) -> None:
    life.wish(commit=None)
    _commit(life)


def _disable(life: Service) -> None:
    life.condemn("ProtectedVM", NAME)
    life.until_so(lambda: life.cache.get("ProtectedVM", "shop", NAME) is None, minutes=2)


ACTS = (
    Act("vault", _vault, _vault, "home"),
    Act("protect", _protect, _protect, "home"),
    Act("drill", _drill, _drill, "home"),
    Act("failover", _fail_over, _fail_over_again, "away"),
    Act("change of point", _change, _change_again, "away"),
    Act("commit", _commit, _commit_again, "away"),
    Act("disable", _disable, _disable, "away"),
)
