"""Tells of a replicated item in the words of every engine, so that phases, RPO and `kubectl get` work unchanged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from farshore_engine.contract.assignment import Desired
from farshore_engine.contract.operation import Operation
from farshore_engine.contract.points import Consistency
from farshore_engine.contract.replication import (
    AgentReport,
    Check,
    CheckResult,
    ReplicationReport,
    State,
    TransferProgress,
)
from farshore_operator.api.recoveryvault import Engine
from farshore_operator.engines.capabilities import LACKING, Capability
from farshore_operator.engines.siterecovery.decide.verdict import checks, told
from farshore_operator.engines.siterecovery.facts import Item, Job, Points
from farshore_operator.engines.siterecovery.wishes import MachineWish

RECENT = 5
COPYING = ("unprotectedstatesbegin", "enabling", "initialreplication")
FAILED = ("enablingfailed", "cancelled", "protectionfailed")
NO_PAUSE = Check(
    name="PauseNotSupported",
    result=CheckResult.WARNING,
    message=LACKING[Engine.SITE_RECOVERY][Capability.PAUSE],
    remedy="Set spec.paused to false",
)


@dataclass(frozen=True)
class Telling:
    """Makes reports of one machine."""

    wish: MachineWish
    driver: str
    now: datetime
    operation: Operation | None = None

    def keeping(self, operation: Operation | None) -> Telling:
        """Return the same, with the operation that is under way."""
        return replace(self, operation=operation)

    def say(self, state: State, message: str, *, reason: str = "", remedy: str = "") -> ReplicationReport:
        """Return a report of a machine that Site Recovery does not replicate; what was known of points stays."""
        old = self.wish.report or self._blank()
        return old.model_copy(
            update={
                "process_server": self.driver,
                "epoch": self.wish.epoch,
                "state": state,
                "message": message,
                "remedy": remedy,
                "reason": reason,
                "progress": None,
                "checks": (),
                "operation": self.operation,
                "updated_at": self.now,
            }
        )

    def blocked(self, reason: str, message: str, remedy: str) -> ReplicationReport:
        """Return a report of a machine that needs a person."""
        word = "".join(c for c in reason if c.isalnum()) or "Blocked"
        return self.say(State.BLOCKED, message, reason=word, remedy=remedy)

    def _blank(self) -> ReplicationReport:
        return ReplicationReport(process_server=self.driver, epoch=self.wish.epoch, state=State.WAITING)


def disabling(tell: Telling, item: Item, message: str) -> ReplicationReport:
    """Return the report of an item whose protection ends."""
    report = tell.say(State.WAITING, message, reason="Disabling")
    return report.model_copy(update={"checks": checks(item.problems)})


def of_item(tell: Telling, item: Item, points: Points, failed: Job | None) -> ReplicationReport:
    """Return the report of a replicated item; `failed` is the job that was to protect it."""
    state, message, remedy, reason = _state(tell, item, points, failed)
    newest_app = [one for one in points.all if one.consistency is Consistency.APP]
    base = tell.say(state, message, reason=reason, remedy=remedy)
    paused = (NO_PAUSE,) if tell.wish.desired is Desired.PAUSE else ()
    known = bool(points.all) or not item.recovered  # a commit deletes the points, and not what was said of them
    told_points = {
        "last_point": points.all[-1] if points.all else None,
        "last_app_consistent_point": newest_app[-1] if newest_app else None,
        "oldest_point": points.all[0] if points.all else None,
        "recent_points": tuple(reversed(points.all[-RECENT:])),
        "point_count": len(points.all),
    }
    return base.model_copy(
        update={
            "checks": (*paused, *checks(item.problems)),
            "agent": _agent(item, state),
            "disks": item.disks,
            "progress": _progress(item) if state in (State.INITIAL, State.RESYNC) else None,
            "resync_reason": "Site Recovery asks for it" if state is State.RESYNC else "",
            **(told_points if known else {}),
        }
    )


def _state(tell: Telling, item: Item, points: Points, failed: Job | None) -> tuple[State, str, str, str]:
    word = item.state.lower()
    said = item.state_text or item.state
    if item.recovered:
        if tell.wish.desired is Desired.REPLICATE:
            text = f"{item.friendly} was failed over to Azure outside of Farshore ({said})"
            remedy = "Commit it there and delete this ProtectedVM, or fail it over with a FailoverPlan next time"
            return State.BLOCKED, text, remedy, "FailedOverOutside"
        return State.STOPPED, f"it runs in Azure ({said})", "", "FailedOver"
    if failed is not None or any(one in word for one in FAILED):
        return _trouble(item, failed, said)
    if item.switched_to:
        return State.STOPPED, f"it moved to {item.switched_to}", "", "Switched"
    if tell.wish.desired is Desired.STOP:
        return State.STOPPED, said, "", "Stopped"
    if item.resync and points.all:
        return State.RESYNC, said, "", "ResyncRequired"
    if any(one in word for one in COPYING) or not points.all:
        begun = word.startswith("unprotected") and item.percent in (None, 0) and not item.agent_version
        return (State.INSTALLING if begun else State.INITIAL), said, "", ""
    severe = [one for one in item.problems if one.severe]
    return State.REPLICATING, severe[0].told if severe else said, severe[0].remedy if severe else "", ""


def _trouble(item: Item, failed: Job | None, said: str) -> tuple[State, str, str, str]:
    if failed is not None:
        why = told(failed)
        return State.BLOCKED, why.message, f"{why.remedy}. Then it is tried again by itself", f"Failed{why.code}"
    severe = next(iter(item.problems), None)
    text = f"{said}: {severe.told}" if severe is not None else f"Site Recovery says {said}"
    remedy = severe.remedy if severe is not None else "Look at the replicated item in the vault"
    return State.BLOCKED, text, f"{remedy}; else disable its protection: delete this ProtectedVM", "ProtectionFailed"


def _agent(item: Item, state: State) -> AgentReport | None:
    if not item.agent_version:
        return None
    return AgentReport(
        version=item.agent_version,
        connected=state in (State.REPLICATING, State.INITIAL, State.RESYNC) and not _silent(item),
        last_seen=item.heartbeat,
        tracker="Mobility service",
    )


def _silent(item: Item) -> bool:
    return any(one.code == "78174" for one in item.problems)  # Microsoft's code for a machine without heartbeat


def _progress(item: Item) -> TransferProgress | None:
    if item.percent is None:
        return None
    size = sum(disk.size_bytes for disk in item.disks)
    percent = min(100, max(0, item.percent))
    return TransferProgress(bytes_total=size, bytes_done=size * percent // 100, percent=percent)
