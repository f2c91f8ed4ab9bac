"""When a machine that is no longer wanted may go: its agent is removed, or it is said that it could not be."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from farshore_engine.contract.replication import State
from farshore_operator.api import ProtectedVM
from farshore_operator.api.protectedvm import DeletionPolicy
from farshore_operator.decide import machineruns
from farshore_operator.decide.naming import FORCE_DELETE_ANNOTATION
from farshore_operator.decide.observedvm import ObservedVM
from farshore_operator.decide.protection import has
from farshore_operator.engines.capabilities import Capability


@dataclass(frozen=True)
class Farewell:
    """Whether the object may go; `left_behind` says what could not be cleaned up, `kept` what was not to be, `message`
    what is waited for."""

    let_go: bool
    left_behind: str = ""
    message: str = ""
    kept: str = ""


def farewell(observed: ObservedVM, now: datetime) -> Farewell:
    """Decide on a machine whose deletion was asked for.

    It waits for drills first, because their clean-up needs the machine's vault; then for the agent to be removed (or
    for a service to end its protection, which is asked again meanwhile), up to a bound, or not at all if the annotation
    `farshore.dev/force-delete` says so.
    """
    vm = observed.vm
    asked = vm.metadata.deletion_timestamp or now
    address = vm.spec.source.address
    left = f"the agent may still run on {address}: remove it there with `farshore-agent uninstall`"
    doing, bound = f"the agent is being removed from {address}", observed.timing.let_go_after
    if not has(observed, Capability.OWN_SERVERS):
        left = f"Site Recovery may still replicate {address}, at a cost: disable its replication in the vault"
        doing, bound = f"the protection of {address} is being disabled", observed.timing.service_lets_go_after
    if FORCE_DELETE_ANNOTATION in vm.metadata.annotations:
        return Farewell(True, _unless_gone(observed, f"deletion was forced, so {left}"))
    busy = machineruns.under_way(observed)
    drills = machineruns.uncleaned_drills(observed)
    if busy is not None or drills:
        names = ", ".join(sorted({*drills, *([busy.metadata.name] if busy else [])}))
        ends = f"(annotation {FORCE_DELETE_ANNOTATION} ends the wait at once)"
        return Farewell(False, message=f"deletion waits for the end and clean-up of {names}: delete a drill {ends}")
    assignment = vm.status.assignment
    if assignment is None:
        return Farewell(True)
    if retains(vm) and not has(observed, Capability.OWN_SERVERS):
        return Farewell(True, kept=f"Site Recovery goes on to protect {address}, as spec.deletionPolicy Retain says")
    report = observed.report
    if report is not None and report.state is State.UNINSTALLED:
        return Farewell(True)
    if observed.server(assignment.process_server) is None:
        return Farewell(True, f"ProcessServer {assignment.process_server} is gone, so {left}")
    if now - asked >= bound:
        why = report.message if report and report.message else "the process server could not remove it in time"
        return Farewell(True, f"{why}; {left}")
    minutes = int(bound.total_seconds() // 60)
    return Farewell(
        False,
        message=f"{doing}; that is waited for at most {minutes} min "
        f"(annotation {FORCE_DELETE_ANNOTATION} ends the wait at once)",
    )


def retains(vm: ProtectedVM) -> bool:
    """Tell whether the machine's protection outlives its object."""
    return vm.spec.deletion_policy is DeletionPolicy.RETAIN


def _unless_gone(observed: ObservedVM, left: str) -> str:
    report = observed.report
    if observed.vm.status.assignment is None or (report is not None and report.state is State.UNINSTALLED):
        return ""
    return left
