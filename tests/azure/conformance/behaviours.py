"""What a user may ask of an engine beyond what every engine does: the capability it takes, how it is asked, how it
shows that it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.azure.conformance.life import Life

from farshore_operator.engines.capabilities import Capability


@dataclass(frozen=True)
class Behaviour:
    """One thing that an engine may be able to do.

    Attributes:
        before: what happens before it is asked for.
        ask: the edit that asks for it.
        works: checks that it has happened.
        name: by which it is refused, where it is not the capability's.
        plan: fields of the plan from the beginning.
    """

    needs: Capability
    ask: Callable[[Life], None]
    works: Callable[[Life], None]
    before: Callable[[Life], None] = lambda life: None
    name: str = ""
    plan: dict[str, Any] = field(default_factory=dict)

    @property
    def refusal(self) -> str:
        return self.name or f"{self.needs}NotSupported"


def _away(life: Life) -> None:
    life.write("web", "kept")
    life.later()
    life.write("web", "newest")
    life.wish(activeSite="recovery")
    assert life.running()["web"] == ["away"], life.said("FailoverPlan", "plan")


def _committed(life: Life) -> None:
    _away(life)
    life.wish(commit=life.last_run("Failover").metadata.name)
    assert life.phase("web") == "Committed", life.said("FailoverPlan", "plan")


def _reversed(life: Life) -> None:
    _committed(life)
    life.wish(reprotect=life.last_run("Failover").metadata.name)
    life.write("web", "of away")


def _moved(life: Life) -> None:
    assert life.running()["web"] == ["away"] and life.phase("web") == "FailedOver", life.said("FailoverPlan", "plan")
    assert life.read("web") == "newest"


def _home_again(life: Life) -> None:
    assert life.running()["web"] == ["home"] and life.read("web") == "newest", life.said("FailoverPlan", "plan")
    assert life.phase("web") == "Protected"


def _came_back(life: Life) -> None:
    assert life.running()["web"] == ["home"] and life.read("web") == "of away", life.said("FailoverPlan", "plan")
    assert life.phase("web") == "FailedBack"


def _writes(life: Life) -> None:
    life.write("web", "newest")


def _points_stay(life: Life) -> None:
    life.wish(commit=life.last_run("Failover").metadata.name)
    assert life.phase("web") == "Committed" and len(life.point_names("web")) >= 2
    assert "RecoveryPointsDeleted" not in life.everything("web")


def _rests(life: Life) -> None:
    assert str(life.get("ProtectedVM", "web").status.desired) == "Pause"


def _probed(life: Life) -> None:
    asked = [task for task in life.tasks("ProbeMachine") if task["input"].get("probes")]
    assert asked and life.phase("web") == "FailedOver"


def _cut(life: Life) -> None:
    assert "ConsistencyGroup=" in life.said("ProtectedVM", "web") and life.phase("web") == "Protected"


def _windows(life: Life) -> None:
    assert life.phase("web") == "Protected", life.said("ProtectedVM", "web")


def _edit_source(life: Life) -> None:
    spec = {**life.body("ProtectedVM", "web")["spec"]}
    life.change("ProtectedVM", "web", source={**spec["source"], "osType": "windows"})


def _in(life: Life, phase: str) -> None:
    assert life.phase("web") == phase and life.running()["web"] == ["away"], life.said("FailoverPlan", "plan")


def _with_target(life: Life, **more: Any) -> None:
    life.change("ProtectedVM", "web", target={**life.body("ProtectedVM", "web")["spec"]["target"], **more})


def _still_ready(life: Life) -> None:
    assert life.ready("web"), life.said("ProtectedVM", "web")


BEHAVIOURS = (
    Behaviour(
        Capability.PLANNED_FAILOVER, lambda life: life.wish(activeSite="recovery", mode="planned"), _moved, _writes
    ),
    Behaviour(
        Capability.REQUIRED_SHUTDOWN, lambda life: life.wish(activeSite="recovery", shutdownSource="Required"), _moved,
        _writes,
    ),
    Behaviour(
        Capability.ABORT, lambda life: life.wish(abort=life.last_run("Failover").metadata.name, activeSite="source"),
        _home_again, _away,
    ),
    Behaviour(
        Capability.REPROTECT, lambda life: life.wish(reprotect=life.last_run("Failover").metadata.name),
        lambda life: _in(life, "ProtectedReverse"), _committed,
    ),
    Behaviour(
        Capability.FAILBACK, lambda life: life.wish(activeSite="source", mode="planned"), _came_back, _reversed
    ),
    Behaviour(
        Capability.CHOSEN_PROBES, lambda life: life.wish(activeSite="recovery"), _probed,
        plan={"probes": [{"name": "page", "http": {"port": 80}}]},
    ),
    Behaviour(
        Capability.CHOSEN_INTERFACES, lambda life: _with_target(life, privateIP="10.9.0.50"),
        _still_ready,
    ),
    Behaviour(
        Capability.CONSISTENCY_GROUP, lambda life: life.change("ProtectedVM", "web", consistencyGroup="shop"), _cut
    ),
    Behaviour(Capability.KEEP_POINTS, _away, _points_stay),
    Behaviour(Capability.PAUSE, lambda life: life.change("ProtectedVM", "web", paused=True), _rests),
    Behaviour(Capability.WINDOWS_AGENT, _edit_source, _windows, name="WindowsNotSupported"),
)  # fmt: skip
